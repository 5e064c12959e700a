"""Joules over an interval: counters first, then power, then an estimate; and what nobody knows is not 0."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.scheduling.energy import (
    GAP_MAX_S,
    UNKNOWN,
    BoardProfile,
    Energy,
    EnergySample,
    EnergySource,
    Meter,
    compute_energy,
    compute_share,
    process_sample,
    unwrap,
)
from tests.support.floats import floats

PROFILE = BoardProfile("test", idle_w=2.0, core_w=1.0, cores=4, source="made up")
MEASURED, ESTIMATED = EnergySource.MEASURED, EnergySource.ESTIMATED


def meter(*samples: EnergySample, profile: BoardProfile | None = None) -> Meter:
    total = Meter()
    for sample in samples:
        total = process_sample(total, sample, profile)
    return total


def spend(*samples: EnergySample, profile: BoardProfile | None = None) -> Energy:
    return compute_energy(Meter(), meter(*samples, profile=profile))


def test_power_is_laid_out_in_trapezoids() -> None:
    """From 2 W to 4 W in 10 s are 30 J, and 4 W for 5 s more are 20."""
    samples = [EnergySample(0.0, power_w=2.0), EnergySample(10.0, power_w=4.0), EnergySample(15.0, power_w=4.0)]
    assert spend(*samples) == Energy(50.0, MEASURED)


def test_no_trapezoid_over_a_gap() -> None:
    """An hour between two looks is unmeasured, or estimated by CPU time, or bridged by the battery's gauge."""
    early, late = EnergySample(0.0, power_w=3.0), EnergySample(3_600.0, power_w=3.0)
    assert late.at_s > GAP_MAX_S and spend(early, late) == UNKNOWN
    busy = replace(early, busy_s=0.0), replace(late, busy_s=1_800.0)
    assert spend(*busy, profile=PROFILE) == Energy(2.5 * 3_600.0, ESTIMATED)
    gauge = replace(early, coarse_j=100.0), replace(late, coarse_j=9_100.0)
    assert spend(*gauge, profile=PROFILE) == Energy(9_000.0, MEASURED)


def test_a_counter_is_preferred() -> None:
    """Where a fine counter and a power are there, the counter is believed; one that was reset, or jumps, is not."""
    first = EnergySample(0.0, counter_j=5.0, power_w=100.0, busy_s=0.0)
    assert spend(first, EnergySample(10.0, counter_j=45.0, power_w=100.0)) == Energy(40.0, MEASURED)
    assert spend(first, EnergySample(10.0, counter_j=1.0, power_w=100.0)) == Energy(1_000.0, MEASURED)
    assert spend(first, EnergySample(10.0, counter_j=1e12)) == UNKNOWN


def test_the_estimate_counts_busy_cores() -> None:
    """Idle watts and so many more for each busy core, of which there are not more than the board has."""
    first = EnergySample(0.0, busy_s=7.0)
    assert spend(first, EnergySample(10.0, busy_s=7.0), profile=PROFILE) == Energy(20.0, ESTIMATED)
    assert spend(first, EnergySample(10.0, busy_s=32.0), profile=PROFILE) == Energy(45.0, ESTIMATED)
    assert spend(first, EnergySample(10.0, busy_s=907.0), profile=PROFILE) == Energy(60.0, ESTIMATED)
    assert spend(first, EnergySample(10.0, busy_s=7.0)) == UNKNOWN


def test_the_weakest_part_names_the_whole() -> None:
    """A round of which a tenth was estimated is estimated; of which a tenth is unknown, unknown; of 1%, measured."""
    measured = [EnergySample(float(t), power_w=3.0, busy_s=0.0) for t in range(0, 91, 10)]
    assert spend(*measured, EnergySample(100.0, busy_s=0.0), profile=PROFILE) == Energy(270.0 + 20.0, ESTIMATED)
    assert spend(*measured, EnergySample(100.0, busy_s=0.0)) == UNKNOWN
    assert spend(*measured, EnergySample(91.0)) == Energy(270.0, MEASURED)


def test_between_two_snapshots() -> None:
    """Energy of a round is the difference of two states of the meter, which stay as they were."""
    before = meter(EnergySample(0.0, power_w=3.0), EnergySample(10.0, power_w=3.0))
    after = process_sample(before, EnergySample(14.0, power_w=3.0))
    assert compute_energy(before, after) == Energy(12.0, MEASURED)
    assert compute_energy(Meter(), before) == Energy(30.0, MEASURED)
    assert compute_energy(before, before) == UNKNOWN


def test_time_that_does_not_pass_counts_nothing() -> None:
    """A second sample of the same moment, or an earlier one, changes nothing."""
    once = meter(EnergySample(5.0, power_w=3.0))
    assert process_sample(once, EnergySample(5.0, power_w=9.0)) == once
    assert process_sample(once, EnergySample(4.0, power_w=9.0)) == once


def test_the_share_of_training() -> None:
    """Who used a quarter of the busy CPU time pays a quarter; nobody pays more than all, or for what is unknown."""
    whole = Energy(80.0, ESTIMATED)
    assert compute_share(whole, 5.0, 20.0) == Energy(20.0, ESTIMATED)
    assert compute_share(whole, 50.0, 20.0) == whole
    assert compute_share(whole, 5.0, 0.0) == UNKNOWN and compute_share(UNKNOWN, 5.0, 20.0) == UNKNOWN


def test_a_counter_wraps_behind_its_largest_value() -> None:
    """From 8 of 0..9 to 1 are 3 steps, RAPL's max_energy_range_uj being the largest value."""
    assert (unwrap(8, 1, 9), unwrap(1, 8, 9), unwrap(4, 4, 9)) == (3, 7, 0)


@given(
    st.lists(
        st.builds(
            EnergySample,
            at_s=floats(0, 1e5),
            counter_j=st.none() | floats(0, 1e6),
            power_w=st.none() | floats(0, 500),
            coarse_j=st.none() | floats(0, 1e6),
            busy_s=st.none() | floats(0, 1e5),
        ),
        max_size=12,
    )
)
def test_any_samples_give_a_figure_or_none(samples: list[EnergySample]) -> None:
    """Whatever sensors say, energy is not negative, not beyond a board, and has a figure exactly if it has a source."""
    total = meter(*samples, profile=PROFILE)
    energy = compute_energy(Meter(), total)
    assert (energy.joules is None) is (energy.source is EnergySource.UNMEASURED)
    if energy.joules is not None:
        assert 0 <= energy.joules <= 1_000.0 * sum(total.seconds.values()) * 1.001
