"""Compute joules over an interval from whatever a board can measure, and say how. Pure: samples in, totals out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

GAP_MAX_S = 30.0
"""Two power readings further apart than this say nothing about the time between: it is not interpolated."""
UNCOVERED_MAX = 0.05
"""An interval with a larger uncovered part than this gets no figure."""
POWER_MAX_W = 1_000.0
"""A larger power than this comes from a broken sensor or a counter that was reset, not from a board."""


class EnergySource(IntEnum):
    """How a figure was obtained; a larger value is a better source."""

    UNMEASURED = 0
    ESTIMATED = 1
    """From CPU time and the board's profile."""
    MEASURED = 2
    """By a sensor or counter of the board."""


@dataclass(frozen=True)
class Energy:
    """Joules, and whether they were measured; None means unknown, which is not 0."""

    joules: float | None = None
    source: EnergySource = EnergySource.UNMEASURED


UNKNOWN = Energy()


@dataclass(frozen=True)
class BoardProfile:
    """What a board draws: `idle_w` with its system running, and `core_w` more for each core that is busy."""

    name: str
    idle_w: float
    core_w: float
    cores: int
    source: str
    """Where the two numbers come from, or "rough"."""

    def compute_power_w(self, busy_cores: float) -> float:
        """Return watts with this many cores busy, 0 to `cores`."""
        return self.idle_w + self.core_w * min(max(busy_cores, 0.0), float(self.cores))


@dataclass(frozen=True)
class EnergySample:
    """One reading of every source of energy figures. None is unmeasured. Counters only grow, from any start."""

    at_s: float
    """Of a monotonic clock."""
    counter_j: float | None = None
    """A fine counter of energy (RAPL), its wraps undone."""
    power_w: float | None = None
    """A sensor's power now."""
    coarse_j: float | None = None
    """Energy out of the battery, in the steps of its gauge."""
    busy_s: float | None = None
    """CPU time of all cores that was not idle."""


@dataclass(frozen=True)
class Meter:
    """Totals since a start."""

    last: EnergySample | None = None
    joules: dict[EnergySource, float] = field(default_factory=dict)
    seconds: dict[EnergySource, float] = field(default_factory=dict)
    busy_s: float = 0.0
    latest: Energy = UNKNOWN
    """Of the time between the last two samples, `latest_s`."""
    latest_s: float = 0.0


def process_sample(meter: Meter, sample: EnergySample, profile: BoardProfile | None = None) -> Meter:
    """Account for the time since the last sample by the best source: counter, power, battery, or the estimate.

    A sample that is not later than the last one changes nothing.
    """
    last = meter.last
    if last is None:
        return replace(meter, last=sample)
    if sample.at_s <= last.at_s:
        return meter
    energy = _compute_interval(last, sample, profile)
    busy_s = _grown(last.busy_s, sample.busy_s)
    return Meter(
        last=sample,
        joules=_add(meter.joules, energy.source, energy.joules or 0.0),
        seconds=_add(meter.seconds, energy.source, sample.at_s - last.at_s),
        busy_s=meter.busy_s + (busy_s or 0.0),
        latest=energy,
        latest_s=sample.at_s - last.at_s,
    )


def compute_energy(before: Meter, after: Meter) -> Energy:
    """Return the energy between two states of one meter; its source is that of the weakest part that matters."""
    seconds = {source: after.seconds.get(source, 0.0) - before.seconds.get(source, 0.0) for source in EnergySource}
    whole_s = sum(seconds.values())
    if whole_s <= 0.0 or seconds[EnergySource.UNMEASURED] > UNCOVERED_MAX * whole_s:
        return UNKNOWN
    joules = sum(after.joules.get(source, 0.0) - before.joules.get(source, 0.0) for source in EnergySource)
    is_estimated = seconds[EnergySource.ESTIMATED] > UNCOVERED_MAX * whole_s
    return Energy(joules, EnergySource.ESTIMATED if is_estimated else EnergySource.MEASURED)


def compute_share(energy: Energy, cpu_s: float, busy_s: float) -> Energy:
    """Return the part of whoever used `cpu_s` of the `busy_s` CPU seconds, the idle board's draw included."""
    if energy.joules is None or busy_s <= 0.0:
        return UNKNOWN
    return Energy(energy.joules * min(1.0, max(0.0, cpu_s) / busy_s), energy.source)


def unwrap(last: int, now: int, range_max: int) -> int:
    """Return how far a counter went that wraps to 0 after `range_max`, assuming at most one wrap."""
    return now - last if now >= last else now + range_max + 1 - last


def _compute_interval(last: EnergySample, now: EnergySample, profile: BoardProfile | None) -> Energy:
    span_s = now.at_s - last.at_s
    counted_j = _grown(last.counter_j, now.counter_j)
    if counted_j is not None and counted_j <= POWER_MAX_W * span_s:
        return Energy(counted_j, EnergySource.MEASURED)
    if last.power_w is not None and now.power_w is not None and span_s <= GAP_MAX_S:
        return Energy((last.power_w + now.power_w) / 2 * span_s, EnergySource.MEASURED)
    drained_j = _grown(last.coarse_j, now.coarse_j)
    if drained_j is not None and drained_j <= POWER_MAX_W * span_s:
        return Energy(drained_j, EnergySource.MEASURED)
    busy_s = _grown(last.busy_s, now.busy_s)
    if profile is not None and busy_s is not None:
        return Energy(profile.compute_power_w(busy_s / span_s) * span_s, EnergySource.ESTIMATED)
    return UNKNOWN


def _grown(last: float | None, now: float | None) -> float | None:
    """Return the difference, or None if either is unmeasured or the counter was reset."""
    return now - last if last is not None and now is not None and now >= last else None


def _add(totals: dict[EnergySource, float], source: EnergySource, amount: float) -> dict[EnergySource, float]:
    return {**totals, source: totals.get(source, 0.0) + amount}
