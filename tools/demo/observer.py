"""The demo's observer: a light client without a key, which sees what every device and miner publishes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from agent.edge.store.view import read_position
from flchain.base.errors import InvalidMessage, ModelMismatch, WrongHeight
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Address, ModelVector
from flchain.ledger.block import hash_header
from flchain.light.follow import LightState, build_light_state, process_body, process_head, process_snapshot
from flchain.light.trust import CertifiedHeader
from flchain.wire.chunks import Assembly, process_chunk
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct, open_envelope, verify_envelope
from flchain.wire.fleet import Status
from flchain.wire.messages import Header, Phase
from flchain.wire.packets import Packet, PacketType, decode_packet
from flchain.wire.topics import Topics, read_topic_channel, read_topic_owner
from flchain_edge.mqtt.inbox import LinkEvent, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings
from flchain_edge.process.event_loop import read_clocks
from tools.network.layout import Network, Node


@dataclass
class DeviceView:
    """A device's newest status. Bytes are those of its newest round; `accepted` counts rounds seen by this observer."""

    status: Status | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    accepted: int = 0


@dataclass
class MinerView:
    """The newest header that a miner has published, and how many blocks it has proposed since this observer started."""

    height: int = 0
    head: str = ""
    proposed: int = 0


@dataclass
class Observer:
    """Follows one chain on one broker. `new_models` waits to be evaluated: rounds, and the model of each."""

    network: Network
    host: str
    port: int
    initial_model: ModelVector
    height_before: int = 0
    """Blocks up to this height are older than this run, so their arrival says nothing about the length of a round."""
    devices: dict[Address, DeviceView] = field(default_factory=dict)
    miners: dict[Address, MinerView] = field(default_factory=dict)
    settled_at: dict[int, float] = field(default_factory=dict)
    """By round: when its settlement was seen, in monotonic seconds; round 0 is the chain's opening."""
    new_models: list[tuple[int, ModelVector]] = field(default_factory=list)
    proposer: Address | None = None
    """Of the newest block."""
    last_block_at: float = field(default_factory=time.monotonic)
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.light: LightState = build_light_state(self.network.genesis, self.initial_model, is_full=False)
        self.topics = Topics.of_chain(self.light.chain)
        self.devices = {node.address: DeviceView() for node in self.network.agents}
        self.miners = {node.address: MinerView() for node in self.network.miners}
        self.link = MqttLink(MqttSettings(self.host, self.port, client_id="flchain-demo"), self._on_event)
        self._assemblies: dict[Address, Assembly] = {}
        self._followed: Address | None = None
        self._behind_since: float | None = None

    @property
    def settled_round(self) -> int:
        """The newest round whose settlement is final."""
        return self.light.round - 1

    async def start(self) -> None:
        """Connect and subscribe."""
        self.link.subscribe(self.topics.all_miners("head"), self.topics.all_devices("status"), qos=0)
        await self.link.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self.link.stop()

    def follow(self, miner: Address) -> None:
        """Take light bodies from this miner only: all miners publish the same ones."""
        if miner == self._followed:
            return
        if self._followed is not None:
            self.link.unsubscribe(self.topics.miner_light(self._followed))
        self._followed = miner
        self.link.subscribe(self.topics.miner_light(miner), qos=0)

    def compute_round_seconds(self, round_number: int) -> float | None:
        """Return the time between the settlements of the round before and of this one; None if one was not seen."""
        start, end = self.settled_at.get(round_number - 1), self.settled_at.get(round_number)
        return None if start is None or end is None else end - start

    def catch_up(self, agents: tuple[Node, ...], patience_s: float) -> None:
        """If light bodies were missed for `patience_s`, take the model and its certified header from a device's
        database."""
        if self.light.model_round >= self.settled_round:
            self._behind_since = None
            return
        self._behind_since = self._behind_since or time.monotonic()
        if time.monotonic() - self._behind_since < patience_s:
            return
        self._behind_since = None
        for node in agents:
            found = read_position(node.database, self.light.params.parameters_count)
            if found is not None:
                head, model = found
                self._try(partial(self._on_snapshot, head, encode_vector(model)))
            if self.light.model_round >= self.settled_round:
                return

    def _on_event(self, event: LinkEvent) -> bool:
        if isinstance(event, Received):
            self._try(partial(self._on_message, event))
        return True

    def _try(self, action: Callable[[], None]) -> None:
        """Count what is wrong and go on: an observer takes no part."""
        try:
            action()
        except WrongHeight:
            pass  # a header that is already known
        except InvalidMessage as error:
            self.refused[error.code] += 1
        except ModelMismatch:
            self.refused["model-mismatch"] += 1

    def _on_message(self, event: Received) -> None:
        owner, channel = read_topic_owner(event.topic), read_topic_channel(event.topic)
        packet: Packet | None = decode_packet(event.payload)
        if packet is not None and packet.type is PacketType.CHUNK:
            assembly = self._assemblies.get(owner, Assembly())
            self._assemblies[owner], packet = process_chunk(assembly, packet)
        if packet is None:
            return
        if channel == "head" and packet.type is PacketType.HEAD and owner in self.miners:
            self._on_head(owner, CertifiedHeader(*packet.fields), is_old=event.retained)
        elif channel == "light" and packet.type is PacketType.LIGHT_BODY:
            self._take(process_body(self.light, *packet.fields))
        elif channel == "status" and packet.type is PacketType.MESSAGE and owner in self.devices:
            self._on_status(owner, packet.fields[0], is_old=event.retained)

    def _on_head(self, owner: Address, head: CertifiedHeader, *, is_old: bool) -> None:
        now, (_, clock_ms) = time.monotonic(), read_clocks()
        header = decode_struct(head.header, Header, HEADER_BYTES_MAX)
        view = self.miners[owner]
        if header.height >= view.height:
            view.height, view.head = header.height, hash_header(head.header).hex()
        after = process_head(self.light, head, clock_ms)
        # Only now is the header known to be final and new.
        self.proposer, self.last_block_at = Address(header.proposer), now
        if self.proposer in self.miners:
            self.miners[self.proposer].proposed += 1
        is_timely = not is_old and header.height > self.height_before
        if is_timely and header.phase is Phase.OPEN:
            self.settled_at[header.round - 1] = now
        if is_timely and header.next_round > header.round:
            self.settled_at[header.round] = now
        self._take(after)

    def _on_snapshot(self, head: CertifiedHeader, model: bytes) -> None:
        before, self.light = self.light, process_snapshot(self.light, head, model, b"", read_clocks()[1])
        if self.light.model_round > before.model_round:
            self.new_models.append((self.light.model_round, self.light.model))

    def _take(self, after: LightState) -> None:
        before, self.light = self.light, after
        if after.model_round > before.model_round:
            self.new_models.append((after.model_round, after.model))
            for address in after.accepted:
                self.devices[Address(address)].accepted += 1

    def _on_status(self, owner: Address, raw: bytes, *, is_old: bool) -> None:
        envelope = open_envelope(raw, self.light.chain)
        status = verify_envelope(envelope, self.light.chain, self.light.device_keys[owner]).message
        if not isinstance(status, Status) or envelope.sender != owner:
            return
        view = self.devices[owner]
        before = view.status
        if before is None or status.bytes_up < before.bytes_up:
            view.bytes_up, view.bytes_down = (0, 0) if is_old else (status.bytes_up, status.bytes_down)
        elif status.round > before.round:
            view.bytes_up = status.bytes_up - before.bytes_up
            view.bytes_down = status.bytes_down - before.bytes_down
        view.status = status
