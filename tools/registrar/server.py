"""The registrar's HTTPS side: six paths, JSON in and out, small bodies, few connections, one deadline for all.

GET  /v1/ca              the authority's certificate, which a node compares with the fingerprint in its token
POST /v1/enroll          EnrolRequest -> EnrolAnswer
POST /v1/renew           RenewRequest -> EnrolAnswer
POST /v1/file            FileRequest -> the bytes of genesis or model
POST /v1/package         PackageRequest -> the bytes of a package from an offset on, for any member
PUT  /v1/package/SHA256  a package, from an operator (see `packages` and `compute_upload_statement`)
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

from flchain_edge.enrolment.messages import (
    KEY_HEADER,
    SIGNATURE_HEADER,
    EnrolRequest,
    FileRequest,
    PackageRequest,
    Refusal,
    RenewRequest,
)
from flchain_edge.newer_python import Deadline, timeout
from tools.registrar.enroller import Enroller, RequestRefused
from tools.registrar.http_messages import (
    HEAD_BYTES_MAX,
    BadRequest,
    FileAnswer,
    Head,
    Pace,
    discard,
    iterate_body,
    read_body,
    read_head,
    send,
    send_file,
)
from tools.registrar.packages import PackageRefused

T = TypeVar("T")
log = logging.getLogger("registrar")

CONNECTIONS_MAX = 64
CONNECTIONS_PER_ORIGIN_MAX = 16
"""Further connections, in all or from one address, are closed unread. A board asks again after a minute."""
DEADLINE_S = 15.0
"""For a whole request, handshake and answer included; a file gets FILE_DEADLINE_S."""
FILE_DEADLINE_S = 900.0
UPLOAD_DEADLINE_S = 3_600.0
"""For a package from an operator, which begins anew if it breaks off; a board goes on where it was."""
REFUSALS_MAX = 20
REFUSALS_WINDOW_S = 60.0
"""After this many refused requests in this many seconds an address waits: nobody can guess a token, and a fleet set
up wrongly cannot keep others out."""
ADDRESSES_MAX = 4_096
"""Addresses whose refusals are counted; with more, the oldest is forgotten."""
DOWNLOADS_MAX, DOWNLOADS_PER_ORIGIN_MAX = 24, 8
"""Packages that are sent at once, in all and to one address: boards that enrol must find a place beside those that
update. One that is turned away asks again, and goes on where it was."""
LINGER_S = 10.0
"""How long the rest of a refused request is read: who still sends does not see an answer before a closed line."""
PACKAGE_PATH = "/v1/package/"


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


class RegistrarServer:
    """Serves one registrar. `read_clock_s` returns seconds since 1970."""

    def __init__(self, enroller: Enroller, read_clock_s: Callable[[], float] = time.time) -> None:
        self._enroller = enroller
        self._read_clock_s = read_clock_s
        self._limit = RefusalLimit()
        self._open: Counter[str] = Counter()
        self._sending: Counter[str] = Counter()
        self._pace = Pace(enroller.settings.download_kbit_s * 125)
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Return the port on which it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, bind: str, port: int) -> None:
        """Listen, with a certificate made for this run. Raise OSError."""
        context = _build_context(self._enroller, int(self._read_clock_s()))
        self._enroller.packages.clean()
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
        answer: tuple[int, bytes] | FileAnswer
        try:
            head = await read_head(reader)
            if self._limit.is_over(origin, time.monotonic()):
                raise BadRequest(429, "too-many", "too many refused requests from this address: wait a minute")
            if head.method == "PUT" and head.path.startswith(PACKAGE_PATH):
                answer = await self._take_package(head, reader, deadline, origin)
            else:
                body = await read_body(reader, head)
                answer = self._ask_enroller(origin, lambda: self._decide(head.method, head.path, body, origin))
        except BadRequest as bad:
            send(writer, bad.status, msgspec.json.encode(bad.refusal))
            await writer.drain()
            deadline.reschedule(asyncio.get_running_loop().time() + LINGER_S)
            await discard(reader)
            return
        if isinstance(answer, FileAnswer):
            await self._send_file(writer, answer, deadline, origin)
        else:
            send(writer, *answer)
        await writer.drain()

    async def _send_file(
        self, writer: asyncio.StreamWriter, answer: FileAnswer, deadline: Deadline, origin: str
    ) -> None:
        if self._sending.total() >= DOWNLOADS_MAX or self._sending[origin] >= DOWNLOADS_PER_ORIGIN_MAX:
            busy = Refusal("busy", "the registrar is sending to many boards: ask again in a minute")
            send(writer, 503, msgspec.json.encode(busy))
            return
        self._sending[origin] += 1
        try:
            deadline.reschedule(asyncio.get_running_loop().time() + FILE_DEADLINE_S)
            await send_file(writer, answer, self._pace)
        finally:
            self._sending -= Counter((origin,))

    async def _take_package(
        self, head: Head, reader: asyncio.StreamReader, deadline: Deadline, origin: str
    ) -> tuple[int, bytes]:
        """Keep a package that an operator sends. Raise BadRequest."""
        sha256, size_bytes = head.path[len(PACKAGE_PATH) :], head.length
        key, signature = head.headers.get(KEY_HEADER, ""), head.headers.get(SIGNATURE_HEADER, "")
        self._ask_enroller(origin, lambda: self._enroller.check_upload(sha256, size_bytes, key, signature))
        store, body = self._enroller.packages, iterate_body(reader, size_bytes)
        deadline.reschedule(asyncio.get_running_loop().time() + UPLOAD_DEADLINE_S)
        if store.find(sha256) is not None:
            async for _ in body:  # an answer before its end would look like a broken line
                pass
        else:
            try:
                await store.keep(sha256, body)
            except PackageRefused as refused:
                raise BadRequest(403, "not-kept", str(refused)) from refused
            except OSError as error:
                log.error("cannot keep a package", extra={"cause": str(error)})
                text = f"the registrar cannot keep the package: {error.strerror}"
                raise BadRequest(503, "registrar-fault", text) from error
            clock_s = int(self._read_clock_s())
            self._enroller.register.note(clock_s, "package", sha256=sha256, bytes=size_bytes, key=key, peer=origin)
        return 200, b"{}"

    def _ask_enroller(self, origin: str, ask: Callable[[], T]) -> T:
        """Return the answer. Raise BadRequest, also for the registrar's own faults: the node should ask again."""
        try:
            try:
                return ask()
            except RequestRefused as refused:
                code = refused.refusal.code
                self._limit.add(origin, time.monotonic())
                log.warning("refused", extra={"peer": origin, "code": code})
                self._enroller.register.note(int(self._read_clock_s()), "refuse", code=code, peer=origin)
                raise BadRequest(403, code, refused.refusal.detail) from refused
        except (OSError, sqlite3.Error) as error:
            log.error("cannot answer", extra={"cause": str(error)})
            text = "the registrar cannot read or write its files: the operator finds the cause in its log"
            raise BadRequest(503, "registrar-fault", text) from error

    def _decide(self, method: str, path: str, body: bytes, peer: str) -> tuple[int, bytes] | FileAnswer:
        """Return the answer. Raise RequestRefused, BadRequest."""
        clock_s = int(self._read_clock_s())
        match method, path:
            case "GET", "/v1/ca":
                return 200, self._enroller.authority.ca_pem.encode()
            case "POST", "/v1/enroll":
                return 200, msgspec.json.encode(self._enroller.enrol(_decode(body, EnrolRequest), clock_s, peer))
            case "POST", "/v1/renew":
                return 200, msgspec.json.encode(self._enroller.renew(_decode(body, RenewRequest), clock_s, peer))
            case "POST", "/v1/file":
                return FileAnswer(self._enroller.get_file(_decode(body, FileRequest)))
            case "POST", "/v1/package":
                request = _decode(body, PackageRequest)
                if (found := self._enroller.get_package(request)) is None:
                    # Asked by a member, so no guess that counts against its address.
                    text = "the registrar has no such package: the operator brings it by flchain fleet update"
                    raise BadRequest(404, "no-package", text)
                return FileAnswer(found, request.offset)
        raise BadRequest(404, "unknown-path", "no such path")


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
        raise BadRequest(400, "bad-request", f"not a request: {error}"[:200]) from error


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
