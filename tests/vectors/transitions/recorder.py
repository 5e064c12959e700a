"""Collect vectors while a builder states its claims, and write them down with what the rules make of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flchain.ledger.state import ChainState
from tests.vectors.transitions import check, packing, state_form

REPEATED_MIN = 100
"""Texts of at least so many characters are written only once in a file."""


class Recorder:
    """The vectors of one file. Refusals must come out as the builder says: a vector of the wrong error pins nothing."""

    def __init__(self, world: ChainState) -> None:
        self._world = state_form.flatten(world)
        self.vectors: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        claim: str,
        operation: str,
        before: ChainState | None = None,
        *,
        error: str | None = None,
        fill: dict[str, int] | None = None,
        **given: Any,
    ) -> dict[str, Any]:
        """Run one vector and keep it; its outcome. Raises AssertionError if it is not refused with the code `error`."""
        assert all(vector["name"] != name for vector in self.vectors), f"two vectors are named {name}"
        vector: dict[str, Any] = {"name": name, "claim": claim, "operation": operation}
        if before is not None:
            vector["before"] = state_form.find_changes(self._world, state_form.flatten(before))
        if fill:
            vector["fill"] = fill
        vector["input"] = packing.pack(given)
        # Through JSON, as the reader gets it: what it cannot hold must not be recorded.
        vector = json.loads(json.dumps(vector))
        outcome: dict[str, Any] = json.loads(json.dumps(check.run(self._world, vector)))
        assert outcome.get("error") == error, f"{name}: expected {error}, found {str(outcome)[:2000]}"
        self.vectors.append(vector | {"outcome": outcome})
        return outcome

    def write(self, path: Path) -> None:
        """Write the file."""
        write_vectors(path, self.vectors)


def write_vectors(path: Path, vectors: list[dict[str, Any]]) -> None:
    """Write a file of vectors. Long texts that come again are written once, and referred to by number."""
    counts = Counter(_list_texts(vectors))
    repeated = [text for text, count in counts.items() if count > 1]
    places = {text: f"={i}" for i, text in enumerate(repeated)}
    listed = ",\n".join(dump(_refer(vector, places)) for vector in vectors)
    texts = ",\n".join(json.dumps(text) for text in repeated)
    path.write_text(f'{{"repeated": [\n{texts}\n],\n"vectors": [\n{listed}\n]}}\n')


def _list_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= REPEATED_MIN:
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _list_texts(item)


def _refer(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _refer(item, places) for name, item in value.items()}
    if isinstance(value, list):
        return [_refer(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value


def dump(value: Any, depth: int = 0) -> str:
    """JSON with one line for each entry of an object, and lists on one line, so that differences can be read."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, separators=(",", ":"))
    space = " " * (depth + 1)
    lines = (f"{space}{json.dumps(name)}: {dump(item, depth + 1)}" for name, item in value.items())
    return "{\n" + ",\n".join(lines) + "\n" + space[1:] + "}"
