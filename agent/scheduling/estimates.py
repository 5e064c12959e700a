"""What a device expects of rounds from those it has seen: the small forecasts that the scheduler is told."""

from __future__ import annotations

from dataclasses import dataclass

from agent.scheduling.values import DEADLINES_MAX

GUESSES = (0.8, 1.0, 1.2)
"""Times the first guess."""
PRIOR_ACCEPTED, PRIOR_JUDGED = 19.0, 20.0
"""What is believed of acceptance before any update was judged: nineteen of twenty. Who believes in less than is true
may never train, and so never learn better; in the recordings of docs/scheduler.md all 38 were accepted."""
HABIT = 0.05
"""What habit weighs beside a training's own progress, as a part of the whole training."""
WORK_KEPT = 0.7
"""A past training's part in what the next one is taken to cost."""


@dataclass(frozen=True)
class DurationForecast:
    """How long commitments may stay open, seconds: as long as in one of the last rounds, each of them as likely."""

    seen_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        """The expected duration."""
        return sum(self.seen_s) / len(self.seen_s)

    @property
    def offsets_s(self) -> tuple[float, ...]:
        """Of each from the mean, for `RoundOutlook.deadline_offsets_s`."""
        mean = self.mean_s
        return tuple(seconds - mean for seconds in self.seen_s)


def guess_duration(guess_s: float) -> DurationForecast:
    """Before any round was seen: about the guess, for which the chain's commit patience is a start."""
    return DurationForecast(tuple(guess_s * factor for factor in GUESSES))


def observe_duration(forecast: DurationForecast, seconds: float) -> DurationForecast:
    """After a round whose commitments were open for so long. The guesses go as rounds come."""
    return DurationForecast((*forecast.seen_s, seconds)[-DEADLINES_MAX:])


@dataclass(frozen=True)
class AcceptanceForecast:
    """The chance that an update in time is accepted: the mean of a beta distribution."""

    accepted: float = PRIOR_ACCEPTED
    judged: float = PRIOR_JUDGED

    @property
    def chance(self) -> float:
        """0 to 1."""
        return self.accepted / self.judged


def observe_verdict(forecast: AcceptanceForecast, is_accepted: bool) -> AcceptanceForecast:
    """After a round in which an update of this device was settled."""
    return AcceptanceForecast(forecast.accepted + is_accepted, forecast.judged + 1)


def estimate_work_left(steps_done: int, steps: int, used_core_s: float, usual_core_s: float) -> float:
    """Core-seconds left of a training of so many steps: by habit at first, then more and more by its own progress.

    `used_core_s` went into `steps_done`; `usual_core_s` is what a whole training usually takes.
    """
    if steps <= 0:
        return 0.0
    part = min(1.0, max(0.0, steps_done / steps))
    # each step by what steps took so far, and so many steps by habit as stand for a twentieth of the training
    per_part = (used_core_s + HABIT * usual_core_s) / (part + HABIT)
    return max(0.0, (1 - part) * per_part)


def observe_work(usual_core_s: float, core_s: float) -> float:
    """The usual cost of a training, after one that took so long."""
    return WORK_KEPT * usual_core_s + (1 - WORK_KEPT) * core_s
