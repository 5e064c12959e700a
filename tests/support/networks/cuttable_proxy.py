"""A TCP proxy whose line can be cut silently in each direction: nothing is closed, bytes just stop.

What is under way during a cut waits, as TCP would send it again, and flows on after the line is healed; or is lost with
its connection, if the test says so. A connection that is begun during a cut comes to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

HOST = "127.0.0.1"
READ_BYTES = 65_536


class CuttableProxy:
    """A proxy between clients, which connect to `port`, and a server. `up` is towards the server, `down` is back."""

    def __init__(self, host: str, port: int, listen_host: str = HOST) -> None:
        self.port = 0
        self.passed = {"up": 0, "down": 0}
        """Bytes that have gone on, each way, of all connections."""
        self._listen_host = listen_host
        self._target = (host, port)
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.heal()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._on_client, self._listen_host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Drop every connection and listen no more."""
        assert self._server is not None
        self._server.close()
        self.heal(is_lost=True)
        await asyncio.gather(*self._serving)

    def cut(self, *, up: bool = True, down: bool = True) -> None:
        """Pass no further byte this way, nor the end of a connection."""
        for gate, is_cut in ((self._up, up), (self._down, down)):
            if is_cut:
                gate.clear()

    def heal(self, *, is_lost: bool = False) -> None:
        """Pass bytes again; with `is_lost` every connection is reset first, and what it held is gone."""
        if is_lost:
            self._drop_all()
        self._up.set()
        self._down.set()

    def _drop_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _wait_until_whole(self) -> None:
        while not (self._up.is_set() and self._down.is_set()):
            await self._up.wait()
            await self._down.wait()

    def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not (self._up.is_set() and self._down.is_set()):
                # What such a client said and gave up on must not reach the server later, as one burst.
                await self._wait_until_whole()
            else:
                with contextlib.suppress(OSError):
                    await self._connect(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers.add(far_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, self._up, "up")),
            asyncio.create_task(self._pump(far_reader, writer, self._down, "down")),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            # An end is news as well: the other side must not learn of it while the line is cut.
            await self._wait_until_whole()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers.discard(far_writer)
            far_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, way: str
    ) -> None:
        """Pass bytes on while the gate is open. The buffers of reader and kernel bound what a cut holds back."""
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                await gate.wait()
                writer.write(data)
                self.passed[way] += len(data)
                await writer.drain()
            await gate.wait()
            writer.write_eof()


@contextlib.asynccontextmanager
async def started_proxy(host: str, port: int, listen_host: str = HOST) -> AsyncIterator[CuttableProxy]:
    """A proxy that listens until the end of the block."""
    proxy = CuttableProxy(host, port, listen_host)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
