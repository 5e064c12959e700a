"""The pace of all emulators: steps at a fixed rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


async def pace(rate_hz: float, seconds: float) -> AsyncIterator[int]:
    """Yield 0, 1, 2, ... at `rate_hz`, for `seconds` (0: for ever). Late steps are not skipped; later ones catch up."""
    loop = asyncio.get_running_loop()
    started_s, step = loop.time(), 0
    while not seconds or step < seconds * rate_hz:
        yield step
        step += 1
        await asyncio.sleep(max(0.0, started_s + step / rate_hz - loop.time()))
