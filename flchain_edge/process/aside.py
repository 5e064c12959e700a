"""Call what blocks in a thread that nobody waits for at the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def call_aside(act: Callable[[], T], name: str) -> T:
    """Call in a daemon thread: a registrar that does not answer must not delay the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(deliver: Callable[[], None]) -> None:
        if not done.done():
            deliver()

    def run() -> None:
        try:
            result = act()
        except Exception as error:  # passed on to the caller
            failed = error
            deliver = lambda: done.set_exception(failed)  # noqa: E731
        else:
            deliver = lambda: done.set_result(result)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            loop.call_soon_threadsafe(finish, deliver)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
