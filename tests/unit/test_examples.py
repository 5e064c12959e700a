"""The examples in the protocol's docstrings."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import flchain

ROOT = Path(flchain.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_an_example_prints_what_it_says(name: str) -> None:
    """Every example of a module of the protocol runs, and prints what stands below it."""
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
