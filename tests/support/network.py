"""A deterministic network of the production machines: virtual clock, broker, disks, faults, and checkers.

One seed decides everything. A node is its real state, its real `step`, and a fake edge: the broker loses only what is
said while a node is away (as QoS 1 does), a disk keeps what an effect has written, scorer and trainer are functions of
their input. Effects are carried out in order, and a crash may fall between two of them.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

import agent.values as av
import miner.values as mv
from agent import machine as agent_machine
from flchain.certificate import verify_certificate
from flchain.chain import Block, apply_block
from flchain.crypto import Identity
from flchain.fixedpoint import vector_bytes, vector_from_bytes
from flchain.light import build_light_state, process_snapshot
from flchain.messages import Phase
from flchain.packets import PacketType, Topics, encode_packet, split_packet
from flchain.types import Address, Hash, Height, Millis, Round
from miner import machine as miner_machine
from tests.support.chain_builder import PARAMETERS_COUNT, BuiltChain, build_chain
from tests.support.network_checks import Checker

END_MS = 240_000
EVENTS_MAX = 200_000


@dataclass
class Disk:
    """What survives a crash: of a miner blocks and own words, of a device position, work and outbox."""

    blocks: list[tuple[Block, bytes]] = field(default_factory=list)
    own: list[tuple[Height, bytes, Block | None]] = field(default_factory=list)
    position: tuple[bytes, bytes, bytes, bytes] | None = None
    work: av.Work | None = None
    outbox: dict[Hash, tuple[Round, bytes]] = field(default_factory=dict)


@dataclass
class Node:
    """One process. `session` counts connections, `life` starts: what was under way for an earlier one is lost."""

    name: str
    number: int
    identity: Identity
    state: Any = None
    disk: Disk = field(default_factory=Disk)
    is_up: bool = False
    is_online: bool = False
    life: int = 0
    session: int = 0
    timers: dict[object, int] = field(default_factory=dict)
    followed: Address | None = None
    crash_after_effects: int | None = None
    training: int = 0

    @property
    def is_miner(self) -> bool:
        return self.name.startswith("m")


@dataclass(frozen=True)
class Links:
    """How messages travel: delays in ms; shares of those that are slow and of those that come twice."""

    delay_ms: tuple[int, int] = (1, 20)
    slow_ms: tuple[int, int] = (20, 400)
    slow_share: float = 0.0
    twice_share: float = 0.0


class Network:
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
    ) -> None:
        """Nodes in `silent` exist on the chain and are never started."""
        self.seed, self.rounds, self.training_ms = seed, rounds, training_ms
        self.links = links or Links()
        self.rng = random.Random(seed)
        self.chain = chain or build_chain(miners, devices, score_margin_bp=2_000)
        self.topics = Topics.of_chain(self.chain.id)
        self.now, self._sequence, self.events = 0, 0, 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self.retained: dict[str, bytes] = {}
        self.refusals: dict[str, Counter[str]] = {}
        self.notes: list[tuple[int, str, str, dict[str, object]]] = []
        self.reports: dict[tuple[str, int], av.Report] = {}
        self.trace: list[str] = []
        self.checker = Checker(self.chain.id)
        self.gone = set(silent)
        """Nodes that nobody waits for."""
        self.on_publish: list[Callable[[Node, str, bytes], None]] = []
        miners_keys = [Node(f"m{i}", i, key) for i, key in enumerate(self.chain.miners)]
        device_keys = [Node(f"d{i}", i, key) for i, key in enumerate(self.chain.devices)]
        self.nodes = {node.name: node for node in (*miners_keys, *device_keys)}
        self.homes = {e.public_key: e.home for e in self.chain.genesis.devices}
        for name in sorted(self.nodes.keys() - silent):
            self.at(self.rng.randint(0, 50), self.start, name)

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
        node.is_up, node.life = True, node.life + 1
        node.state = self._build_miner(node) if node.is_miner else self._build_agent(node)
        self.connect(name)

    def crash(self, name: str) -> None:
        """Memory, timers and the connection are gone."""
        node = self.nodes[name]
        node.is_up, node.is_online, node.crash_after_effects = False, False, None
        node.life, node.session = node.life + 1, node.session + 1
        node.timers.clear()

    def crash_between_effects(self, name: str, effects: int) -> None:
        """Crash once so many more effects are carried out, in the middle of a step if it falls there."""
        self.nodes[name].crash_after_effects = effects

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
        chain, genesis = self.chain.state, self.chain.genesis
        for block, certificate in node.disk.blocks:
            applied, after = apply_block(chain, block.header_bytes, block.body_bytes)
            verify_certificate(chain.chain, chain.validators, after.height, applied.hash, certificate)
            chain = after
        assert genesis.chain_id() == chain.chain
        own = [item for item in node.disk.own if item[0] == chain.height + 1]
        blocks = {block.hash: block for _, _, block in own if block is not None}
        tip = None
        if node.disk.blocks:
            block, certificate = node.disk.blocks[-1]
            has_news = block.header.phase is Phase.REVEAL or block.header.next_round > block.header.round
            tip = mv.Tip(block.header_bytes, certificate, block.body_bytes if has_news else None)
        config = mv.MinerConfig(node.identity, self.rounds)
        raws = tuple(dict.fromkeys(raw for _, raw, _ in own))
        return miner_machine.build_miner_state(config, chain, tip, raws, tuple(blocks.values()))

    def _build_agent(self, node: Node) -> av.AgentState:
        light = build_light_state(self.chain.genesis, self.chain.model)
        residual = np.zeros(PARAMETERS_COUNT, np.int32)
        if node.disk.position is not None:
            header, certificate, model, saved = node.disk.position
            light = process_snapshot(light, header, certificate, model)
            residual = vector_from_bytes(saved, PARAMETERS_COUNT)
        miners = [(key.address, key.public_key) for key in self.chain.miners]
        first = [bytes(key.address) for key in self.chain.miners].index(self.homes[node.identity.public_key])
        config = av.AgentConfig(node.identity, tuple(miners[first:] + miners[:first]), self.rounds)
        return agent_machine.build_agent_state(config, light, residual, node.disk.work, dict(node.disk.outbox))

    # --- events and effects ------------------------------------------------------------------------------------------

    def step(self, node: Node, event: Any) -> None:
        """One event through the production machine; then its effects, in order, and the checkers."""
        before = node.state
        step: Any = miner_machine.step if node.is_miner else agent_machine.step
        node.state, effects = step(node.state, event, Millis(self.now))
        for effect in effects:
            if node.crash_after_effects is not None:
                if node.crash_after_effects <= 0:
                    self.crash(node.name)
                    return
                node.crash_after_effects -= 1
            carry_out = self._carry_out_miner if node.is_miner else self._carry_out_agent
            carry_out(node, effect)
        if node.is_miner and before.chain.height != node.state.chain.height:
            self.checker.check_chain(node.name, before.chain, node.state.chain, node.disk.blocks)

    def _later(self, node: Node, delay_ms: int, event: Any) -> None:
        life = node.life
        self.at(delay_ms, lambda: self.step(node, event) if node.life == life else None)

    def _start_timer(self, node: Node, timer: Any, delay_ms: int, fired: Any) -> None:
        token = node.timers[timer] = node.timers.get(timer, 0) + 1
        life = node.life

        def fire() -> None:
            if node.life == life and node.timers.get(timer) == token:
                self.step(node, fired)

        self.at(delay_ms, fire)

    def _carry_out_miner(self, node: Node, effect: mv.Effect) -> None:
        match effect:
            case mv.Publish(topic, packet, retain):
                self.publish(node, topic, packet, retain)
            case mv.SaveVote(height, raw, block):
                node.disk.own.append((height, raw, block))
            case mv.SaveBlock(block, certificate):
                self.checker.check_block(node.name, len(node.disk.blocks), block)
                node.disk.blocks.append((block, certificate))
            case mv.SendBlocks(topic, height, count):
                for block, certificate in node.disk.blocks[max(0, height - 1) :][:count]:
                    fields = (block.header_bytes, certificate, block.body_bytes)
                    self.publish(node, topic, encode_packet(PacketType.BLOCK, *fields))
            case mv.StartTimer(timer, delay_ms):
                self._start_timer(node, timer, delay_ms, mv.TimerFired(timer))
            case mv.ComputeScore(round_number, sender, model):
                digest = sha256(vector_bytes(model) + node.identity.address).digest()
                score = 7_000 + digest[0]
                self._later(node, self.rng.randint(2, 30), mv.ScoreComputed(round_number, sender, score))
            case mv.Refuse(code, detail):
                self._count(node, code, detail)
            case mv.Note(text, fields):
                self.notes.append((self.now, node.name, text, fields))

    def _carry_out_agent(self, node: Node, effect: av.Effect) -> None:
        match effect:
            case av.Publish(topic, packet):
                self.publish(node, topic, packet)
            case av.Train(round_number):
                self._train(node, round_number)
            case av.SaveWork(work):
                node.disk.work = work
            case av.SaveOutbox(digest, round_number, raw):
                node.disk.outbox[digest] = (round_number, raw)
            case av.DropOutbox(digest):
                node.disk.outbox.pop(digest, None)
            case av.SavePosition(light, header, certificate, residual):
                saved = (header, certificate, vector_bytes(light.model), vector_bytes(residual))
                node.disk.position = saved
            case av.Report():
                self.reports[(node.name, effect.round)] = effect
            case av.Follow(_, followed):
                node.followed = followed
                self._send_retained(node, self.topics.miner_head(followed))
            case av.StartTimer(timer, delay_ms):
                self._start_timer(node, timer, delay_ms, av.TimerFired(timer))
            case av.Refuse(code, detail):
                self._count(node, code, detail)
            case av.Note(text, fields):
                self.notes.append((self.now, node.name, text, fields))

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
        self.trace.append(f"{self.now} {node.name} refuses {code}: {detail}")

    # --- the broker --------------------------------------------------------------------------------------------------

    def publish(self, node: Node, topic: str, packet: bytes, retain: bool = False) -> None:
        """To everyone who listens; nothing if the sender is away."""
        if not node.is_online:
            return
        if node.is_miner and topic.endswith("/bft"):
            self.checker.check_word(node.name, node.identity.address, packet, node.disk.own)
        if retain:
            self.retained[topic] = packet
        for listener in self.on_publish:
            listener(node, topic, packet)
        self.inject(topic, packet, {other.name for other in self.nodes.values() if other is not node})

    def inject(self, topic: str, packet: bytes, targets: set[str] | None = None) -> None:
        """A packet as if somebody had published it, to those of `targets` who listen."""
        for other in self.nodes.values():
            if (targets is None or other.name in targets) and other.is_online and self._listens(other, topic):
                for payload in split_packet(packet):
                    self._deliver(other, topic, payload)
                    if self.rng.random() < self.links.twice_share:
                        self._deliver(other, topic, payload)

    def _deliver(self, node: Node, topic: str, payload: bytes) -> None:
        links, session = self.links, node.session
        is_slow = self.rng.random() < links.slow_share
        event = mv.PacketReceived(topic, payload) if node.is_miner else av.PacketReceived(topic, payload)
        delay_ms = self.rng.randint(*(links.slow_ms if is_slow else links.delay_ms))
        self.at(delay_ms, lambda: self.step(node, event) if node.session == session else None)

    def _send_retained(self, node: Node, topic: str) -> None:
        if node.is_online and topic in self.retained and self._listens(node, topic):
            self._deliver(node, topic, self.retained[topic])

    def _listens(self, node: Node, topic: str) -> bool:
        role, owner, channel, *rest = topic.split("/")[3:]
        if channel == "to":
            return rest == [node.identity.address.hex()]
        if not node.is_miner:
            return channel in ("head", "body") and node.followed is not None and owner == node.followed.hex()
        if role == "device":
            return channel == "up"
        return channel in ("bft", "head") and owner != node.identity.address.hex()

    def compute_outcome(self) -> tuple[set[bytes], set[bytes]]:
        """Heads of the miners and model hashes of miners and devices that are up."""
        heads = {bytes(node.state.chain.head) for node in self.miners()}
        models = {bytes(node.state.chain.model_hash) for node in self.miners()}
        return heads, models | {bytes(node.state.light.model_hash) for node in self.devices()}
