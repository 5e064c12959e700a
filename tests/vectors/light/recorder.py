"""Collect vectors of light devices, as `transitions.recorder` does those of the chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flchain.light.follow import LightState
from tests.vectors.light import check, form
from tests.vectors.transitions import packing
from tests.vectors.transitions.recorder import write_vectors
from tests.vectors.transitions.state_form import apply_changes, find_changes


class LightRecorder:
    """The vectors of one file. Refusals must come out as the builder says: a vector of the wrong error pins nothing."""

    def __init__(self, base: LightState) -> None:
        self._base = form.flatten(base)
        self.vectors: list[dict[str, Any]] = []

    def add(
        self, name: str, claim: str, operation: str, before: LightState, *, error: str | None = None, **given: Any
    ) -> LightState:
        """Run one vector and keep it; what is known after it. Raises AssertionError if not refused with `error`."""
        assert all(vector["name"] != name for vector in self.vectors), f"two vectors are named {name}"
        changes = find_changes(self._base, form.flatten(before))
        vector = {"name": name, "claim": claim, "operation": operation, "before": changes, "input": packing.pack(given)}
        # Through JSON, as the reader gets it: what it cannot hold must not be recorded.
        vector = json.loads(json.dumps(vector))
        outcome: dict[str, Any] = json.loads(json.dumps(check.run(self._base, vector)))
        assert outcome.get("error") == error, f"{name}: expected {error}, found {str(outcome)[:2000]}"
        self.vectors.append(vector | {"outcome": outcome})
        if "after" not in outcome:
            return before
        return form.unflatten(apply_changes(apply_changes(self._base, changes), outcome["after"]))

    def write(self, path: Path) -> None:
        """Write the file."""
        write_vectors(path, self.vectors)
