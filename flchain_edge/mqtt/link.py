"""The MQTT link of agent and miner: MQTT 3.1.1, kept up, on the process's one asyncio loop.

Apart from long packets under way it keeps nothing in memory for later: the durable outbox is the caller's, which
empties it by miners' signed receipts, never by a PUBACK.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as paho

from flchain.base.errors import ConfigError
from flchain.ledger.limits import FRAME_BYTES
from flchain.ledger.params import DEVICES_MAX
from flchain.machines.link_status import LinkStatus
from flchain.wire.chunks import CHUNK_BYTES, DEVICE_CHUNK_BYTES, PUSHED_CHUNKS_MAX, Ranges
from flchain.wire.fields import VALIDATORS_MAX
from flchain.wire.packets import PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX
from flchain_edge.mqtt.broker_choice import BrokerChoice, is_listening
from flchain_edge.mqtt.chunked_uploads import Chunk, ChunkedUploads
from flchain_edge.mqtt.inbox import INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, LinkDown, LinkEvent, LinkUp, Received
from flchain_edge.mqtt.session import OUTGOING_MESSAGES_MAX, Session
from flchain_edge.mqtt.settings import Endpoint, MqttSettings, Will, build_tls_context
from flchain_edge.mqtt.tls_errors import describe_tls_error
from flchain_edge.mqtt.uplink_rate import UplinkRate

log = logging.getLogger(__name__)

OUTGOING_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of messages that may be under way (not yet acknowledged), unless the owner has longer packets to send."""
STOP_TIMEOUT_S = 2.0

assert CHUNK_BYTES + FRAME_BYTES <= PAYLOAD_BYTES_MAX, "a chunk fits into a message"
assert OUTGOING_MESSAGES_MAX * CHUNK_BYTES >= PACKET_BYTES_MAX, "the longest packet can be under way at once"
assert OUTGOING_BYTES_MAX >= 2 * PAYLOAD_BYTES_MAX, "the longest message fits behind another one"
assert INBOX_MESSAGES_MAX >= 2 * (DEVICES_MAX + VALIDATORS_MAX), "every node's message of a phase, and its repetition"
assert INBOX_MESSAGES_MAX * CHUNK_BYTES >= PACKET_BYTES_MAX, "the longest packet can wait for its reader"
assert INBOX_BYTES_MAX >= PUSHED_CHUNKS_MAX * CHUNK_BYTES, "so can what is pushed in the fewest, largest chunks"


@dataclass
class LinkCounters:
    """Since the link was made. Bytes are those of PUBLISH and PUBACK packets, without TCP, TLS, pings and CONNECT."""

    bytes_sent: int = 0
    bytes_received: int = 0
    messages_received: int = 0
    dropped: int = 0
    """Came while the owner had no room, or with a topic that is not UTF-8."""
    refused: int = 0
    """Publishes that returned False."""
    connections: int = 0


PUBACK_BYTES = 4


def compute_publish_bytes(topic: str, payload_bytes: int, qos: int) -> int:
    """Return the size on the wire of a PUBLISH packet (MQTT 3.1.1, section 3.3), in bytes."""
    remaining = 2 + len(topic.encode()) + (2 if qos else 0) + payload_bytes
    length_bytes = 1 if remaining < 1 << 7 else 2 if remaining < 1 << 14 else 3 if remaining < 1 << 21 else 4
    return 1 + length_bytes + remaining


