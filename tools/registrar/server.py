"""The registrar's HTTPS side: four paths, JSON in and out, small bodies, few connections, one deadline for all.

GET  /v1/ca       the authority's certificate, which a node compares with the fingerprint in its token
POST /v1/enroll   EnrolRequest -> EnrolAnswer
POST /v1/renew    RenewRequest -> EnrolAnswer
POST /v1/file     FileRequest -> the bytes of genesis or model
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import sqlite3
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from flchain_edge.enrolment.messages import REQUEST_BYTES_MAX, EnrolRequest, FileRequest, Refusal, RenewRequest
from flchain_edge.newer_python import Deadline, timeout
from tools.registrar.enroller import Enroller, RequestRefused

T = TypeVar("T")
log = logging.getLogger("registrar")

HEAD_BYTES_MAX = 8_192
CONNECTIONS_MAX = 64
CONNECTIONS_PER_ORIGIN_MAX = 16
"""Further connections, in all or from one address, are closed unread. A board asks again after a minute."""
DEADLINE_S = 15.0
"""For a whole request, handshake and answer included; a file gets FILE_DEADLINE_S."""
FILE_DEADLINE_S = 900.0
REFUSALS_MAX = 20
REFUSALS_WINDOW_S = 60.0
"""After this many refused requests in this many seconds an address waits: nobody can guess a token, and a fleet set
up wrongly cannot keep others out."""
ADDRESSES_MAX = 4_096
"""Addresses whose refusals are counted; with more, the oldest is forgotten."""
FILE_CHUNK_BYTES = 65_536
REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    413: "Too Large",
    429: "Too Many",
    503: "Fault",
}


class RefusalLimit:
    """Counts refused requests by address in windows of REFUSALS_WINDOW_S."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}

    def is_over(self, peer: str, now_s: float) -> bool:
        """Return whether this address has to wait."""
        began_s, count = self._counts.get(peer, (now_s, 0))
        return count >= REFUSALS_MAX and now_s - began_s < REFUSALS_WINDOW_S

    def add(self, peer: str, now_s: float) -> None:
        """Count one refusal."""
        began_s, count = self._counts.pop(peer, (now_s, 0))
        if now_s - began_s >= REFUSALS_WINDOW_S:
            began_s, count = now_s, 0
        self._counts[peer] = (began_s, count + 1)
        while len(self._counts) > ADDRESSES_MAX:
            self._counts.pop(next(iter(self._counts)))


class _BadRequest(Exception):
    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.refusal = Refusal(code, detail)


