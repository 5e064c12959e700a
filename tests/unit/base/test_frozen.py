"""Frozen values that are cheap to change, to ask again and to grow mean what the plain ones mean."""

from __future__ import annotations

import dataclasses
import doctest
from dataclasses import dataclass, field
from functools import cached_property

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base import frozen
from flchain.base.frozen import ByAddress, Growing, kept_with, replace
from flchain.base.types import Address


@dataclass(frozen=True)
class Plain:
    count: int
    name: str = "plain"
    hidden: tuple[int, ...] = field(default=(), compare=False)

    @cached_property
    def doubled(self) -> int:
        return 2 * self.count


@dataclass(frozen=True)
class Checked:
    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("below zero")


def test_replace_gives_what_the_standard_library_gives() -> None:
    """A value with some fields changed, the others as they were, and the old value untouched."""
    old = Plain(1, "old", (3,))
    new = replace(old, count=2)
    assert new == dataclasses.replace(old, count=2) and new.hidden == (3,)
    assert old == Plain(1, "old")
    assert dataclasses.fields(new) == dataclasses.fields(old) and repr(new) == repr(Plain(2, "old", (3,)))


def test_replace_refuses_what_is_no_field() -> None:
    """A misspelled field is an error, not a new attribute."""
    with pytest.raises(TypeError):
        replace(Plain(1), cuont=2)  # type: ignore[call-arg]


def test_replace_runs_a_values_own_checks() -> None:
    """A class that checks its values when they are made still does."""
    with pytest.raises(ValueError, match="below zero"):
        replace(Checked(1), count=-1)


def test_what_is_kept_with_a_value_is_asked_once_and_never_inherited() -> None:
    """An answer is worked out once for each value, and a changed value has its own."""
    asked = []

    @kept_with
    def triple(value: Plain) -> int:
        asked.append(value.count)
        return 3 * value.count

    old = Plain(1)
    assert (triple(old), triple(old), old.doubled) == (3, 3, 2)
    new = replace(old, count=5)
    assert (triple(new), new.doubled, triple(old)) == (15, 10, 3)
    assert asked == [1, 5]
    assert new == Plain(5) and vars(replace(new, name="n")).keys() == {"count", "name", "hidden"}


keys = st.integers(0, 5)


@given(st.lists(st.tuples(st.integers(0, 20), keys, st.integers()), max_size=30))
def test_growing_mappings_are_what_dicts_would_be(steps: list[tuple[int, int, int]]) -> None:
    """Whichever of the earlier mappings one grows from, each still holds exactly its own entries, in their order."""
    grown: list[Growing[int, int]] = [Growing()]
    wanted: list[dict[int, int]] = [{}]
    for place, key, value in steps:
        place %= len(grown)
        grown.append(grown[place].with_item(key, value))
        wanted.append({**wanted[place], key: value})
    for mapping, model in zip(grown, wanted, strict=True):
        assert list(mapping.items()) == list(model.items()) and len(mapping) == len(model)
        assert [mapping.get(key, "none") for key in range(7)] == [model.get(key, "none") for key in range(7)]
        assert [key in mapping for key in range(7)] == [key in model for key in range(7)]
        assert mapping == model and list(mapping.values()) == list(model.values())
        for key in set(range(7)) - model.keys():
            with pytest.raises(KeyError):
                mapping[key]


def test_a_growing_mapping_is_not_copied() -> None:
    """A thousand entries, one after another, are in one dict: each step is as cheap as the first."""
    grown: Growing[int, int] = Growing()
    shared = grown._shared
    for number in range(1_000):
        grown = grown.with_item(number, number)
    assert grown._shared is shared and len(grown) == 1_000


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 130), st.integers(0, 9)), max_size=40))
def test_mappings_by_address_never_change(steps: list[tuple[int, int, int]]) -> None:
    """Whichever of the earlier mappings one is made from, each still holds exactly its own entries, whatever parts they
    are in; and one made from all entries at once is the same."""
    made: list[ByAddress[int]] = [ByAddress()]
    wanted: list[dict[Address, int]] = [{}]
    for place, number, value in steps:
        place, address = place % len(made), Address(bytes((number, number)))
        made.append(made[place].with_item(address, value))
        wanted.append({**wanted[place], address: value})
    for mapping, model in zip(made, wanted, strict=True):
        assert dict(mapping) == model and len(mapping) == len(model)
        assert mapping == model and list(mapping) == list(ByAddress(model))


def test_one_device_more_costs_a_part_of_the_mapping() -> None:
    """Of a thousand entries only those of one part are copied for one that changes."""
    whole = ByAddress({Address(number.to_bytes(2, "big")): number for number in range(1_000)})
    changed = whole.with_item(Address(bytes(2)), 7)
    shared = [mine is its for mine, its in zip(whole._parts, changed._parts, strict=True)]
    assert shared.count(False) == 1 and len(changed) == 1_000


def test_the_examples_are_true() -> None:
    """What the docstrings show is what happens."""
    outcome = doctest.testmod(frozen)
    assert outcome.attempted and not outcome.failed
