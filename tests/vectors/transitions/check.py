"""Run the recorded transitions against the rules as they are: `check_all` is the one entry point.

Every vector names an operation, the state before it (the world's state with some fields changed) and its input, and
records what came out: the fields that changed and the root of the state after, or the code of the refusal. Nothing
here computes what should come out.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flchain.base import errors
from tests.vectors.transitions import (
    operations,
    operations_kept,
    operations_light,
    operations_releases,
    packing,
    state_form,
)

DATA = Path(__file__).with_name("data")
WORLD = DATA / "world.json"
OPERATIONS = operations.OPERATIONS | operations_kept.OPERATIONS | operations_light.OPERATIONS
OPERATIONS |= operations_releases.OPERATIONS
Vector = dict[str, Any]


def check_all(only: str | None = None) -> list[str]:
    """The names ("file: name") of the vectors that do not come out as recorded; `only` is a part of names to look at.

    Never raises for what a rule does: a rule that breaks in an unforeseen way has failed its vector.
    """
    return [name for name, difference in find_differences(only) if difference]


def find_differences(only: str | None = None) -> Iterator[tuple[str, str]]:
    """Every vector's name with how its outcome differs from the recorded one; empty if it does not."""
    forget_cached()
    world = load(WORLD)["state"]
    for name, vector in list_vectors():
        if only is None or only in name:
            yield name, describe_difference(world, vector)


def list_vectors() -> list[tuple[str, Vector]]:
    """All vectors of all files, by name."""
    paths = sorted(path for path in DATA.glob("*.json") if path != WORLD)
    return [(f"{path.stem}: {vector['name']}", vector) for path in paths for vector in load(path)["vectors"]]


@functools.cache
def load(path: Path) -> dict[str, Any]:
    """The content of a file of vectors, read once, with what is written only once in it put back in its places."""
    content: dict[str, Any] = json.loads(path.read_text())
    repeated = content.get("repeated", [])
    return {name: _put_back(value, repeated) for name, value in content.items()}


def _put_back(value: Any, repeated: list[str]) -> Any:
    if isinstance(value, dict):
        return {name: _put_back(item, repeated) for name, item in value.items()}
    if isinstance(value, list):
        return [_put_back(item, repeated) for item in value]
    return repeated[int(value[1:])] if isinstance(value, str) and value.startswith("=") else value


def describe_difference(world: state_form.Flat, vector: Vector) -> str:
    """How a vector's outcome differs from what is recorded, on one line; empty if it is the same."""
    try:
        found = run(world, vector)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if found == vector["outcome"] else f"expected {vector['outcome']}, found {found}"


def run(world: state_form.Flat, vector: Vector) -> dict[str, Any]:
    """Carry a vector out, and give its outcome in the form in which outcomes are recorded."""
    flat, before = build_before(world, vector)
    given = packing.unpack(vector["input"])
    try:
        outcome = OPERATIONS[vector["operation"]](before, given)
    except errors.InvalidMessage as error:
        return {"error": error.code}
    except (errors.ConfigError, errors.ModelMismatch, ValueError) as error:
        return {"error": type(error).__name__}
    recorded: dict[str, Any] = {}
    for name, value in outcome.items():
        if name == "after":
            recorded["after"] = state_form.find_changes(flat, state_form.flatten(value))
        else:
            recorded[name] = packing.pack(value)
    return recorded


def build_before(world: state_form.Flat, vector: Vector) -> tuple[state_form.Flat, Any]:
    """The state before, flat and as a ChainState; an empty table and None if the vector needs none."""
    if "before" not in vector:
        return {}, None
    flat = state_form.apply_changes(world, vector["before"])
    if "fill" in vector:
        flat = state_form.fill(flat, vector["fill"])
    return flat, state_form.unflatten(flat)


def forget_cached() -> None:
    """Clear every function cache of the protocol: otherwise a value of the true rule could stand in its place."""
    for name, module in list(sys.modules.items()):
        if name.startswith("flchain"):
            for value in list(vars(module).values()):
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()
