"""What is written as TOML reads back as it was."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain_edge.newer_python import tomllib
from flchain_edge.settings import toml_text
from flchain_edge.settings.toml_text import render_toml

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=5))
def test_round_trip(tables: dict[str, object]) -> None:
    """Any tables, at any depth, with any text as key or value."""
    assert tomllib.loads(render_toml(tables)) == tables


def test_the_example_in_its_docstring() -> None:
    """It prints what stands below it."""
    found = doctest.testmod(toml_text)
    assert found.attempted and not found.failed


def test_what_toml_has_no_place_for() -> None:
    """Nothing else is guessed at; a number that is none stays one."""
    with pytest.raises(ValueError, match="no place"):
        render_toml({"a": None})
    assert math.isnan(tomllib.loads(render_toml({"a": math.nan}))["a"])
