"""The end of every benchmark: JSON for `--json`, files and plots in `--out`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_output(
    arguments: argparse.Namespace,
    results: dict[str, Any],
    file: str,
    *,
    plot: Callable[[Path], None] | None = None,
    listed: list[Any] | None = None,
) -> int:
    """With `--json`, print `listed` or otherwise the results; with `--out`, write the results to `file`, and plot.

    Call it after the tables are printed: a full disk must not lose what took minutes to measure. Raises OSError.
    """
    if arguments.json:
        print(json.dumps(results if listed is None else listed), flush=True)
    if arguments.out is not None:
        (arguments.out / file).write_text(json.dumps(results, indent=2) + "\n")
        if plot is not None:
            plot(arguments.out)
    return 0
