"""Running one source until it has given what a test waits for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from agent.edge.sensors import SENSORS
from agent.edge.sensors.source import SourceContext
from agent.sensing.samples import Sample
from flchain_edge.newer_python import timeout

DEADLINE_S = 60.0


async def take(
    kind: str,
    section: Any,
    count: int,
    *,
    until: Callable[[Sample], bool] = lambda sample: True,
    context: SourceContext | None = None,
    when_running: Callable[[], Awaitable[object]] | None = None,
) -> list[Sample]:
    """The first samples of a source: at least `count`, the last as `until` wants it; `when_running` runs beside it."""
    context = context or SourceContext(kind)
    samples: list[Sample] = []
    async with timeout(DEADLINE_S), running(when_running):
        source = SENSORS[kind].read(section, context)
        async with contextlib.aclosing(source):
            async for batch in source:
                samples += batch
                if len(samples) >= count and until(samples[-1]):
                    break
    return samples


@contextlib.asynccontextmanager
async def running(call: Callable[[], Awaitable[object]] | None) -> AsyncIterator[None]:
    """`call` as a task that ends with the block; what it raises comes out."""
    if call is None:
        yield
        return
    task = asyncio.ensure_future(call())
    try:
        yield
    finally:
        if task.done():
            task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def get_values(samples: list[Sample], channel: str) -> list[float]:
    return [sample.values[channel] for sample in samples if channel in sample.values]
