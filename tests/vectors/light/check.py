"""Run the recorded steps of light devices against the rules as they are; `check_all` as in `transitions.check`.

Every vector names an operation, what the device knows before (the base with some fields changed) and its input, and
records what came out: the fields that changed, or the code of the refusal. Nothing here computes what should come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flchain.base import errors
from flchain.light.follow import LightState
from tests.vectors.light import form
from tests.vectors.light.operations import OPERATIONS
from tests.vectors.transitions import packing
from tests.vectors.transitions.check import Vector, forget_cached, load
from tests.vectors.transitions.state_form import Flat, apply_changes, find_changes

DATA = Path(__file__).with_name("data")
BASE = DATA / "base.json"


def check_all(only: str | None = None) -> list[str]:
    """The names ("file: name") of the vectors that do not come out as recorded; `only` is a part of names to look at.

    Never raises for what a rule does: a rule that breaks in an unforeseen way has failed its vector.
    """
    return [name for name, difference in find_differences(only) if difference]


def find_differences(only: str | None = None) -> Iterator[tuple[str, str]]:
    """Every vector's name with how its outcome differs from the recorded one; empty if it does not."""
    forget_cached()
    base = load(BASE)["light"]
    for name, vector in list_vectors():
        if only is None or only in name:
            yield name, describe_difference(base, vector)


def list_vectors() -> list[tuple[str, Vector]]:
    """All vectors of all files, by name."""
    paths = sorted(path for path in DATA.glob("*.json") if path != BASE)
    return [(f"{path.stem}: {vector['name']}", vector) for path in paths for vector in load(path)["vectors"]]


def describe_difference(base: Flat, vector: Vector) -> str:
    """How a vector's outcome differs from what is recorded, on one line; empty if it is the same."""
    try:
        found = run(base, vector)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if found == vector["outcome"] else f"expected {vector['outcome']}, found {found}"


def run(base: Flat, vector: Vector) -> dict[str, Any]:
    """Carry a vector out, and give its outcome in the form in which outcomes are recorded."""
    flat = apply_changes(base, vector["before"])
    before: LightState = form.unflatten(flat)
    given = packing.unpack(vector["input"])
    try:
        outcome = OPERATIONS[vector["operation"]](before, given)
    except errors.InvalidMessage as error:
        return {"error": error.code}
    except (errors.ConfigError, errors.ModelMismatch) as error:
        return {"error": type(error).__name__}
    return {
        name: find_changes(flat, form.flatten(value)) if name == "after" else packing.pack(value)
        for name, value in outcome.items()
    }
