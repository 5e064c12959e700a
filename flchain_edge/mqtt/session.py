"""One MQTT connection, from CONNECT to its end, on an asyncio loop over paho-mqtt.

paho encodes and decodes; this module adds what paho leaves to threads or does not bound: readiness of the socket, the
limits on what is under way, and that no exception escapes into the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from flchain_edge.mqtt.paho_client import BufferedClient
from flchain_edge.mqtt.settings import Endpoint, MqttSettings, Will, build_tls_context
from flchain_edge.mqtt.tls_errors import describe_alert

log = logging.getLogger(__name__)

OUTGOING_MESSAGES_MAX = 1024
"""Messages that may be under way (not yet written, or not yet acknowledged); `publish` refuses further ones."""
INFLIGHT_MAX = 64
"""Messages at QoS 1 that may await their PUBACK at once; others wait behind them."""
CONNECT_TIMEOUT_S = 5.0
CONNACK_TIMEOUT_S = 10.0
TICK_S_MAX = 5.0
READS_MAX = 64
"""Packets taken, of those that have arrived, before other tasks get their turn."""
SUBACK_FAILURE = 0x80
HUNG_UP = "the broker hung up: our certificate may be expired, revoked or unknown there; the broker's log says which"


class SessionOwner(Protocol):
    """What a session calls. It calls on the loop's thread, inside paho, so these must not raise."""

    def on_session_ready(self, session: Session) -> None: ...

    def on_session_message(self, message: paho.MQTTMessage) -> None: ...

    def on_session_acked(self, number: int) -> None: ...


class _FaultLog(logging.Logger):
    """Keeps the newest error of paho's log, and formats nothing else: paho logs every packet.

    With TLS 1.3 our certificate is refused after the handshake, and only these errors say so.
    """

    def __init__(self) -> None:
        super().__init__("paho", logging.ERROR)
        self.newest = ""

    def handle(self, record: logging.LogRecord) -> None:
        """Not passed on: what it means is said with the end of the connection."""
        self.newest = record.getMessage()


def _build_client(settings: MqttSettings, will: Will | None) -> BufferedClient:
    client = BufferedClient(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=True,
        protocol=paho.MQTTv311,
        reconnect_on_failure=False,
    )
    client.suppress_exceptions = True
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(INFLIGHT_MAX)
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password)
    context = build_tls_context(settings)
    if context is not None:
        client.tls_set_context(context)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
    return client


