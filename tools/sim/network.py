"""A deterministic network of the production machines: virtual clock, broker, disks, faults, and checkers.

One seed decides everything. A node is its real state, its real `step`, and a fake edge: the broker loses what is said
while a node is away, and of what miners tell each other (QoS 0) a share; across a partition QoS 0 is lost and QoS 1 is
late. A disk keeps what an effect has written; scorer and trainer are functions of their input. Effects are carried out
in order, and a crash may fall between two of them, or into the middle of a write.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np

import agent.core.values as av
import miner.core.values as mv
from agent.core import machine as agent_machine
from flchain.base.fixedpoint import vector_bytes, vector_from_bytes
from flchain.base.types import Height, ModelVector, Round
from flchain.codecs import carried_bytes
from flchain.ledger.certificate import verify_certificate
from flchain.light.follow import build_light_state, restore
from flchain.rules.blocks import apply_block
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from miner.core import machine as miner_machine
from miner.core.tip import extend
from miner.edge.ledger.base import StoredBase, restore_base
from tools.sim.broker import Broker, describe_event
from tools.sim.chain import PARAMETERS_COUNT, BuiltChain, build_chain
from tools.sim.checks import Checker
from tools.sim.world import Clock, Links, Node

END_MS = 240_000
EVENTS_MAX = 2_000_000
SAVES = (mv.SaveVote, mv.SaveBlock, mv.SaveState, av.SaveWork, av.SaveScores, av.SaveOutbox, av.SavePosition)
__all__ = ["Clock", "Links", "Network", "Node"]


class Network(Broker):
    """Nodes m0.. and d0.., an event queue, and what must never happen. Index equals that of the built chain."""

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
        self.links = links or Links()
        self.rng = random.Random(seed)
        self.chain = chain or build_chain(miners, devices, score_margin_bp=2_000)
        self.topics = Topics.of_chain(self.chain.id)
        self.now, self._sequence, self.events = 0, 0, 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self.retained: dict[str, bytes] = {}
        self.cuts: set[tuple[str, str]] = set()
        """(from, to): what the first says does not reach the second."""
        self._held: list[tuple[str, str, str, bytes]] = []
        self._arrivals: dict[tuple[str, str], int] = {}
        self.counts: Counter[str] = Counter()
        self.hash = sha256()
        """Over every event in order: two runs are the same if this is."""
        self.refusals: dict[str, Counter[str]] = {}
        self.notes: list[tuple[int, str, str, dict[str, object]]] = []
        self.reports: dict[tuple[str, int], av.Report] = {}
        self.trace: list[str] = []
        self.checker = Checker(self.chain.state)
        self.gone = set(silent)
        """Nodes that nobody waits for."""
        self.on_publish: list[Callable[[Node, str, bytes], None]] = []
        miners_keys = [Node(f"m{i}", i, key) for i, key in enumerate(self.chain.miners)]
        device_keys = [Node(f"d{i}", i, key) for i, key in enumerate(self.chain.devices)]
        self.nodes = {node.name: node for node in (*miners_keys, *device_keys)}
        self.homes = {e.public_key: e.home for e in self.chain.genesis.devices}
        for name in sorted(self.nodes.keys() - silent):
            self.at(self.rng.randint(0, 50), self.start, name)

    def add_twin(self, name: str) -> Node:
        """A second process with the key of a miner, and a disk of its own."""
        first = self.nodes[name]
        twin = self.nodes[f"{name}-twin"] = Node(f"{name}-twin", first.number, first.identity)
        self.at(self.rng.randint(0, 50), self.start, twin.name)
        return twin

    # --- the world ---------------------------------------------------------------------------------------------------

    def at(self, delay_ms: int, do: Callable[..., None], *arguments: object) -> None:
        """Do something later; equal instants in order of asking."""
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._sequence, lambda: do(*arguments)))

    def run(self, until: Callable[[Network], bool] | None = None, end_ms: int = END_MS) -> Network:
        """Until `until` (default: everyone has all rounds), a violation, or `end_ms` of virtual time."""
        until = until or Network.is_done
        while self._queue and not self.violations and not until(self):
            self.now, _, do = heapq.heappop(self._queue)
            self.events += 1
            if self.now > end_ms or self.events > EVENTS_MAX:
                self.violations.append("stalled")
                break
            do()
        return self

    @property
    def violations(self) -> list[str]:
        """What went wrong; empty after a good run."""
        return self.checker.violations

    def explain(self) -> str:
        """What a failing test prints: the seed, what went wrong, and where every node stands."""
        return f"seed {self.seed} at {self.now} ms: {self.violations}: {self.describe()}; {self.trace[-5:]}"

    def is_done(self) -> bool:
        """All rounds are final on every node that is up, and every device holds the chain's model."""
        awaited = [node for node in self.nodes.values() if node.name not in self.gone]
        return all(node.is_up and node.is_online and self._is_node_done(node) for node in awaited)

    def _is_node_done(self, node: Node) -> bool:
        if node.is_miner:
            return bool(node.state.chain.round.number > self.rounds)
        light = node.state.light
        return bool(light.round > self.rounds and light.is_synced)

    def describe(self) -> str:
        """Where every node stands, on one line."""
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
        """The miners that are up."""
        return [node for node in self.nodes.values() if node.is_miner and node.is_up]

    def devices(self) -> list[Node]:
        """The devices that are up."""
        return [node for node in self.nodes.values() if not node.is_miner and node.is_up]

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a process from its disk, as its runner does, and connect it."""
        node = self.nodes[name]
        if node.is_up:
            return
        self.record("start", name)
        node.is_up, node.life = True, node.life + 1
        node.state = self._build_miner(node) if node.is_miner else self._build_agent(node)
        self.connect(name)

    def crash(self, name: str) -> None:
        """Memory, timers and the connection are gone."""
        node = self.nodes[name]
        if node.is_up:
            self.record("crash", name)
            self.counts["crashes"] += 1
        node.is_up, node.is_online, node.crash_after_effects, node.crash_at_save = False, False, None, None
        node.life, node.session = node.life + 1, node.session + 1
        node.timers.clear()

    def crash_between_effects(self, name: str, effects: int) -> None:
        """Crash once so many more effects are carried out, in the middle of a step if it falls there."""
        self.nodes[name].crash_after_effects = effects

    def crash_in_save(self, name: str, saves: int) -> None:
        """The power fails in the middle of a write, after so many more: what was not synced is not there."""
        self.nodes[name].crash_at_save = saves

    def disconnect(self, name: str) -> None:
        """The process lives; what is said to it and by it is lost."""
        node = self.nodes[name]
        node.is_online, node.session = False, node.session + 1

    def connect(self, name: str) -> None:
        """The link is up: the machine hears of it, and the broker sends what it retains."""
        node = self.nodes[name]
        if not node.is_up or node.is_online:
            return
        node.is_online = True
        self.step(node, mv.Connected() if node.is_miner else av.Connected())
        if node.is_miner:
            for other in self.chain.miners:
                self._send_retained(node, self.topics.miner_head(other.address))

    def _build_miner(self, node: Node) -> mv.MinerState:
        base, genesis = node.disk.base, self.chain.genesis
        standing = restore_base(self.chain.state, base[1] if base is not None else None)
        for block, certificate in node.disk.blocks:
            chain = standing.chain
            applied, after = apply_block(chain, block.header_bytes, block.body_bytes)
            verify_certificate(chain.chain, chain.validators, after.height, applied.hash, certificate)
            standing = extend(standing, applied, certificate, after)
        chain = standing.chain
        assert genesis.chain_id() == chain.chain
        own = [item for item in node.disk.own if item[0] == chain.height + 1]
        blocks = {block.hash: block for _, _, block in own if block is not None}
        config = mv.MinerConfig(node.identity, self.rounds)
        raws = tuple(dict.fromkeys(raw for _, raw, _ in own))
        return miner_machine.build_miner_state(config, standing, raws, tuple(blocks.values()))

    def _build_agent(self, node: Node) -> av.AgentState:
        # Every other device is a light one, the last of them in any case.
        is_full = node.name in self.mining or (len(self.chain.devices) - node.number) % 2 == 0
        light = build_light_state(self.chain.genesis, self.chain.model, is_full=is_full)
        residual = np.zeros(PARAMETERS_COUNT, np.int32)
        if node.disk.position is not None:
            head, model, left_out, saved = node.disk.position
            light = restore(light, head, model, left_out)
            residual = vector_from_bytes(saved, PARAMETERS_COUNT)
        miners = [(key.address, key.public_key) for key in self.chain.miners]
        first = [bytes(key.address) for key in self.chain.miners].index(self.homes[node.identity.public_key])
        ordered, is_mining = tuple(miners[first:] + miners[:first]), node.name in self.mining
        config = av.AgentConfig(node.identity, ordered, self.rounds, is_mining=is_mining)
        stored = (node.disk.work, dict(node.disk.outbox))
        return agent_machine.build_agent_state(config, light, residual, *stored, saved_scores=node.disk.scores)

    # --- events and effects ------------------------------------------------------------------------------------------

    def step(self, node: Node, event: Any) -> None:
        """One event through the production machine; then its effects, in order, and the checkers."""
        before = node.state
        self.record(node.name, describe_event(event))
        step: Any = miner_machine.step if node.is_miner else agent_machine.step
        node.state, effects = step(node.state, event, node.clock.read(self.now), node.clock.read(self.now))
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
            carry_out = self._carry_out_miner if node.is_miner else self._carry_out_agent
            carry_out(node, effect)
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

    def _carry_out_miner(self, node: Node, effect: mv.Effect) -> None:
        match effect:
            case mv.Publish(topic, packet, retain):
                self.publish(node, topic, packet, retain)
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
                    self.publish(node, topic, encode_packet(PacketType.BLOCK, *fields))
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

    def _carry_out_agent(self, node: Node, effect: av.Effect) -> None:
        match effect:
            case av.Publish(topic, packet):
                self.publish(node, topic, packet)
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
                left_out = b"" if light.carried is None else carried_bytes(light.carried)
                node.disk.position = (head, vector_bytes(light.model), left_out, vector_bytes(residual))
            case av.Report():
                self.checker.check_report(node.name, effect.is_mismatch)
                self.reports[(node.name, effect.round)] = effect
            case av.Follow(_, followed):
                node.followed = followed
                for topic in self.topics.news_of(followed, node.state.light.is_full):
                    self._send_retained(node, topic)
            case av.StartTimer(timer, delay_ms):
                self._start_timer(node, timer, delay_ms, av.TimerFired(timer))
            case av.Refuse(code, detail):
                self._count(node, code, detail)
            case av.Note(text, fields):
                self.notes.append((self.now, node.name, text, fields))

    def _score(self, node: Node, model: ModelVector) -> int:
        """The scorer: a function of model and node."""
        score = 7_000 + sha256(vector_bytes(model) + node.identity.address).digest()[0]
        return score if node.behaviour is None else node.behaviour.score(score)

    def _train(self, node: Node, round_number: Round) -> None:
        """The trainer: a function of device and round; the newest training stops the one before."""
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
        self.trace.append(f"{self.now} {node.name} refuses {code}: {detail}")
        del self.trace[:-50]

    def record(self, *what: object) -> None:
        """Put an event into the trace's hash."""
        self.hash.update(f"{self.now} {what}\n".encode())