class MqttLink:
    """A connection that is kept up: connects, reconnects, subscribes again, and tells its owner.

    With several brokers each failure leads to the next one, and back to the first once it answers (`broker_choice`).

    Use it from the loop's own thread. `receive` is called in place with each event, and returns False for one that it
    has no room for, which is then counted as dropped; `Inbox.put` does so. What it raises is logged, never passed on.
    """

    def __init__(
        self,
        settings: MqttSettings,
        receive: Callable[[LinkEvent], bool],
        *,
        will: Will | None = None,
        outgoing_bytes_max: int = OUTGOING_BYTES_MAX,
    ) -> None:
        self.counters = LinkCounters()
        self._settings = settings
        self._will = will
        self._receive = receive
        self._outgoing_bytes_max = outgoing_bytes_max
        self._filters: dict[str, int] = {}
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._rate = UplinkRate()
        self._uploads = ChunkedUploads()
        self._chunks: dict[int, Chunk] = {}
        """Chunks under way, by the number of the message."""
        self._short: dict[int, bytes] = {}
        """Whole packets under way: on a slow link a sender that waits for a receipt would repeat them too soon."""
        self._said: dict[Endpoint, str] = {}
        self._choice = BrokerChoice(settings.endpoints, settings.return_s)
        self._choose: Callable[[], float] | None = None
        """How the next broker is chosen, if this connection ends because its owner wants it to."""
        self._changed_s = time.monotonic()
        """When the link was last connected or lost."""

    @property
    def has_stand_ins(self) -> bool:
        """Return whether there is more than one broker."""
        return len(self._settings.endpoints) > 1

    @property
    def is_connected(self) -> bool:
        """Return whether a message would be accepted now, if there is room."""
        return self._session is not None and self._session.is_ready

    @property
    def uplink_bytes_per_s(self) -> float | None:
        """Return the measured rate to the broker, or None before anything long enough was sent."""
        return self._rate.bytes_per_s

    def describe(self) -> LinkStatus:
        """Return which broker is in use, since when it is connected or lost, and what is wrong if it is not."""
        return LinkStatus(
            broker=str(self._choice.current),
            brokers=tuple(str(endpoint) for endpoint in self._settings.endpoints),
            is_connected=self.is_connected,
            for_s=round(time.monotonic() - self._changed_s, 1),
            trouble="" if self.is_connected else self._said.get(self._choice.current, ""),
            connections=self.counters.connections,
            bytes_sent=self.counters.bytes_sent,
            bytes_received=self.counters.bytes_received,
        )

    @property
    def is_subscribed(self) -> bool:
        """Return whether the broker has acknowledged every filter on the present connection."""
        return self.is_connected and self._session is not None and self._session.subscribed >= self._filters.keys()

    async def start(self) -> None:
        """Begin to connect, without waiting for it. Raise ConfigError if a TLS file cannot be used."""
        build_tls_context(self._settings)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="mqtt-link")

    async def stop(self) -> None:
        """Say goodbye (no will is sent then) and stop; at most STOP_TIMEOUT_S. What is under way may be lost."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._session is not None and self._session.is_ready:
            self._session.disconnect()
            await asyncio.wait((self._session.closed,), timeout=STOP_TIMEOUT_S)
        task.cancel()
        await asyncio.wait((task,))

    def reconnect(self, reason: str) -> None:
        """End this connection and connect again, with the TLS files as they are now."""
        self._part(reason, self._choice.stay)

    def turn_away(self, reason: str) -> None:
        """Change to the next broker: for an owner that hears nobody through a broker that still answers."""
        self._part(reason, None)

    def _part(self, reason: str, choose: Callable[[], float] | None) -> None:
        if self._session is not None and self._session.is_ready:
            self._say(logging.INFO, f"connecting again: {reason}")
            self._choose = choose
            self._leave(self._session)

    def _leave(self, session: Session) -> None:
        """Say goodbye, and hang up after STOP_TIMEOUT_S on a broker that does not take it."""
        session.disconnect()
        asyncio.get_running_loop().call_later(STOP_TIMEOUT_S, session.abort)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        """Hand a message to the connection. Return False while disconnected, or while too much is under way.

        True promises nothing yet: after `LinkDown` repeat what got no receipt. Raise ValueError for a payload above
        PAYLOAD_BYTES_MAX, a QoS other than 0 and 1, or a topic that is empty or has a wildcard: those are bugs.
        """
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"payload of {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX}: send it in chunks")
        if qos not in (0, 1):
            raise ValueError(f"QoS {qos}: only 0 and 1 are used")
        if not topic or any(mark in topic for mark in "+#\0"):
            raise ValueError(f"not a topic to publish to: {topic!r}")
        return self._publish(topic, payload, retain, qos) is not None

    def _publish(self, topic: str, payload: bytes, retain: bool = False, qos: int = 1) -> int | None:
        session = self._session
        number = session.publish(topic, payload, retain, qos) if session is not None and session.is_ready else None
        if number is None:
            self.counters.refused += 1
            return None
        size = compute_publish_bytes(topic, len(payload), qos)
        if qos:
            self._rate.on_sent(number, size, asyncio.get_running_loop().time())
        self.counters.bytes_sent += size
        self.counters.bytes_received += PUBACK_BYTES if qos else 0
        return number

    def send(self, topic: str, packet: bytes, *, is_again: bool = False) -> None:
        """Publish a short packet; send a long one in chunks behind everything else, across breaks of the link.

        A long packet is kept until others displace it or it is cancelled; a short one is not kept.
        """
        if len(packet) > DEVICE_CHUNK_BYTES:
            self._uploads.begin(topic, packet, asyncio.get_running_loop().time(), is_again=is_again)
            self._send_chunks()
        elif packet not in self._short.values() and (number := self._publish(topic, packet)) is not None:
            self._short[number] = packet

    def send_again(self, digest: bytes, ranges: Ranges) -> None:
        """Send these chunks of a packet again: a miner lacks them."""
        self._uploads.want(digest, ranges, asyncio.get_running_loop().time())
        self._send_chunks()

    def cancel(self, packet: bytes) -> None:
        """Send no more of a packet that is not needed any more."""
        self._uploads.cancel(packet)

    def _send_chunks(self) -> None:
        now_s = asyncio.get_running_loop().time()
        while self.is_connected and (chunk := self._uploads.take(self._rate.compute_window_bytes(), now_s)):
            number = self._publish(chunk.topic, chunk.payload)
            if number is None:  # the connection's own queue is full: try again at the next acknowledgement
                self._uploads.on_lost((chunk,))
                return
            self._chunks[number] = chunk

    def on_session_acked(self, number: int) -> None:
        self._rate.on_acked(number, asyncio.get_running_loop().time())
        self._short.pop(number, None)
        if (chunk := self._chunks.pop(number, None)) is not None:
            self._uploads.on_acked(chunk)
        if self._uploads:
            self._send_chunks()

    def subscribe(self, *topic_filters: str, qos: int = 1) -> None:
        """Subscribe to these filters, on this connection and on every later one."""
        self._filters.update(dict.fromkeys(topic_filters, qos))
        if self._session is not None and self._session.is_ready:
            self._session.subscribe(tuple((name, qos) for name in topic_filters))

    def unsubscribe(self, *topic_filters: str) -> None:
        """End the subscription to these filters. Ignore unknown ones."""
        for name in topic_filters:
            self._filters.pop(name, None)
        if self._session is not None and self._session.is_ready:
            self._session.unsubscribe(topic_filters)

    async def _run(self) -> None:
        while True:
            lasted_s = 0.0
            try:
                lasted_s = await self._run_session()
            except Exception as error:  # a bug of ours must not leave a board silent in the field
                log.error("the link failed and restarts", exc_info=error)
            choose, self._choose = self._choose, None
            delay_s = choose() if choose is not None else self._choice.turn(lasted_s)
            await asyncio.sleep(delay_s)

    async def _run_session(self) -> float:
        """Run one connection; return the seconds for which it was ready."""
        loop = asyncio.get_running_loop()
        reason = "stopped"
        session: Session | None = None
        watch: asyncio.Task[None] | None = None
        try:
            endpoint = self._choice.current
            self._session = session = Session(self, self._settings, endpoint, self._will, self._outgoing_bytes_max)
            await session.open()
            if self._choice.is_stand_in:
                watch = asyncio.create_task(self._return_to_preferred(session), name="mqtt-return")
            reason = await session.run()
        except (OSError, ValueError, ConfigError) as error:
            reason = describe_tls_error(error, time.time())
        finally:
            self._session = None
            self._rate.on_lost()
            self._uploads.on_lost(self._chunks.values())
            self._chunks.clear()
            self._short.clear()
            if watch is not None:
                watch.cancel()
            if session is not None:
                session.abort()
                if session.ready_since is not None:
                    self._changed_s = time.monotonic()
                    self._deliver(LinkDown(reason))
            if self._task is None:
                self._say(logging.INFO, "left the broker")
            else:
                self._say(logging.WARNING, f"no connection to the broker: {reason}")
        return 0.0 if session is None or session.ready_since is None else loop.time() - session.ready_since

    async def _return_to_preferred(self, session: Session) -> None:
        """End the session with a stand-in once the preferred broker answers again."""
        while True:
            await asyncio.sleep(self._choice.compute_return_s())
            if await is_listening(self._choice.preferred, build_tls_context(self._settings)):
                self._choose = self._choice.go_back
                self._leave(session)
                return

    def on_session_ready(self, session: Session) -> None:
        self.counters.connections += 1
        self._changed_s = time.monotonic()
        session.subscribe(tuple(self._filters.items()))
        self._say(logging.INFO, "connected to the broker")
        self._deliver(LinkUp())
        self._send_chunks()

    def on_session_message(self, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.counters.dropped += 1
            return
        payload = bytes(message.payload)
        self.counters.messages_received += 1
        self.counters.bytes_received += compute_publish_bytes(topic, len(payload), message.qos)
        self.counters.bytes_sent += PUBACK_BYTES if message.qos else 0
        self._deliver(Received(topic, payload, bool(message.retain)))

    def _deliver(self, event: LinkEvent) -> None:
        try:
            is_taken = self._receive(event)
        except Exception as error:  # a bug of the owner must not stop the link
            log.error("a handler of link events failed", exc_info=error)
        else:
            self.counters.dropped += not is_taken

    def _say(self, level: int, text: str) -> None:
        """Log a change of state once for each broker: one that is down all night is one line, not ten thousand."""
        where = self._choice.current
        if text != self._said.get(where):
            self._said = {where: text} if self.is_connected else {**self._said, where: text}
            log.log(level, "%s host=%s port=%d", text, where.host, where.port)
