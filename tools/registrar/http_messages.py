"""The little of HTTP/1.1 (RFC 9112) that the registrar speaks: one request and one answer for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from flchain_edge.enrolment.messages import REQUEST_BYTES_MAX, Refusal

HEAD_BYTES_MAX = 8_192
CHUNK_BYTES = 65_536
REASONS = {
    200: "OK",
    206: "Partial Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    413: "Too Large",
    416: "Range Not Satisfiable",
    429: "Too Many",
    503: "Fault",
}


class BadRequest(Exception):
    """A request that gets another answer than it asks for."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.refusal = Refusal(code, detail)


@dataclass(frozen=True)
class Head:
    """The first line of a request and its headers, by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    length: int
    """Of the body."""


@dataclass(frozen=True)
class FileAnswer:
    """A file as an answer, from `offset` on."""

    path: Path
    offset: int = 0


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Return the head. Raise BadRequest; asyncio.IncompleteReadError if the peer ends too early."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise BadRequest(413, "too-large", "the headers are too long") from error
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        raise BadRequest(400, "bad-request", "not HTTP")
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    lengths = [value for name, value in pairs if name == "content-length"]
    if len(lengths) > 1 or not all(value.isascii() and value.isdecimal() and len(value) < 10 for value in lengths):
        raise BadRequest(400, "bad-request", "Content-Length cannot be read")
    return Head(words[0], words[1], dict(pairs), int(lengths[0]) if lengths else 0)


async def read_body(reader: asyncio.StreamReader, head: Head) -> bytes:
    """Return a small body. Raise BadRequest."""
    if head.length > REQUEST_BYTES_MAX:
        raise BadRequest(413, "too-large", f"at most {REQUEST_BYTES_MAX} bytes")
    return await reader.readexactly(head.length)


async def iterate_body(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    """Yield a long body in parts. Raise asyncio.IncompleteReadError."""
    while length > 0:
        chunk = await reader.read(min(CHUNK_BYTES, length))
        if not chunk:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(chunk)
        yield chunk


async def discard(reader: asyncio.StreamReader) -> None:
    """Read what else the peer sends, until it ends the line."""
    while await reader.read(CHUNK_BYTES):
        pass


def send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    """Write an answer."""
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)


class Pace:
    """What all downloads together may take of a line, in bytes a second; 0 is no bound."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_s = 0.0
        """When the next bytes may go."""

    def reserve(self, count: int, now_s: float) -> float:
        """Return how long to wait before these bytes go; the next ones go after them."""
        if not self._bytes_per_s:
            return 0.0
        begin_s = max(now_s, self._free_s)
        self._free_s = begin_s + count / self._bytes_per_s
        return begin_s - now_s


async def send_file(writer: asyncio.StreamWriter, answer: FileAnswer, pace: Pace) -> None:
    """Write a file, a chunk at a time, as fast as the peer takes it and the pace allows."""
    with answer.path.open("rb") as stream:
        size = stream.seek(0, 2)
        if answer.offset > size:
            refusal = f'{{"code":"bad-offset","detail":"the file ends at byte {size}"}}'
            send(writer, 416, refusal.encode())
            return
        stream.seek(answer.offset)
        status = 206 if answer.offset else 200
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: {size - answer.offset}\r\n"
        if answer.offset:
            head += f"Content-Range: bytes {answer.offset}-{size - 1}/{size}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        while chunk := stream.read(CHUNK_BYTES):
            await asyncio.sleep(pace.reserve(len(chunk), asyncio.get_running_loop().time()))
            writer.write(chunk)
            await writer.drain()
