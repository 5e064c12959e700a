"""Read numbers from strangers' JSON: a path for each channel, texts that stand for classes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from agent.sensing.samples import InvalidReading

PATH_STEPS_MAX = 8
DOCUMENT_BYTES_MAX = 64 * 1024
NO_VALUE = math.nan

_STEP = re.compile(r"([^.\[\]]+)|\[(\d{1,6})\]")


def parse_path(text: str) -> tuple[str | int, ...]:
    """Return "a.b[0].c" as ("a", "b", 0, "c"); "" is the whole document. Raises ValueError for anything else."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        if text[position] == "." and 0 < position < len(text) - 1:
            position += 1
        match = _STEP.match(text, position)
        if match is None or len(steps) == PATH_STEPS_MAX:
            raise ValueError(f"{text!r} is not a path: write a.b[0].c, at most {PATH_STEPS_MAX} steps")
        steps.append(match[1] if match[1] is not None else int(match[2]))
        position = match.end()
    return tuple(steps)


def read_json(raw: bytes | str) -> Any:
    """Return the document. Raises InvalidReading for anything but JSON of at most DOCUMENT_BYTES_MAX."""
    if len(raw) > DOCUMENT_BYTES_MAX:
        raise InvalidReading(f"JSON of {len(raw)} bytes, at most {DOCUMENT_BYTES_MAX}")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidReading(f"not JSON: {error}") from error


def follow(document: Any, path: Sequence[str | int]) -> Any:
    """Return the value at `path`, or None if there is none. A name made of digits also indexes a list."""
    for step in path:
        if isinstance(document, dict) and isinstance(step, str):
            document = document.get(step)
        elif isinstance(document, list):
            index = int(step) if isinstance(step, int) or (step.isascii() and step.isdigit() and len(step) < 7) else -1
            document = document[index] if 0 <= index < len(document) else None
        else:
            return None
    return document


def to_number(value: Any, texts: Sequence[str] = ()) -> float | None:
    """Return a finite float, or None if the value is not a number.

    A text among `texts` becomes its index there (classes by name); any other text is then NO_VALUE, "no label".
    """
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if texts:
            return float(texts.index(text)) if text in texts else NO_VALUE
        value = _parse_float(text)
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def _parse_float(text: str) -> float | None:
    try:
        return float(text) if len(text) <= 40 and "_" not in text else None
    except ValueError:
        return None
