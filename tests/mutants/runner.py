"""Run mutants, each in a process of its own, some at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.mutants.table import ROOT, Mutant, mutate

CONTROL = Mutant("(no change)", "The rules as they are pass every vector.", ())
DEADLINE_S = 120
"""A process that takes longer hangs, or the machine does: either way nothing is proved."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run: the first vector that failed, or what went wrong with the run itself."""

    name: str
    caught_by: str | None
    broken: str | None
    seconds: float

    @property
    def is_as_wanted(self) -> bool:
        """True for a mutant that a vector caught, and for a control run that none did."""
        if self.broken is not None:
            return False
        return (self.caught_by is None) == (self.name == CONTROL.name)


def run_one(mutant: Mutant) -> Outcome:
    """Put the change in place in a fresh process and run the vectors there. Raises StaleRow."""
    return run_sources(mutant.name, mutate(mutant))


def run_sources(name: str, sources: Mapping[str, str]) -> Outcome:
    """Run the vectors with these sources by file."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.mutants.child"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(sources),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(name, None, f"still running after {DEADLINE_S} s", time.monotonic() - begun)
    seconds = time.monotonic() - begun
    if done.returncode:
        # A change that does not even load, or that breaks the reader, is no mutant that a vector has caught.
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Outcome(name, None, last, seconds)
    return Outcome(name, json.loads(done.stdout), None, seconds)


def run_all(mutants: Iterable[Mutant], jobs: int, tell: Callable[[Outcome], None]) -> list[Outcome]:
    """A control run, and if that passes all mutants, `jobs` at a time; `tell` hears of each in the order of the table.

    Raises StaleRow before anything runs.
    """
    prepared = [(mutant.name, mutate(mutant)) for mutant in mutants]
    control = run_one(CONTROL)
    tell(control)
    if not control.is_as_wanted:
        return [control]
    outcomes = [control]
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda item: run_sources(*item), prepared):
            tell(outcome)
            outcomes.append(outcome)
    return outcomes
