"""Small named changes of the rules, each of which the recorded vectors must notice on their own.

A table of our own and not a mutation tester from the package index: those in good health (mutmut, cosmic-ray) change
whatever their operators match, and cannot be given a list of changes with names and claims, least of all one that
changes a writer and its reader together.
"""

from __future__ import annotations

from tests.mutants import (
    rows_blocks,
    rows_frames,
    rows_kept,
    rows_light,
    rows_orders,
    rows_releases,
    rows_rounds,
    rows_stake,
    rows_state,
)
from tests.mutants.table import Mutant, join

MUTANTS = join(
    *(rows_rounds.ROWS, rows_stake.ROWS, rows_orders.ROWS, rows_blocks.ROWS, rows_kept.ROWS, rows_state.ROWS),
    *(rows_light.ROWS, rows_releases.ROWS, rows_frames.ROWS),
)
"""By name."""
ALWAYS = (
    "both steps of reputations are halved",
    "minted and burned are swapped in their leaf",
    "by-samples pays nothing",
)
"""Changes that once passed every test."""
PART = 12


def choose_part() -> list[Mutant]:
    """The mutants that run in the ordinary tests: those of ALWAYS, and others evenly spread over the table."""
    others = [name for name in MUTANTS if name not in ALWAYS]
    wanted = PART - len(ALWAYS)
    spread = [others[i * len(others) // wanted] for i in range(wanted)]
    return [MUTANTS[name] for name in (*ALWAYS, *spread)]
