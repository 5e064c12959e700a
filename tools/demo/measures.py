"""What only the demo itself can measure, kept in the folder so that a later run on it still knows."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

MEASURES_FILE = "measures.json"


@dataclass
class RoundMeasure:
    """One settled round: wall-clock seconds of it and of its evaluation, and the accuracy (0..1); None if unknown."""

    seconds: float | None = None
    accuracy: float | None = None
    evaluation_seconds: float | None = None


@dataclass
class Measures:
    """Over all runs in one folder."""

    rounds_wanted: int = 0
    initial_accuracy: float | None = None
    seconds: float = 0.0
    """Wall clock of all runs, from reading the options to the last node stopped."""
    startup_seconds: float = 0.0
    """Of the newest run: until every node was connected."""
    restarts: int = 0
    rounds: dict[int, RoundMeasure] = field(default_factory=dict)
    agent_starts: dict[str, list[int]] = field(default_factory=dict)
    """By agent: the newest round in its history whenever its process started, where its byte counters began anew."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """By role: the largest peak of resident memory of any process."""

    def get(self, round_number: int) -> RoundMeasure:
        """The round's entry, made if there is none."""
        return self.rounds.setdefault(round_number, RoundMeasure())

    def keep_peak(self, role: str, peak_bytes: int) -> None:
        """Remember the larger one."""
        self.peak_bytes[role] = max(peak_bytes, self.peak_bytes.get(role, 0))

    def save(self, out: Path) -> None:
        """Write all of it, so that a kill at any moment leaves an old or a new file."""
        draft = out / f"{MEASURES_FILE}.new"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(out / MEASURES_FILE)


def load_measures(out: Path) -> Measures:
    """What earlier runs in the folder measured; nothing if there were none or the file is spoilt: it proves nothing."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads((out / MEASURES_FILE).read_text())
        rounds = {int(number): RoundMeasure(**entry) for number, entry in found.pop("rounds").items()}
        return Measures(**found, rounds=rounds)
    return Measures()
