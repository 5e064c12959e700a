"""What Python's standard library has only since 3.11, for 3.10 too: the one place that asks which Python runs.

JetPack 6 has Python 3.10 (docs/decisions/0016-pythons-and-runtimes.md). The linter refuses these names anywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import NoReturn

if sys.version_info >= (3, 11):
    from asyncio import Timeout as Deadline
    from asyncio import timeout
    from typing import assert_never

    import tomllib
else:
    import async_timeout
    import tomli as tomllib

    def assert_never(value: NoReturn, /) -> NoReturn:
        """Tell the type checker that this is not reached, and fail if it is."""
        raise AssertionError(f"not expected: {value!r}")

    class Deadline:
        """The end of a block's time."""

        def __init__(self, limit: async_timeout.Timeout) -> None:
            self._limit = limit

        def reschedule(self, when: float | None, /) -> None:
            """End the block at `when`, by the event loop's clock, instead; None lets it run on."""
            if when is None:
                self._limit.reject()
            else:
                self._limit.update(when)

    @contextlib.asynccontextmanager
    async def timeout(delay_s: float | None) -> AsyncIterator[Deadline]:
        """Run the block for at most `delay_s`. Raise TimeoutError, which asyncio's own is not before Python 3.11."""
        try:
            async with async_timeout.timeout(delay_s) as limit:
                yield Deadline(limit)
        except asyncio.TimeoutError as error:
            raise TimeoutError from error


__all__ = ["Deadline", "assert_never", "timeout", "tomllib"]
