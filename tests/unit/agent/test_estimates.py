"""What a device expects of rounds from those it has seen."""

from __future__ import annotations

import pytest

from agent.scheduling.estimates import (
    AcceptanceForecast,
    estimate_work_left,
    guess_duration,
    observe_duration,
    observe_verdict,
    observe_work,
)
from agent.scheduling.values import DEADLINES_MAX


def test_durations_seen_take_the_place_of_the_guess() -> None:
    """After sixteen rounds nothing of the first guess is left, and no more than sixteen are kept."""
    forecast = guess_duration(30.0)
    assert forecast.mean_s == pytest.approx(30.0)
    for seconds in range(40, 40 + DEADLINES_MAX + 4):
        forecast = observe_duration(forecast, float(seconds))
    assert forecast.seen_s == tuple(map(float, range(44, 60)))
    assert sum(forecast.offsets_s) == pytest.approx(0.0) and max(forecast.offsets_s) == pytest.approx(7.5)


def test_work_left_follows_the_trainings_own_progress() -> None:
    """At first what a training usually takes; with every step more what its own steps took; nothing at the end."""
    assert estimate_work_left(0, 100, 0.0, 20.0) == pytest.approx(20.0)
    assert estimate_work_left(50, 100, 20.0, 20.0) == pytest.approx(20.0, rel=0.1)  # twice as slow as usual
    assert estimate_work_left(100, 100, 40.0, 20.0) == 0.0
    assert estimate_work_left(5, 0, 1.0, 20.0) == 0.0


def test_verdicts_and_costs_move_the_habit() -> None:
    """Each refusal lowers the chance of acceptance, and an expensive training raises what the next is taken to cost."""
    once = observe_verdict(AcceptanceForecast(), False)
    assert 0.95 == AcceptanceForecast().chance > once.chance > observe_verdict(once, False).chance > 0
    assert 20.0 < observe_work(20.0, 40.0) < 40.0