class RegistrarServer:
    """Serves one registrar. `read_clock_s` returns seconds since 1970."""

    def __init__(self, enroller: Enroller, read_clock_s: Callable[[], float] = time.time) -> None:
        self._enroller = enroller
        self._read_clock_s = read_clock_s
        self._limit = RefusalLimit()
        self._open: Counter[str] = Counter()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return the port on which it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, bind: str, port: int) -> None:
        """Listen, with a certificate made for this run. Raise OSError."""
        context = _build_context(self._enroller, int(self._read_clock_s()))
        self._server = await asyncio.start_server(
            self._serve, bind, port, ssl=context, limit=HEAD_BYTES_MAX, ssl_handshake_timeout=DEADLINE_S
        )

    async def stop(self) -> None:
        """Stop listening; requests under way may finish."""
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        origin = _find_origin(writer)
        if self._open.total() >= CONNECTIONS_MAX or self._open[origin] >= CONNECTIONS_PER_ORIGIN_MAX:
            writer.transport.abort()
            return
        self._open[origin] += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with timeout(DEADLINE_S) as deadline:
                    await self._answer(reader, writer, deadline, origin)
        finally:
            self._open -= Counter((origin,))  # which also forgets an origin without connections
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deadline: Deadline, origin: str
    ) -> None:
        answer: tuple[int, bytes] | Path
        try:
            method, path, body = await _read_request(reader)
            if self._limit.is_over(origin, time.monotonic()):
                raise _BadRequest(429, "too-many", "too many refused requests from this address: wait a minute")
            answer = self._ask_enroller(method, path, body, origin)
        except _BadRequest as bad:
            answer = bad.status, msgspec.json.encode(bad.refusal)
        if isinstance(answer, Path):
            deadline.reschedule(asyncio.get_running_loop().time() + FILE_DEADLINE_S)
            await _send_file(writer, answer)
        else:
            _send(writer, *answer)
        await writer.drain()

    def _ask_enroller(self, method: str, path: str, body: bytes, origin: str) -> tuple[int, bytes] | Path:
        """Return the answer. Raise _BadRequest, also for the registrar's own faults: the node should ask again."""
        try:
            try:
                return self._decide(method, path, body, origin)
            except RequestRefused as refused:
                code = refused.refusal.code
                self._limit.add(origin, time.monotonic())
                log.warning("refused", extra={"peer": origin, "code": code})
                self._enroller.register.note(int(self._read_clock_s()), "refuse", code=code, peer=origin)
                raise _BadRequest(403, code, refused.refusal.detail) from refused
        except (OSError, sqlite3.Error) as error:
            log.error("cannot answer", extra={"cause": str(error)})
            text = "the registrar cannot read or write its files: the operator finds the cause in its log"
            raise _BadRequest(503, "registrar-fault", text) from error

    def _decide(self, method: str, path: str, body: bytes, peer: str) -> tuple[int, bytes] | Path:
        """Return the answer. Raise RequestRefused, _BadRequest."""
        clock_s = int(self._read_clock_s())
        match method, path:
            case "GET", "/v1/ca":
                return 200, self._enroller.authority.ca_pem.encode()
            case "POST", "/v1/enroll":
                return 200, msgspec.json.encode(self._enroller.enrol(_decode(body, EnrolRequest), clock_s, peer))
            case "POST", "/v1/renew":
                return 200, msgspec.json.encode(self._enroller.renew(_decode(body, RenewRequest), clock_s, peer))
            case "POST", "/v1/file":
                return self._enroller.get_file(_decode(body, FileRequest))
        raise _BadRequest(404, "unknown-path", "no such path")


def _find_origin(writer: asyncio.StreamWriter) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 in which an IPv6 host chooses its addresses."""
    host = str((writer.get_extra_info("peername") or ("?",))[0])
    with contextlib.suppress(ValueError):
        if (address := ipaddress.ip_address(host)).version == 6:
            return str(ipaddress.IPv6Interface((int(address), 64)).network)
    return host


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _BadRequest(400, "bad-request", f"not a request: {error}"[:200]) from error


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    """Return method, path and body of one HTTP/1.1 request (RFC 9112). Of its headers only Content-Length matters."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise _BadRequest(413, "too-large", "the headers are too long") from error
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        raise _BadRequest(400, "bad-request", "not HTTP")
    lengths = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("content-length:")]
    if len(lengths) > 1 or not all(text.isdecimal() and len(text) < 9 for text in lengths):
        raise _BadRequest(400, "bad-request", "Content-Length cannot be read")
    length = int(lengths[0]) if lengths else 0
    if length > REQUEST_BYTES_MAX:
        raise _BadRequest(413, "too-large", f"at most {REQUEST_BYTES_MAX} bytes")
    return words[0], words[1], await reader.readexactly(length)


def _send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)


async def _send_file(writer: asyncio.StreamWriter, path: Path) -> None:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode())
        while chunk := stream.read(FILE_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


def _build_context(enroller: Enroller, clock_s: int) -> ssl.SSLContext:
    certificate, key = enroller.make_server(enroller.settings.host, clock_s)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # load_cert_chain reads only files; these exist only for this call.
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "chain.pem"
        chain.write_text(key + certificate)
        context.load_cert_chain(chain)
    return context
