"""Collect vectors while a builder states its claims, and write them down with what the rules make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flchain.ledger.state import ChainState
from tests.vectors.transitions import check, packing, state_form


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
        listed = ",\n".join(dump(vector) for vector in self.vectors)
        path.write_text(f'{{"vectors": [\n{listed}\n]}}\n')


def dump(value: Any, depth: int = 0) -> str:
    """JSON with one line for each entry of an object, and lists on one line, so that differences can be read."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, separators=(",", ":"))
    space = " " * (depth + 1)
    lines = (f"{space}{json.dumps(name)}: {dump(item, depth + 1)}" for name, item in value.items())
    return "{\n" + ",\n".join(lines) + "\n" + space[1:] + "}"
