"""Read a device node's bytes as they arrive, on the loop and without a thread."""

from __future__ import annotations

import asyncio
import os

READ_BYTES = 64 * 1024


async def read_when_ready(descriptor: int) -> bytes:
    """Return the next bytes of a non-blocking descriptor; b"" at its end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(descriptor, lambda: None if ready.done() else ready.set_result(None))  # noqa: B023
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)
