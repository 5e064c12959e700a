"""The sensors of a running agent: one task for each source, one ring, and periodic flushes.

Nothing here talks to the chain, and no sample is published: samples go to the ring and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.edge.data.sample_ring import Moment, SampleRing, SourceHealth
from agent.edge.data.settings import RING_FILE, SampleSettings
from agent.edge.sensors import SENSORS, SensorSettings
from agent.edge.sensors.source import Clock, SourceContext, SourceFailed
from agent.sensing.samples import Sample
from agent.status.values import SensorStatus
from flchain.base.errors import FlchainError
from flchain_edge.mqtt.broker_choice import compute_backoff_s
from flchain_edge.process.kernel_clock import is_clock_synchronised, read_boot_key

log = logging.getLogger("agent.sensing")

CHECK_S = 1.0
STABLE_S = 10.0
"""A source that ran for this long starts with the shortest back-off again."""


class SourceTask:
    """One source, restarted after each failure. Its first state and each change are logged, without repetition."""

    def __init__(
        self, settings: SensorSettings, put: Callable[[Sample], None], clock: Clock, resume_us: int = 0
    ) -> None:
        self.health = SourceHealth(settings.name, settings.kind)
        self.context = SourceContext(settings.name, clock, resume_us)
        self._settings = settings
        self._put = put
        self._said = ""
        self._failures_in_a_row = 0

    async def run(self) -> None:
        """Run until cancelled, or until the source has ended."""
        loop = asyncio.get_running_loop()
        while True:
            started_s, before = loop.time(), self.health.samples
            try:
                await self._read()
            except (SourceFailed, OSError, FlchainError) as error:
                why = str(error) or type(error).__name__
            except Exception as error:  # our fault in one source must not end the others
                why = f"{type(error).__name__}: {error}"
                log.error("a source failed; this is a bug", exc_info=error, extra={"source": self.health.name})
            else:
                self._change("ended", "")
                return
            has_lasted = loop.time() - started_s >= STABLE_S and self.health.samples > before
            self._failures_in_a_row = 1 if has_lasted else self._failures_in_a_row + 1
            self.health.failures += 1
            self._change("failed", why)
            await asyncio.sleep(compute_backoff_s(self._failures_in_a_row, random.random()))

    async def _read(self) -> None:
        samples = SENSORS[self._settings.kind].read(self._settings.get_section(), self.context)
        async with contextlib.aclosing(samples):
            async for batch in samples:
                for sample in batch:
                    self._put(sample)
                if batch:
                    self.health.samples += len(batch)
                    self.health.seen_us = max(self.health.seen_us, batch[-1].time_us)
                    self.context.resume_us = self.health.seen_us
                    self._change("running", "")

    def check_silence(self, now_us: int, since_us: int, silent_us: int) -> None:
        """Mark a source silent that should be running and delivers nothing."""
        self.health.dropped = self.context.dropped
        last_us = max(self.health.seen_us, since_us)
        if self.health.state in ("starting", "running") and now_us - last_us > silent_us:
            self._change("silent", self.context.last_fault or f"nothing for {silent_us // 1_000_000} s")

    def _change(self, state: str, detail: str) -> None:
        self.health.state, self.health.detail = state, detail
        said = f"{state} {detail}"
        if said != self._said:
            self._said = said
            level = logging.WARNING if state in ("failed", "silent") else logging.INFO
            extra = {"source": self.health.name, **({"why": detail} if detail else {})}
            log.log(level, "source is %s", state, extra=extra)


class Sensing:
    """All configured sources and their ring. Does nothing without [[sensors]]."""

    def __init__(
        self,
        sensors: Sequence[SensorSettings],
        samples: SampleSettings,
        data_dir: Path,
        *,
        clock: Clock | None = None,
        is_clock_trusted: Callable[[], bool] = is_clock_synchronised,
        boot_key: str | None = None,
    ) -> None:
        self._sensors = sensors
        self._settings = samples
        self._path = Path(data_dir) / RING_FILE
        self._clock = clock or Clock()
        self._is_clock_trusted = is_clock_trusted
        self._boot_key = boot_key or read_boot_key()
        self._ring: SampleRing | None = None
        self._sources: list[SourceTask] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._started_us = 0

    @property
    def ring(self) -> SampleRing | None:
        """The ring; None before `start` and without sensors."""
        return self._ring

    @property
    def health(self) -> tuple[SourceHealth, ...]:
        """Health of each source, in the order of the configuration."""
        return tuple(source.health for source in self._sources)

    def describe(self) -> tuple[SensorStatus, ...]:
        """Return the status of each source, in the order of the configuration."""
        now_us = self._clock.read_us()
        return tuple(
            SensorStatus(
                name=own.name,
                kind=own.kind,
                state=own.state,
                samples=own.samples,
                dropped=own.dropped,
                failures=own.failures,
                age_s=round((now_us - own.seen_us) / 1e6, 1) if own.seen_us else None,
                detail=own.detail,
            )
            for own in self.health
        )

    async def start(self) -> None:
        """Open the ring and start all sources. Raises ConfigError, StoreFull or DiskFailed for the ring only."""
        if not self._sensors:
            return
        self._ring = ring = await SampleRing.open(self._path, self._settings, self._read_moment())
        newest = await ring.get_newest_us()
        self._started_us = self._clock.read_us()
        self._sources = [SourceTask(s, ring.add, self._clock, newest.get(s.name, 0)) for s in self._sensors]
        self._tasks = [asyncio.create_task(source.run(), name=source.health.name) for source in self._sources]
        self._tasks.append(asyncio.create_task(self._keep(ring), name="samples"))
        log.info("sensing", extra={"sources": len(self._sources), "samples": self._path})

    async def _keep(self, ring: SampleRing) -> None:
        """Flush when it is due; go on after a failed flush."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._settings.flush_s
        while True:
            await asyncio.sleep(min(CHECK_S, self._settings.flush_s))
            now_us = self._clock.read_us()
            for source in self._sources:
                source.check_silence(now_us, self._started_us, int(self._settings.silent_s * 1e6))
            if loop.time() >= due_s:
                due_s = loop.time() + self._settings.flush_s
                await self.flush(ring)

    async def flush(self, ring: SampleRing) -> None:
        """Write what waits now."""
        try:
            await ring.flush(self._read_moment(), self.health)
        except Exception as error:  # a fault of the ring must not end the agent
            log.error("the samples could not be written", exc_info=error)

    def _read_moment(self) -> Moment:
        is_trusted = self._settings.trust_clock or self._is_clock_trusted()
        return Moment(self._boot_key, self._clock.read_us(), self._clock.read_wall_us(), is_trusted)

    async def stop(self) -> None:
        """Stop the sources, write what waits, close the ring."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ring, self._ring = self._ring, None
        if ring is not None:
            await self.flush(ring)
            await ring.close()
