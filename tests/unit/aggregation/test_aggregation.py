from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from flchain.aggregation import AGGREGATION_RULES, UPDATES_MAX, WEIGHT_LIMIT, WeightedUpdate
from flchain.base.fixedpoint import LIMIT
from flchain.base.types import Address


def build_updates(*rows: list[int], weights: list[int] | None = None) -> tuple[WeightedUpdate, ...]:
    return tuple(
        WeightedUpdate(
            Address(index.to_bytes(20, "big")), weights[index] if weights else 1, np.array(row, dtype=np.int32)
        )
        for index, row in enumerate(rows)
    )


def round_exactly(value: Fraction) -> int:
    magnitude = int(abs(value) + Fraction(1, 2))
    return magnitude if value >= 0 else -magnitude


def test_weighted_sum_is_the_mean_by_weight() -> None:
    """(1 * 10 + 3 * 20) / 4 = 17.5 is 18, and the same mirrored below zero."""
    updates = build_updates([10, -10, 0], [20, -20, 1], weights=[1, 3])
    assert AGGREGATION_RULES["weighted-sum"].aggregate(updates).tolist() == [18, -18, 1]


def test_weighted_sum_is_exact_at_every_limit() -> None:
    """1,024 updates of the largest value and weight neither overflow nor lose a step."""
    delta = np.array([LIMIT, -LIMIT, LIMIT - 1], dtype=np.int32)
    updates = tuple(
        WeightedUpdate(Address(index.to_bytes(20, "big")), WEIGHT_LIMIT - 1, delta) for index in range(UPDATES_MAX)
    )
    for name, rule in AGGREGATION_RULES.items():
        assert rule.aggregate(updates).tolist() == delta.tolist(), name


def test_median_of_an_odd_number_is_the_middle_one() -> None:
    """Weights do not count, and one liar moves nothing beyond its neighbours."""
    updates = build_updates([1, 5], [2, 4], [LIMIT, -LIMIT], weights=[1, 1, 1000])
    assert AGGREGATION_RULES["median"].aggregate(updates).tolist() == [2, 4]


def test_median_of_an_even_number_is_the_middle_twos_mean() -> None:
    """2 and 3 give 3, -2 and -3 give -3: halves away from zero; two limits give the limit."""
    updates = build_updates([1, -1, LIMIT], [2, -2, LIMIT], [3, -3, LIMIT], [9, -9, LIMIT])
    assert AGGREGATION_RULES["median"].aggregate(updates).tolist() == [3, -3, LIMIT]


def test_trimmed_mean_drops_a_fifth_at_each_end() -> None:
    """Of five, the lowest and the highest go: (1 + 2 + 4) / 3 is 2."""
    updates = build_updates([LIMIT], [1], [2], [4], [-LIMIT])
    assert AGGREGATION_RULES["trimmed-mean"].aggregate(updates).tolist() == [2]


def test_trimmed_mean_of_four_is_the_mean() -> None:
    """Below five updates nothing is dropped: (1 + 2 + 4 + 7) / 4 = 3.5 is 4."""
    updates = build_updates([1], [2], [4], [7])
    assert AGGREGATION_RULES["trimmed-mean"].aggregate(updates).tolist() == [4]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 10, 11])
def test_rules_agree_with_exact_fractions(count: int) -> None:
    """Each rule against its formula in fractions, over random updates."""
    rng = np.random.default_rng(count)
    rows = rng.integers(-LIMIT, LIMIT, size=(count, 40), endpoint=True)
    weights = rng.integers(1, WEIGHT_LIMIT, size=count).tolist()
    updates = build_updates(*rows.tolist(), weights=weights)
    expected: dict[str, list[int]] = {"weighted-sum": [], "median": [], "trimmed-mean": []}
    for column in rows.T.tolist():
        total = sum(weight * value for weight, value in zip(weights, column, strict=True))
        ordered, trimmed = sorted(column), count // 5
        middle = ordered[(count - 1) // 2] + ordered[count // 2]
        kept = ordered[trimmed : count - trimmed]
        expected["weighted-sum"].append(round_exactly(Fraction(total, sum(weights))))
        expected["median"].append(round_exactly(Fraction(middle, 2)))
        expected["trimmed-mean"].append(round_exactly(Fraction(sum(kept), len(kept))))
    assert {name: rule.aggregate(updates).tolist() for name, rule in AGGREGATION_RULES.items()} == expected


def test_blocks_of_coordinates_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting three coordinates at a time gives what sorting all at once gives, the last short block included."""
    rows = np.random.default_rng(5).integers(-1000, 1000, size=(6, 10)).tolist()
    whole = {name: rule.aggregate(build_updates(*rows)).tolist() for name, rule in AGGREGATION_RULES.items()}
    monkeypatch.setattr("flchain.aggregation.rule._BLOCK_VALUES", 18)
    assert {name: rule.aggregate(build_updates(*rows)).tolist() for name, rule in AGGREGATION_RULES.items()} == whole


@pytest.mark.parametrize("name", sorted(AGGREGATION_RULES))
def test_rules_change_no_update(name: str) -> None:
    """Sorting happens in a copy: the updates go into a Merkle tree as they came."""
    updates = build_updates([3, 1], [1, 2], [2, 3])
    AGGREGATION_RULES[name].aggregate(updates)
    assert [update.delta.tolist() for update in updates] == [[3, 1], [1, 2], [2, 3]]


@pytest.mark.parametrize("name", sorted(AGGREGATION_RULES))
def test_rules_refuse_what_the_caller_should_have_refused(name: str) -> None:
    """No update, too many, one sender twice, a weight out of range, another model's shape."""
    one = build_updates([1, 2])[0]
    many = tuple(WeightedUpdate(Address(i.to_bytes(20, "big")), 1, one.delta) for i in range(UPDATES_MAX + 1))
    other = Address(b"\x01" * 20)
    for updates in (
        (),
        many,
        (one, one),
        (WeightedUpdate(other, 0, one.delta),),
        (WeightedUpdate(other, WEIGHT_LIMIT, one.delta),),
        (one, WeightedUpdate(other, 1, one.delta[:1])),
    ):
        with pytest.raises(ValueError, match=r"update|weight"):
            AGGREGATION_RULES[name].aggregate(updates)


def test_a_linear_rule_is_one_whose_aggregates_add_up() -> None:
    """With equal weights, aggregating (a_i + b_i) gives aggregate(a) + aggregate(b) if the rule says that it is linear.

    The rows are such that every mean is whole, and such that no median and no trimmed mean adds up.
    """
    first, second = [[0], [0], [6], [6], [8]], [[10], [0], [0], [5], [5]]
    both = [[a[0] + b[0]] for a, b in zip(first, second, strict=True)]
    for name, rule in AGGREGATION_RULES.items():
        parts = rule.aggregate(build_updates(*first)) + rule.aggregate(build_updates(*second))
        adds_up = rule.aggregate(build_updates(*both)).tolist() == parts.tolist()
        assert adds_up == rule.is_linear, name
