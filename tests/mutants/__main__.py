"""Change the rules in small ways, one at a time, and check that the recorded vectors alone notice each change.

    python -m tests.mutants              all of them, two at a time
    python -m tests.mutants --only leaf  those with "leaf" in their names
    python -m tests.mutants --part       the few that the ordinary tests run
    python -m tests.mutants --list       what there is

Ends with an error if a change survives, if one does not fit the source any more, or if the vectors fail without any.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping

from tests.mutants.mutants import MUTANTS, choose_part
from tests.mutants.runner import Outcome, run_all
from tests.mutants.table import Mutant, StaleRow


def main(arguments: list[str], mutants: Mapping[str, Mutant] = MUTANTS) -> int:
    """The exit status: 0 if every mutant was caught, 1 if one was not, 2 if a row does not fit the source."""
    parser = argparse.ArgumentParser("python -m tests.mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="TEXT", help="run those whose names contain this text")
    parser.add_argument("--part", action="store_true", help="run the few that the ordinary tests run")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="list names, files and claims, and run nothing")
    options = parser.parse_args(arguments)
    chosen = choose_part() if options.part else list(mutants.values())
    chosen = [mutant for mutant in chosen if options.only is None or options.only in mutant.name]
    if not chosen:
        parser.error(f"no mutant has {options.only!r} in its name")
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name}: {mutant.edits[0].room}: {mutant.claim}")
        return 0
    width = max(len(mutant.name) for mutant in chosen)

    def tell(outcome: Outcome) -> None:
        verdict = outcome.broken or outcome.caught_by or "no vector fails"
        mark = "ok" if outcome.is_as_wanted else "FAILED"
        print(f"{mark:6} {outcome.name:{width}} {outcome.seconds:5.1f} s  {verdict}", flush=True)

    begun = time.monotonic()
    try:
        outcomes = run_all(chosen, max(1, options.jobs), tell)
    except StaleRow as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = [outcome for outcome in outcomes if not outcome.is_as_wanted]
    print(f"{len(outcomes) - 1} mutants in {time.monotonic() - begun:.0f} s, {len(failed)} not as wanted")
    for outcome in failed:
        print(f"error: {outcome.name}: {outcome.broken or 'survives'}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
