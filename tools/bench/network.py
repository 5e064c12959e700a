"""A network for a benchmark: real miners and links as tasks of one process, a real broker, devices that only sign."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flchain.base.crypto import Identity
from flchain.base.errors import FlchainError
from flchain.base.types import Hash, Height, ModelVector
from flchain.codecs import CODECS
from flchain.ledger.block import Block
from flchain.ledger.genesis import Genesis, decode_genesis, encode_genesis
from flchain.ledger.state import build_genesis_state
from flchain.wire.chunks import split_packet
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct, seal
from flchain.wire.messages import (
    Commit,
    DeviceEntry,
    Header,
    Phase,
    Reveal,
    ValidatorEntry,
    compute_update_commitment,
)
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.mqtt.inbox import Inbox, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings
from flchain_edge.newer_python import timeout
from flchain_edge.process.event_loop import EventQueue
from miner.core.machine import build_miner_state
from miner.core.tip import Standing
from miner.core.values import Event, MinerConfig, SaveBlock, SaveVote
from miner.edge.ledger.journal import Journal
from miner.edge.ledger.ledger import LEDGER_FILE, Ledger, Save, StoredBlock
from miner.edge.scorer import ConstantScorer
from miner.runner import MinerRunner
from tools.network.broker import Broker, start_broker
from tools.sim.chain import build_small_params

PARAMETERS_COUNT = 1_000
CODEC, CODEC_LEVEL = "sparse-ternary", 20
CONSTANT_SCORE = 7_000
SALT = b"salt of 16 bytes"
REPEAT_S = 5.0
"""Devices say their words again if the chain has not moved for so long."""
FULL_LINK_WAIT_S = 0.02


class BenchError(FlchainError):
    """The benchmark could not measure: the text says what did not happen."""


@dataclass(frozen=True)
class Plan:
    """One network. `rounds` are measured after one round that is not; `seconds_max` bounds both together."""

    validators: int
    devices: int
    rounds: int
    seconds_max: float


@dataclass(frozen=True)
class BenchChain:
    """A genesis of equals and the keys behind it; device i has validator i modulo the validators as its home."""

    genesis: Genesis
    id: Hash
    miners: tuple[Identity, ...]
    devices: tuple[Identity, ...]
    model: ModelVector


@dataclass
class Clock:
    """When each height was first spoken of and when it was on each validator's disk; seconds, monotonic."""

    begun: dict[int, float] = field(default_factory=dict)
    durable: dict[int, dict[int, float]] = field(default_factory=dict)
    """height -> validator number -> time."""
    ends: dict[int, int] = field(default_factory=dict)
    """round -> the height that settled it."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def is_settled_by_all(self, round_number: int, validators: int) -> bool:
        """True if every validator has the block that ended the round on disk."""
        height = self.ends.get(round_number)
        return height is not None and len(self.durable[height]) == validators


@dataclass(frozen=True)
class Measured:
    """What a network did: `blocks` are those of the measured rounds only, `history` is the chain from height 1."""

    chain: BenchChain
    clock: Clock
    blocks: tuple[StoredBlock, ...]
    history: tuple[StoredBlock, ...]
    seconds: float
    cpu_seconds: float
    """Of this process, which is all validators, their disks and the devices, but not the broker."""
    messages_heard: int
    """MQTT messages that came to all validators together, over the whole history."""


class TimedJournal:
    """The ledger of one validator, seen through a clock that notes what is saved when."""

    def __init__(self, ledger: Ledger, clock: Clock, number: int) -> None:
        self._ledger = ledger
        self._clock = clock
        self._number = number

    async def save(self, *changes: Save) -> None:
        """Note when a height began, with its proposal, which is saved before it is sent, and when a block was saved."""
        for change in changes:
            if isinstance(change, SaveVote):
                self._clock.begun.setdefault(change.height, time.monotonic())
        await self._ledger.save(*changes)
        for change in changes:
            if isinstance(change, SaveBlock):
                self._note_block(change.block.header)

    def _note_block(self, header: Header) -> None:
        self._clock.durable.setdefault(header.height, {})[self._number] = time.monotonic()
        if header.next_round > header.round:
            self._clock.ends[header.round] = header.height
            self._clock.moved.set()

    async def get_own(self, height: Height) -> tuple[tuple[bytes, ...], tuple[Block, ...]]:
        """Return what the ledger has."""
        return await self._ledger.get_own(height)

    async def get_blocks(self, height: Height, count: int) -> tuple[StoredBlock, ...]:
        """Return what the ledger has."""
        return await self._ledger.get_blocks(height, count)


class Fleet:
    """All devices behind one link. They sign and send when a phase opens and believe any header: only load."""

    def __init__(self, chain: BenchChain, settings: MqttSettings) -> None:
        self._chain = chain
        self._inbox = Inbox()
        self._link = MqttLink(settings, self._inbox.put)
        self._topics = Topics.of_chain(chain.id)
        update = np.zeros(PARAMETERS_COUNT, np.int32)
        update[::CODEC_LEVEL] = 2**16
        self._update = CODECS[CODEC].encode(update, np.zeros_like(update), CODEC_LEVEL).payload

    async def run(self) -> None:
        """Until cancelled."""
        self._link.subscribe(self._topics.all_miners("head"), qos=0)
        await self._link.start()
        at = (0, Phase.OPEN)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with timeout(REPEAT_S):
                        at = await self._wait_for_news(at)
                await self._say(*at)
        finally:
            await self._link.stop()

    async def _wait_for_news(self, at: tuple[int, Phase]) -> tuple[int, Phase]:
        while True:
            event = await self._inbox.get()
            if not isinstance(event, Received):
                continue
            header = decode_struct(decode_packet(event.payload).fields[0], Header, HEADER_BYTES_MAX)
            if (header.next_round, header.next_phase) > at:
                return header.next_round, header.next_phase

    async def _say(self, round_number: int, phase: Phase) -> None:
        if phase not in (Phase.COMMIT, Phase.REVEAL):
            return
        chain_id = self._chain.id
        for device in self._chain.devices:
            reveal = Reveal(round_number, SALT, 100, self._update)
            commit = Commit(round_number, compute_update_commitment(chain_id, device.address, reveal), False)
            raw = seal(commit if phase is Phase.COMMIT else reveal, chain_id, device)
            for payload in split_packet(encode_packet(PacketType.MESSAGE, raw)):
                while not self._link.publish(self._topics.device_up(device.address), payload):
                    await asyncio.sleep(FULL_LINK_WAIT_S)


def build_chain(plan: Plan) -> BenchChain:
    """Keys and genesis from numbers alone, so that every run is of the same chain."""
    miners, devices = _build_identities("miner", plan.validators), _build_identities("device", plan.devices)
    model = np.zeros(PARAMETERS_COUNT, np.int32)
    params = build_small_params(
        model,
        codec=CODEC,
        codec_level=CODEC_LEVEL,
        downstream_codec="sparse-ternary",
        downstream_level=CODEC_LEVEL,
        # Long enough that no view fails because 21 validators share a core: what is measured is work, not waiting.
        absent_rounds_max=2,
        timeout_propose_ms=30_000,
        timeout_vote_ms=15_000,
        timeout_growth_ms=5_000,
        patience_ms=30_000,
        commit_patience_ms=60_000,
    )
    validators = tuple(ValidatorEntry(key.public_key, 10, 0) for key in miners)
    entries = tuple(DeviceEntry(key.public_key, miners[i % len(miners)].address) for i, key in enumerate(devices))
    genesis = decode_genesis(encode_genesis(Genesis(1, f"bench-{plan.validators}", 0, params, validators, entries, ())))
    return BenchChain(genesis, genesis.compute_id(), miners, devices, model)


def _build_identities(role: str, count: int) -> tuple[Identity, ...]:
    seeds = (hashlib.sha256(f"bench {role} {number}".encode()).digest() for number in range(count))
    return tuple(sorted((Identity.from_seed(seed) for seed in seeds), key=lambda key: key.address))


@contextlib.asynccontextmanager
async def open_ledgers(chain: BenchChain, clock: Clock, folder: Path) -> AsyncIterator[list[TimedJournal]]:
    """A database file for each validator."""
    async with contextlib.AsyncExitStack() as stack:
        journals = []
        for number in range(len(chain.miners)):
            path = folder / f"miner-{number}" / LEDGER_FILE
            ledger = await Ledger.open(path, chain.genesis, chain.model)
            stack.push_async_callback(ledger.close)
            journals.append(TimedJournal(ledger, clock, number))
        yield journals


def build_runner(chain: BenchChain, number: int, journal: Journal, broker: Broker) -> tuple[MinerRunner, MqttLink]:
    """Validator `number` as `flchain-miner run` would make it, but for the scorer; and its link, for its counters."""
    identity = chain.miners[number]
    state = build_miner_state(MinerConfig(identity), Standing(build_genesis_state(chain.genesis, chain.model)))
    queue: EventQueue[Event] = EventQueue()
    link = MqttLink(MqttSettings(broker.host, broker.port, identity.address.hex()), queue.on_link_event)
    return MinerRunner(state, journal, link, ConstantScorer(CONSTANT_SCORE), queue), link


async def run_network(plan: Plan, folder: Path) -> Measured:
    """Run one network until its rounds are settled on every validator's disk. Raises BenchError and BrokerError."""
    chain, clock = build_chain(plan), Clock()
    broker = await asyncio.to_thread(start_broker, "nats", folder / "broker")
    try:
        async with open_ledgers(chain, clock, folder) as journals:
            fleet = Fleet(chain, MqttSettings(broker.host, broker.port, "fleet"))
            nodes = [build_runner(chain, number, journal, broker) for number, journal in enumerate(journals)]
            tasks = [asyncio.create_task(running) for running in (*(node.run() for node, _ in nodes), fleet.run())]
            watch = asyncio.create_task(_watch(plan, clock))
            try:
                await asyncio.wait((watch, *tasks), return_when=asyncio.FIRST_COMPLETED)
                if not watch.done():
                    next(task for task in tasks if task.done()).result()  # raises what ended it
                    raise BenchError("a node stopped by itself")
                seconds, cpu_seconds = watch.result()
            finally:
                for task in (watch, *tasks):
                    task.cancel()
                await asyncio.gather(watch, *tasks, return_exceptions=True)
            first, last = clock.ends[1] + 1, clock.ends[1 + plan.rounds]
            history = await journals[0].get_blocks(Height(1), last)
    finally:
        await asyncio.to_thread(broker.stop)
    heard = sum(link.counters.messages_received for _, link in nodes)
    return Measured(chain, clock, history[first - 1 : last], history[:last], seconds, cpu_seconds, heard)


async def _watch(plan: Plan, clock: Clock) -> tuple[float, float]:
    """Wall and CPU seconds from the moment all have settled round 1 until all have settled the last."""
    at = {}
    try:
        async with timeout(plan.seconds_max):
            for round_number in (1, 1 + plan.rounds):
                while not clock.is_settled_by_all(round_number, plan.validators):
                    clock.moved.clear()
                    await clock.moved.wait()
                at[round_number] = time.monotonic(), time.process_time()
    except TimeoutError:
        height = max(clock.durable, default=0)
        said = f"the chain of {plan.validators} is at height {height} after {plan.seconds_max:.0f} s"
        raise BenchError(f"{said}, and round {1 + plan.rounds} is not settled everywhere") from None
    (wall_a, cpu_a), (wall_b, cpu_b) = at[1], at[1 + plan.rounds]
    return wall_b - wall_a, cpu_b - cpu_a
