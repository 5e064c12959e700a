"""`python -m tests.house`: the checks that keep the house in order, of this checkout or of another (`--root`)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from tests.house.counts import MEANINGS, count, format_table
from tests.house.dead import find_dead
from tests.house.imports import explain_step, find_file_circles, find_folder_circles, read_graph
from tests.house.tree import read_checkout

HERE = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str]) -> int:
    """Run one check; exit code 1 if it found something, 2 if the checkout cannot be read."""
    arguments = _build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (OSError, LookupError, SyntaxError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    checks = parser.add_subparsers(required=True)
    figures = "\n".join(f"  {name:<17}{meaning}" for name, meaning in MEANINGS.items())
    counts = checks.add_parser(
        "counts",
        help="print sizes, circles, exceptions",
        description="Count. The product is every top-level folder with an __init__.py but tests/.",
        epilog=f"What is counted:\n{figures}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    counts.add_argument("--against", type=Path, metavar="DIR", help="an older checkout, shown in a column before")
    counts.add_argument("--json", action="store_true", help="for programs: one JSON object, by checkout")
    counts.set_defaults(run=_run_counts)
    circles = checks.add_parser(
        "circles",
        help="fail if files or folders import each other",
        description="Fail if product files import each other in a circle, or the members of a folder do (a member is "
        "a file, or a folder with all below it). Imports in functions and under TYPE_CHECKING count.",
    )
    circles.set_defaults(run=_run_circles)
    dead = checks.add_parser(
        "dead",
        help="fail if something is declared that no product code uses",
        description="Fail if the product declares what no product code uses; use by tests alone does not count.",
    )
    dead.set_defaults(run=_run_dead)
    for check in (counts, circles, dead):
        check.add_argument("--root", type=Path, default=HERE, metavar="DIR", help="the checkout (default: this one)")
    return parser


def _run_counts(arguments: argparse.Namespace) -> int:
    roots = [root for root in (arguments.against, arguments.root) if root is not None]
    titles = ["old", "new"] if arguments.against else ["now"]
    counted = {title: count(root) for title, root in zip(titles, roots, strict=True)}
    if arguments.json:
        print(json.dumps({title: asdict(counts) for title, counts in counted.items()}, indent=2))
    else:
        print("\n".join(format_table(counted)))
    return 0


def _run_circles(arguments: argparse.Namespace) -> int:
    checkout = read_checkout(arguments.root)
    graph = read_graph(arguments.root, checkout.packages)
    circles = [("files", path) for path in find_file_circles(graph)]
    circles += [("folders", path) for path in find_folder_circles(graph)]
    for level, path in circles:
        print(f"circle of {level}: {' -> '.join(path)}")
        for one, two in pairwise(path):
            print(f"  {explain_step(graph, one, two)}")
    return 1 if circles else 0


def _run_dead(arguments: argparse.Namespace) -> int:
    findings = find_dead(read_checkout(arguments.root))
    for finding in findings:
        print(f"{finding.place}: {finding.text}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
