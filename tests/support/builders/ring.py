"""Filling a ring of samples with clocks of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.edge.data.dataset import DataSource
from agent.edge.data.sample_ring import Moment, SampleRing
from agent.edge.data.settings import RING_FILE, DatasetSettings, SampleSettings
from agent.sensing.samples import Sample

SECOND = 1_000_000
WALL_US = 1_800_000_000 * SECOND


@dataclass(frozen=True)
class FakeTime:
    """A moment that a test moves on."""

    boot_key: str = "boot-a"
    now_us: int = 1000 * SECOND
    offset_us: int = WALL_US
    is_trusted: bool = True

    def after(self, seconds: float) -> FakeTime:
        return replace(self, now_us=self.now_us + round(seconds * SECOND))

    @property
    def moment(self) -> Moment:
        return Moment(self.boot_key, self.now_us, self.now_us + self.offset_us, self.is_trusted)


def make_sample(time_us: int, source: str, values: Mapping[str, float], unit: str = "") -> Sample:
    return Sample(time_us, source, values, dict.fromkeys(values, unit))


def fill_ring(
    folder: Path, samples: Iterable[Sample], time: FakeTime | None = None, settings: SampleSettings | None = None
) -> None:
    """Write `samples` in one flush at `time`."""

    async def write() -> None:
        moment = (time or FakeTime()).moment
        ring = await SampleRing.open(folder / RING_FILE, settings or SampleSettings(), moment)
        try:
            for sample in samples:
                ring.add(sample)
            assert await ring.flush(moment)
        finally:
            await ring.close()

    asyncio.run(write())


def make_source(folder: Path, dataset: DatasetSettings) -> DataSource:
    return DataSource(folder / "examples.npz", folder, dataset)