class Session:
    """One connection from CONNECT to its end, with a paho client of its own.

    With a new client each time paho does not resend by itself what an old connection left behind.
    """

    def __init__(
        self,
        owner: SessionOwner,
        settings: MqttSettings,
        endpoint: Endpoint,
        will: Will | None,
        outgoing_bytes_max: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._settings = settings
        self._endpoint = endpoint
        self._client = client = _build_client(settings, will)
        self._attached = False
        self._outgoing: dict[int, int] = {}
        self._outgoing_bytes = 0
        self._outgoing_bytes_max = outgoing_bytes_max
        self._refusal = ""
        self._asked: dict[int, tuple[str, ...]] = {}
        self.subscribed: set[str] = set()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self.ready_since: float | None = None
        self._faults = _FaultLog()
        client.enable_logger(self._faults)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_want_write
        client.on_socket_unregister_write = self._on_written

    @property
    def is_ready(self) -> bool:
        return self.ready_since is not None and not self.closed.done()

    async def open(self) -> None:
        """Connect, with the TLS handshake. Raise OSError (ssl.SSLError is one) or ValueError.

        In a thread, because name look-up and paho's handshake block; in a daemon thread, because the loop's executor
        would delay the end of the process until the last time-out.
        """
        opened: asyncio.Future[None] = self._loop.create_future()

        def finish(error: Exception | None) -> None:
            if opened.done():
                self.abort()
            elif error is not None:
                opened.set_exception(error)
            else:
                opened.set_result(None)

        def connect() -> None:
            error: Exception | None = None
            try:
                self._client.connect(self._endpoint.host, self._endpoint.port, self._settings.keepalive_s)
            except Exception as caught:  # whatever it is, the link tries again later
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
                self._loop.call_soon_threadsafe(finish, error)

        threading.Thread(target=connect, name="mqtt-connect", daemon=True).start()
        await opened

    async def run(self) -> str:
        """Serve the open connection until it ends; return the reason."""
        sock = self._client.socket()
        if sock is None:
            return "closed while connecting"
        assert isinstance(sock, socket.socket), "paho opens no WebSocket unless it is asked to"
        # Votes and receipts are small and urgent: never hold them back to fill a segment.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._attached = True
        self._loop.add_reader(sock, self._on_readable)
        self._loop.call_soon(self._flush)
        connack_deadline = self._loop.time() + CONNACK_TIMEOUT_S
        tick_s = min(TICK_S_MAX, self._settings.keepalive_s / 4)
        while not self.closed.done():
            await asyncio.wait((self.closed,), timeout=tick_s)
            if self.closed.done():
                break
            self._guard(self._client.loop_misc)
            if self.ready_since is None and self._loop.time() >= connack_deadline:
                self._end("the broker did not answer CONNECT")
        return self.closed.result()

    def publish(self, topic: str, payload: bytes, retain: bool, qos: int) -> int | None:
        """Send a message; return the number under which it is acknowledged, or None if it was refused."""
        if len(self._outgoing) >= OUTGOING_MESSAGES_MAX:
            return None
        if self._outgoing_bytes + len(payload) > self._outgoing_bytes_max:
            return None
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return None
        self._outgoing[info.mid] = len(payload)
        self._outgoing_bytes += len(payload)
        return info.mid

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        if filters:
            rc, mid = self._client.subscribe(list(filters))
            if rc == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
                self._asked[mid] = tuple(name for name, _ in filters)

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        if filters:
            self._client.unsubscribe(list(filters))
            self.subscribed.difference_update(filters)

    def disconnect(self) -> None:
        """Say goodbye behind what is already queued; `closed` is set when it is written."""
        self._guard(self._client.disconnect)

    def abort(self) -> None:
        """Close the socket at once. Safe at any time and any number of times."""
        self._end("aborted")
        client, sock = self._client, self._client.socket()
        client.on_socket_close = client.on_socket_register_write = client.on_socket_unregister_write = None
        if sock is not None:
            self._forget(sock)
            with contextlib.suppress(OSError):
                sock.close()

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

    def _forget(self, sock: Any) -> None:
        if self._attached and sock.fileno() >= 0:
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)

    def _guard(self, action: Callable[[], object]) -> None:
        """Run a step of paho. What it raises about a broken peer ends this connection, and nothing else."""
        try:
            action()
        except Exception as error:  # paho indexes into whatever a broken peer sent
            self._end(f"{type(error).__name__}: {error}")

    def _on_readable(self) -> None:
        for _ in range(READS_MAX):
            self._guard(self._client.loop_read)
            sock = self._client.socket()
            # The socket does not become readable again for what was read or decrypted with this packet: take it now.
            is_decrypted = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
            if self.closed.done() or not (self._client.has_unread or is_decrypted):
                return
        self._loop.call_soon(self._on_readable)

    def _flush(self) -> None:
        """Write at once, and watch the socket only if it did not take all: this saves two system calls a message."""
        if self.closed.done():
            return
        self._guard(self._client.loop_write)
        sock = self._client.socket()
        if sock is not None and not self.closed.done() and self._client.want_write():
            self._loop.add_writer(sock, lambda: self._guard(self._client.loop_write))

    def _on_want_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if self._attached:  # before that this is the connecting thread
            self._loop.call_soon(self._flush)

    def _on_written(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        if self._attached:
            self._loop.remove_writer(sock)

    def _on_socket_close(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._forget(sock)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._refusal = f"the broker refused us: {code}"
        else:
            self.ready_since = self._loop.time()
            self._owner.on_session_ready(self)

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        alert = describe_alert(self._faults.newest)
        reason = "goodbye" if not code.is_failure else alert or f"connection lost ({code})"
        if code.is_failure and self.ready_since is None and self._settings.tls_certificate is not None:
            reason = alert or HUNG_UP  # the alert may be lost with the connection
        self._end(self._refusal or reason)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        self._owner.on_session_message(message)

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, code: Any, properties: Any) -> None:
        self._outgoing_bytes -= self._outgoing.pop(mid, 0)
        self._owner.on_session_acked(mid)

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        for name, code in zip(self._asked.pop(mid, ()), codes, strict=False):
            if code.value >= SUBACK_FAILURE:
                log.warning("the broker refused a subscription filter=%s", name)
            else:
                self.subscribed.add(name)
