"""A device's life without a broker: its real machine on its real store, led through a chain's blocks, cut anywhere."""

from __future__ import annotations

import random
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState
from agent.core.values import (
    AgentConfig,
    Connected,
    DropOutbox,
    Effect,
    Event,
    PacketReceived,
    Publish,
    Report,
    SaveOutbox,
    SavePosition,
    SaveWork,
    Train,
    TrainingDone,
)
from agent.edge.store.store import RoundLine, Store
from flchain.base.types import Millis, Round
from flchain.light.follow import build_light_state
from flchain.wire.envelope import Envelope, open_envelope, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import Receipt
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, Driver

ME = 0
RECEIPTS = 0.7
"""The share of the messages that a miner acknowledges at once; the others stay in the outbox."""

Said = dict[tuple[Kind, int], set[bytes]]
"""What was sent for each round, by kind: two different texts of one kind for one round are said twice in effect."""


@dataclass(frozen=True)
class Standing:
    """How far a device is: rounds of its model and of its work, a checksum of its residual, what waits for receipts."""

    model_round: int
    work_round: int
    residual: int
    outbox: frozenset[bytes]

    def is_held_by(self, other: Standing) -> bool:
        """Return True if all is the same, except messages with a receipt: repeating those has no effect."""
        return replace(other, outbox=self.outbox) == self and self.outbox <= other.outbox


class DeviceLife:
    """One process of device ME. `seed` is another one in each life, as training and noise never repeat."""

    def __init__(self, driver: Driver, store: Store, seed: int) -> None:
        self._driver = driver
        self._store = store
        self._random = random.Random(seed)
        self._topics = Topics.of_chain(driver.chain.id)
        self.said: Said = defaultdict(set)
        self.state: AgentState

    async def start(self) -> None:
        """From what the store holds."""
        chain = self._driver.chain
        nothing = np.zeros(PARAMETERS_COUNT, np.int32)
        stored = await self._store.load(build_light_state(chain.genesis, chain.model), nothing, chain.devices[ME])
        config = AgentConfig(chain.devices[ME], tuple((key.address, key.public_key) for key in chain.miners))
        self.state = build_agent_state(config, stored.light, stored.residual, stored.work, stored.outbox)
        self.found = self.describe()

    def describe(self) -> Standing:
        state = self.state
        work = state.update.work.round if state.update.work else 0
        residual = zlib.crc32(state.residual.tobytes())
        return Standing(state.light.model_round, work, residual, frozenset(state.outbox))

    async def live(self, tell: Callable[[], None] = lambda: None, heights: int | None = None) -> None:
        """Hear all blocks that are new to it, or the next `heights` of them; `tell` after each event's effects."""
        await self._process(Connected(), tell)
        first = self.state.light.height + 1
        last = len(self._driver.blocks) if heights is None else min(len(self._driver.blocks), first + heights - 1)
        for height in range(first, last + 1):
            await self._process(self._build_head(height), tell)
            await self._process(self._build_body(height), tell)

    async def _process(self, event: Event, tell: Callable[[], None]) -> None:
        waiting = [event]
        while waiting:
            self.state, effects = step(self.state, waiting.pop(0), Millis(0), NO_CLOCK)
            changes = [e for e in effects if isinstance(e, SaveWork | SaveOutbox | DropOutbox | SavePosition)]
            lines = [RoundLine(e, 0, 0) for e in effects if isinstance(e, Report)]
            await self._store.save(*changes, *lines)
            for effect in effects:
                waiting += self._carry_out(effect)
            tell()

    def _carry_out(self, effect: Effect) -> list[Event]:
        match effect:
            case Train(number, _):
                normals = np.random.default_rng(self._random.randrange(2**32)).normal(0, 0.1, PARAMETERS_COUNT)
                return [TrainingDone(Round(number), normals.astype(np.float32), 100, 5, 0.5)]
            case Publish(_, packet):
                envelope = open_envelope(decode_packet(packet).fields[0], self._driver.chain.id)
                if envelope.kind in (Kind.COMMIT, Kind.REVEAL):
                    self.said[(envelope.kind, envelope.number)].add(envelope.raw)
                    return [self._build_receipt(envelope)] if self._random.random() < RECEIPTS else []
        return []

    def _build_receipt(self, envelope: Envelope) -> PacketReceived:
        chain = self._driver.chain
        raw = seal(Receipt(envelope.number, envelope.digest(), "ok"), chain.id, chain.miners[0])
        topic = self._topics.miner_to(chain.miners[0].address, chain.devices[ME].address)
        return PacketReceived(topic, encode_packet(PacketType.MESSAGE, raw))

    def _build_head(self, height: int) -> PacketReceived:
        fields = (self._driver.blocks[height - 1].header_bytes, self._driver.certificates[height - 1], b"")
        topic = self._topics.miner_head(self._driver.chain.miners[0].address)
        return PacketReceived(topic, encode_packet(PacketType.HEAD, *fields))

    def _build_body(self, height: int) -> PacketReceived:
        packet = encode_packet(PacketType.BODY, height, self._driver.blocks[height - 1].body_bytes)
        return PacketReceived(self._topics.miner_body(self._driver.chain.miners[0].address), packet)


async def live_once(
    driver: Driver,
    path: Path,
    seed: int,
    tell: Callable[[DeviceLife], None] = lambda life: None,
    heights: int | None = None,
) -> DeviceLife:
    """Open the store at `path`, live, close it."""
    store = await Store.open(path, driver.chain.id)
    try:
        life = DeviceLife(driver, store, seed)
        await life.start()
        await life.live(lambda: tell(life), heights)
        return life
    finally:
        await store.close()


def merge_said(*lives: Said) -> Said:
    """What several lives of one device have sent, together."""
    together: Said = defaultdict(set)
    for said in lives:
        for key, raws in said.items():
            together[key] |= raws
    return together
