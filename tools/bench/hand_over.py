"""How every benchmark ends: JSON to who asked for it, files and plots to `--out`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def hand_over(
    arguments: argparse.Namespace,
    results: dict[str, Any],
    file: str,
    *,
    draw: Callable[[Path], None] | None = None,
    listed: list[Any] | None = None,
) -> int:
    """Print `listed`, or else the results, with `--json`; then write the results to `file`, and draw, in `--out`.

    Tables are printed before: a disk that is full must not cost what took minutes to measure. Raises OSError.
    """
    if arguments.json:
        print(json.dumps(results if listed is None else listed), flush=True)
    if arguments.out is not None:
        (arguments.out / file).write_text(json.dumps(results, indent=2) + "\n")
        if draw is not None:
            draw(arguments.out)
    return 0
