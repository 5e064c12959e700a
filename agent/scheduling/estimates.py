"""Forecast rounds from those that this device has seen: the small estimates that the scheduler works with."""

from __future__ import annotations

from dataclasses import dataclass

from agent.scheduling.values import DEADLINES_MAX

GUESSES = (0.8, 1.0, 1.2)
"""The first durations, as multiples of the first guess."""
PRIOR_ACCEPTED, PRIOR_JUDGED = 19.0, 20.0
"""Assumed acceptance before any update was judged: nineteen of twenty. Too low a prior would stop training, and the
estimate would never recover; in the recordings of docs/scheduler.md all 38 updates were accepted."""
HABIT = 0.05
"""Weight of earlier trainings beside the running one's own progress, as a part of a whole training."""
WORK_KEPT = 0.7
"""Weight of the newest training in the estimate of the next one's cost."""


@dataclass(frozen=True)
class DurationForecast:
    """How long commitments may stay open, seconds: as in any of the last rounds, all equally likely."""

    seen_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        """The expected duration."""
        return sum(self.seen_s) / len(self.seen_s)

    @property
    def offsets_s(self) -> tuple[float, ...]:
        """The distance of each from the mean, for `RoundOutlook.deadline_offsets_s`."""
        mean = self.mean_s
        return tuple(seconds - mean for seconds in self.seen_s)


def guess_duration(guess_s: float) -> DurationForecast:
    """Return the forecast before any round was seen: around a guess, such as the chain's commit patience."""
    return DurationForecast(tuple(guess_s * factor for factor in GUESSES))


def observe_duration(forecast: DurationForecast, seconds: float) -> DurationForecast:
    """Return the forecast after a round whose commitments were open for `seconds`; rounds replace the guesses."""
    return DurationForecast((*forecast.seen_s, seconds)[-DEADLINES_MAX:])


@dataclass(frozen=True)
class AcceptanceForecast:
    """The chance that an update that is in time is accepted: the mean of a beta distribution."""

    accepted: float = PRIOR_ACCEPTED
    judged: float = PRIOR_JUDGED

    @property
    def chance(self) -> float:
        """0 to 1."""
        return self.accepted / self.judged


def observe_verdict(forecast: AcceptanceForecast, is_accepted: bool) -> AcceptanceForecast:
    """Return the forecast after a round in which an update of this device was settled."""
    return AcceptanceForecast(forecast.accepted + is_accepted, forecast.judged + 1)


def estimate_work_left(steps_done: int, steps: int, used_core_s: float, usual_core_s: float) -> float:
    """Return the core-seconds left of a training: at first by earlier ones, then more and more by its own progress.

    `used_core_s` went into `steps_done`; `usual_core_s` is what a whole training usually takes.
    """
    if steps <= 0:
        return 0.0
    part = min(1.0, max(0.0, steps_done / steps))
    # the usual cost counts as if it had been seen in a twentieth of the steps
    per_part = (used_core_s + HABIT * usual_core_s) / (part + HABIT)
    return max(0.0, (1 - part) * per_part)


def observe_work(usual_core_s: float, core_s: float) -> float:
    """Return the usual cost of a training, after one that took `core_s`."""
    return WORK_KEPT * usual_core_s + (1 - WORK_KEPT) * core_s
