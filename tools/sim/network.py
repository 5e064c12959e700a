"""A deterministic network of the production machines: virtual clock, broker, disks, faults, and checkers.

One seed decides everything. A node is its real state, its real `step`, and a fake edge: the broker loses what is
published while a node is away, and a share of what miners send each other at QoS 0; across a partition QoS 0 is lost
and QoS 1 is late. A disk keeps what an effect has written; scorer and trainer are functions of their input. Effects run
in order, and a crash may fall between two of them, or into the middle of a write.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np

import agent.core.values as av
import miner.core.values as mv
from agent.core import machine as agent_machine
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Height, ModelVector, Round
from flchain.codecs import encode_carried
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from miner.core import machine as miner_machine
from miner.edge.ledger.base import StoredBase
from tools.sim.broker import Broker
from tools.sim.chain import PARAMETERS_COUNT, BuiltChain, build_chain
from tools.sim.checks import Checker
from tools.sim.processes import build_agent, build_miner
from tools.sim.timeline import Timeline
from tools.sim.trace import Trace, describe_event
from tools.sim.world import Clock, Links, Node

END_MS = 240_000
EVENTS_MAX = 2_000_000
SAVES = (mv.SaveVote, mv.SaveBlock, mv.SaveState, av.SaveWork, av.SaveScores, av.SaveOutbox, av.SavePosition)
__all__ = ["Clock", "Links", "Network", "Node"]


class Network:
    """Nodes m0.. and d0.., the broker between them, and the checks. A node's number is its place in the built chain."""

    def __init__(
        self,
        seed: int,
        rounds: int = 3,
        *,
        miners: int = 4,
        devices: int = 3,
        links: Links | None = None,
        silent: frozenset[str] = frozenset(),
        training_ms: tuple[int, int] = (100, 300),
        chain: BuiltChain | None = None,
        mining: frozenset[str] = frozenset(),
    ) -> None:
        """Nodes in `silent` exist on the chain and are never started; devices in `mining` score."""
        self.seed, self.rounds, self.training_ms, self.mining = seed, rounds, training_ms, mining
        self.chain = chain or build_chain(miners, devices, score_margin_bp=2_000)
        self.rng = random.Random(seed)
        self.timeline, self.trace, self.counts = Timeline(), Trace(), Counter[str]()
        self.checker = Checker(self.chain.state)
        self.topics = Topics.of_chain(self.chain.id)
        self.broker = Broker(self.timeline, self, self.checker, self.topics, self.rng, links=links, counts=self.counts)
        self.refusals: dict[str, Counter[str]] = {}
        self.notes: list[tuple[int, str, str, dict[str, object]]] = []
        self.reports: dict[tuple[str, int], av.Report] = {}
        self.gone = set(silent)
        """Nodes that the end of a run does not wait for."""
        miner_nodes = [Node(f"m{i}", i, key) for i, key in enumerate(self.chain.miners)]
        device_nodes = [Node(f"d{i}", i, key) for i, key in enumerate(self.chain.devices)]
        self.nodes = {node.name: node for node in (*miner_nodes, *device_nodes)}
        for name in sorted(self.nodes.keys() - silent):
            self.at(self.rng.randint(0, 50), self.start, name)

    def add_twin(self, name: str) -> Node:
        """Add a second process with the key of a miner, and a disk of its own."""
        first = self.nodes[name]
        twin = self.nodes[f"{name}-twin"] = Node(f"{name}-twin", first.number, first.identity)
        self.at(self.rng.randint(0, 50), self.start, twin.name)
        return twin

    # --- the run -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The virtual time in ms."""
        return self.timeline.now_ms

    def at(self, delay_ms: int, do: Callable[..., None], *arguments: object) -> None:
        """Plan a call `delay_ms` from now."""
        self.timeline.at(delay_ms, do, *arguments)

    def run(self, until: Callable[[Network], bool] | None = None, end_ms: int = END_MS) -> Network:
        """Run until `until` (default: all nodes have all rounds), a violation, or `end_ms` of virtual time."""
        is_over, violations = until or Network.is_done, self.violations
        is_in_time = self.timeline.run(lambda: bool(violations) or is_over(self), end_ms=end_ms, events_max=EVENTS_MAX)
        if not is_in_time:
            self.violations.append("stalled")
        return self

    @property
    def violations(self) -> list[str]:
        """What went wrong; empty after a good run."""
        return self.checker.violations

    def explain(self) -> str:
        """Return what a failing test prints: the seed, what went wrong, and where every node stands."""
        return f"seed {self.seed} at {self.now} ms: {self.violations}: {self.describe()}; {self.trace.lines[-5:]}"

    def is_done(self) -> bool:
        """Return True if every node that is waited for is up and has all rounds, and every device the newest model."""
        awaited = [node for node in self.nodes.values() if node.name not in self.gone]
        return all(node.is_up and node.is_online and self._is_node_done(node) for node in awaited)

    def _is_node_done(self, node: Node) -> bool:
        if node.is_miner:
            return bool(node.state.chain.round.number > self.rounds)
        light = node.state.light
        return bool(light.round > self.rounds and light.is_synced)

    def describe(self) -> str:
        """Return where every node stands, on one line."""
        return "; ".join(self._describe(node) for node in self.nodes.values())

    def _describe(self, node: Node) -> str:
        if not node.is_up:
            return f"{node.name} down"
        if node.is_miner:
            chain, bft = node.state.chain, node.state.bft
            where = f"h{chain.height} r{chain.round.number} {chain.round.phase.name}"
            return f"{node.name} {where} view {bft.view} {bft.step.name} started={bft.is_started}"
        light = node.state.light
        return f"{node.name} h{light.height} r{light.round} {light.phase.name} model {light.model_round}"

    def miners(self) -> list[Node]:
        """Return the miners that are up."""
        return [node for node in self.nodes.values() if node.is_miner and node.is_up]

    def devices(self) -> list[Node]:
        """Return the devices that are up."""
        return [node for node in self.nodes.values() if not node.is_miner and node.is_up]

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a process from its disk, as its runner does, and connect it."""
        node = self.nodes[name]
        if node.is_up:
            return
        self.record("start", name)
        node.is_up, node.life = True, node.life + 1
        if node.is_miner:
            node.state = build_miner(self.chain, node, self.rounds)
        else:
            node.state = build_agent(self.chain, node, self.rounds, is_mining=name in self.mining)
        self.connect(name)

    def crash(self, name: str) -> None:
        """Take a process's memory, timers and connection away."""
        node = self.nodes[name]
        if node.is_up:
            self.record("crash", name)
            self.counts["crashes"] += 1
        node.is_up, node.is_online, node.crash_after_effects, node.crash_at_save = False, False, None, None
        node.life, node.session = node.life + 1, node.session + 1
        node.timers.clear()

    def crash_between_effects(self, name: str, effects: int) -> None:
        """Crash a node after that many more effects, even in the middle of a step."""
        self.nodes[name].crash_after_effects = effects

    def crash_in_save(self, name: str, saves: int) -> None:
        """Let the power fail in the middle of a write, after that many more writes: what was not synced is lost."""
        self.nodes[name].crash_at_save = saves

    def disconnect(self, name: str) -> None:
        """Take the link of a process down: it goes on, and what is sent to it or by it is lost."""
        node = self.nodes[name]
        node.is_online, node.session = False, node.session + 1

    def connect(self, name: str) -> None:
        """Bring the link up: the machine is told, and the broker sends what it retains."""
        node = self.nodes[name]
        if not node.is_up or node.is_online:
            return
        node.is_online = True
        self.step(node, mv.Connected() if node.is_miner else av.Connected())
        if node.is_miner:
            for other in self.chain.miners:
                self.broker.send_retained(node, self.topics.miner_head(other.address))

    # --- events and effects ------------------------------------------------------------------------------------------

    def step(self, node: Node, event: Any, description: str | None = None) -> None:
        """Give an event to the production machine, run its effects in order, and check the outcome.

        `description` is that of `describe_event`, if it is at hand.
        """
        before = node.state
        self.record(node.name, description or describe_event(event))
        step: Any = miner_machine.step if node.is_miner else agent_machine.step
        now_ms = node.clock.read(self.now)
        node.state, effects = step(node.state, event, now_ms, now_ms)
        for effect in effects:
            if node.crash_after_effects is not None:
                if node.crash_after_effects <= 0:
                    self.crash(node.name)
                    return
                node.crash_after_effects -= 1
            if node.crash_at_save is not None and isinstance(effect, SAVES):
                if node.crash_at_save <= 0:
                    self.crash(node.name)
                    return
                node.crash_at_save -= 1
            run_effect = self.run_miner_effect if node.is_miner else self.run_agent_effect
            run_effect(node, effect)
        if node.is_miner and node.behaviour is None and before.chain.height != node.state.chain.height:
            self.checker.check_chain(node.name, before.chain, node.state.chain, node.disk)
        if not node.is_miner and before.light.model_round != node.state.light.model_round:
            self.checker.check_model(node.name, node.state.light)

    def _later(self, node: Node, delay_ms: int, event: Any) -> None:
        life = node.life
        self.at(delay_ms, lambda: self.step(node, event) if node.life == life else None)

    def _start_timer(self, node: Node, timer: Any, delay_ms: int, fired: Any) -> None:
        token = node.timers[timer] = node.timers.get(timer, 0) + 1
        life = node.life

        def fire() -> None:
            if node.life == life and node.timers.get(timer) == token:
                self.step(node, fired)

        self.at(node.clock.stretch(delay_ms), fire)

    def run_miner_effect(self, node: Node, effect: mv.Effect) -> None:
        """Do what a miner's effect asks of the world."""
        match effect:
            case mv.Publish(topic, packet, retain):
                self.broker.publish(node, topic, packet, retain)
            case mv.SaveVote(height, raw, block):
                if node.behaviour is None:
                    self.checker.check_own_word(node.name, raw)
                node.disk.own.append((height, raw, block))
            case mv.SaveBlock(block, certificate):
                if node.behaviour is None:
                    self.checker.check_block(node.name, node.disk.height, block, certificate)
                node.disk.blocks.append((block, certificate))
            case mv.SaveState(head, data):
                base = Height(decode_struct(head.header, Header, HEADER_BYTES_MAX).height)
                node.disk.base, node.disk.blocks = (base, StoredBase(head, data)), []
                self.counts["states taken"] += 1
            case mv.SendBlocks(topic, height, count):
                for block, certificate in node.disk.blocks[max(0, height - node.disk.base_height - 1) :][:count]:
                    fields = (block.header_bytes, certificate, block.body_bytes)
                    self.broker.publish(node, topic, encode_packet(PacketType.BLOCK, *fields))
            case mv.StartTimer(timer, delay_ms):
                self._start_timer(node, timer, delay_ms, mv.TimerFired(timer))
            case mv.ComputeScore(round_number, subject, model):
                done = mv.ScoreComputed(round_number, subject, self._score(node, model))
                self._later(node, self.rng.randint(2, 30), done)
            case mv.Refuse(code, detail):
                self._count(node, code, detail)
            case mv.Note(text, fields):
                self.notes.append((self.now, node.name, text, fields))
                if node.behaviour is None:
                    self.checker.check_note(node.name, text, fields)

    def run_agent_effect(self, node: Node, effect: av.Effect) -> None:
        """Do what an agent's effect asks of the world."""
        match effect:
            case av.Publish(topic, packet):
                self.broker.publish(node, topic, packet)
            case av.Train(round_number):
                self._train(node, round_number)
            case av.SaveWork(work):
                node.disk.work = work
            case av.ComputeScore(round_number, subject, model):
                computed = av.ScoreComputed(round_number, subject, self._score(node, model))
                self._later(node, self.rng.randint(2, 30), computed)
            case av.SaveScores(scores):
                node.disk.scores = scores
            case av.SaveOutbox(digest, round_number, raw):
                node.disk.outbox[digest] = (round_number, raw)
            case av.DropOutbox(digest):
                node.disk.outbox.pop(digest, None)
            case av.SavePosition(light, head, residual):
                left_out = b"" if light.carried is None else encode_carried(light.carried)
                node.disk.position = (head, encode_vector(light.model), left_out, encode_vector(residual))
            case av.Report():
                self.checker.check_report(node.name, effect.is_mismatch)
                self.reports[(node.name, effect.round)] = effect
            case av.Follow(_, followed):
                node.followed = followed
                for topic in self.topics.news_of(followed, node.state.light.is_full):
                    self.broker.send_retained(node, topic)
            case av.StartTimer(timer, delay_ms):
                self._start_timer(node, timer, delay_ms, av.TimerFired(timer))
            case av.Refuse(code, detail):
                self._count(node, code, detail)
            case av.Note(text, fields):
                self.notes.append((self.now, node.name, text, fields))

    def _score(self, node: Node, model: ModelVector) -> int:
        """Return a score in basis points that depends on model and node only."""
        score = 7_000 + sha256(encode_vector(model) + node.identity.address).digest()[0]
        return score if node.behaviour is None else node.behaviour.score(score)

    def _train(self, node: Node, round_number: Round) -> None:
        """Finish a training later; its delta depends on device and round only. A new training cancels the old one."""
        node.training += 1
        number, life = node.training, node.life
        delta = np.random.default_rng((node.number, round_number)).normal(0, 0.1, PARAMETERS_COUNT)
        done = av.TrainingDone(round_number, delta.astype(np.float32), 100, 1, 0.5)

        def finish() -> None:
            if node.life == life and node.training == number:
                self.step(node, done)

        self.at(self.rng.randint(*self.training_ms), finish)

    def _count(self, node: Node, code: str, detail: str) -> None:
        self.refusals.setdefault(node.name, Counter())[code] += 1
        self.counts[f"refused {code}"] += 1
        self.record(node.name, code)
        self.trace.add_line(f"{self.now} {node.name} refuses {code}: {detail}")

    def record(self, *what: object) -> None:
        """Put an event into the hash of the run."""
        self.trace.record(self.now, *what)
