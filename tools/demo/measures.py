"""Measurements that only the demo itself can make, kept in the folder for later runs on it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

MEASURES_FILE = "measures.json"


@dataclass
class RoundMeasure:
    """One settled round: its wall-clock seconds, those of its evaluation, the accuracy (0 to 1); None if unknown."""

    seconds: float | None = None
    accuracy: float | None = None
    evaluation_seconds: float | None = None


@dataclass
class Measures:
    """The measurements of all runs in one folder."""

    rounds_wanted: int = 0
    initial_accuracy: float | None = None
    seconds: float = 0.0
    """Wall clock of all runs, each from reading the options to the last node stopped."""
    startup_seconds: float = 0.0
    """Time until every node was connected, in the newest run."""
    restarts: int = 0
    rounds: dict[int, RoundMeasure] = field(default_factory=dict)
    agent_starts: dict[str, list[int]] = field(default_factory=dict)
    """By agent: the newest round in its history at each start of its process, when its byte counters start at 0."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """By role: the largest peak of resident memory of any node."""

    def get(self, round_number: int) -> RoundMeasure:
        """Return the round's entry, which is created if there is none."""
        return self.rounds.setdefault(round_number, RoundMeasure())

    def keep_peak(self, role: str, peak_bytes: int) -> None:
        """Keep the peak if it is a role's largest."""
        self.peak_bytes[role] = max(peak_bytes, self.peak_bytes.get(role, 0))

    def save(self, out: Path) -> None:
        """Write everything; a kill at any moment leaves either the old file or the new one."""
        draft = out / f"{MEASURES_FILE}.new"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(out / MEASURES_FILE)


def load_measures(out: Path) -> Measures:
    """Return what earlier runs in the folder measured; nothing if the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads((out / MEASURES_FILE).read_text())
        rounds = {int(number): RoundMeasure(**entry) for number, entry in found.pop("rounds").items()}
        return Measures(**found, rounds=rounds)
    return Measures()
