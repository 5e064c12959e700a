"""What a node needs of its link to the broker, and a fake that only records, so that no broker is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flchain.machines.link_status import LinkStatus
from flchain.wire.chunks import Ranges


class Link(Protocol):
    """A connection that is kept up. See `MqttLink` for what each method promises."""

    @property
    def has_stand_ins(self) -> bool: ...

    @property
    def uplink_bytes_per_s(self) -> float | None: ...

    def describe(self) -> LinkStatus: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def turn_away(self, reason: str) -> None: ...

    def subscribe(self, *topic_filters: str, qos: int = 1) -> None: ...

    def unsubscribe(self, *topic_filters: str) -> None: ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool: ...

    def send(self, topic: str, packet: bytes, *, is_again: bool = False) -> None: ...

    def send_again(self, digest: bytes, ranges: Ranges) -> None: ...

    def cancel(self, packet: bytes) -> None: ...


@dataclass(frozen=True)
class Published:
    """A call of `publish`, or a packet given to `send` (at QoS 1, not retained)."""

    topic: str
    payload: bytes
    retain: bool
    qos: int


class FakeLink:
    """A link that is always up and leads nowhere. It records what it is given, in order."""

    has_stand_ins = False
    uplink_bytes_per_s: float | None = None

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.filters: dict[str, int] = {}
        self.is_started = False

    def describe(self) -> LinkStatus:
        """Return a status that is true of no broker."""
        return LinkStatus("fake:1883", ("fake:1883",), self.is_started, 0.0, "", int(self.is_started), 0, 0)

    async def start(self) -> None:
        """Note that the owner has started it."""
        self.is_started = True

    async def stop(self) -> None:
        """Note that the owner has stopped it."""
        self.is_started = False

    def turn_away(self, reason: str) -> None:
        """Do nothing: there is no other broker."""

    def subscribe(self, *topic_filters: str, qos: int = 1) -> None:
        """Note the filters."""
        self.filters.update(dict.fromkeys(topic_filters, qos))

    def unsubscribe(self, *topic_filters: str) -> None:
        """Forget the filters."""
        for name in topic_filters:
            self.filters.pop(name, None)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """Record a message."""
        self.published.append(Published(topic, payload, retain, qos))
        return True

    def send(self, topic: str, packet: bytes, *, is_again: bool = False) -> None:
        """Record a packet, whole however long it is."""
        self.publish(topic, packet)

    def send_again(self, digest: bytes, ranges: Ranges) -> None:
        """Do nothing: nothing was lost."""

    def cancel(self, packet: bytes) -> None:
        """Do nothing: nothing is kept."""
