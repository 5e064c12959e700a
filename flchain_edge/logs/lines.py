"""Log lines taken apart again: the inverse of `flchain_edge.logs.setup`. Pure."""

from __future__ import annotations

import logging
import re
from ast import literal_eval
from dataclasses import dataclass

_LINE = re.compile(
    r"^(?:<\d>)?(?:\S+Z )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) (?P<logger>[\w.]+): (?P<rest>.*)$"
)
_FIELD = re.compile(r"(?:^| )(\w+)=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S*)")


@dataclass(frozen=True)
class LogLine:
    """What `LineFormatter` has written, taken apart again; `text` is the line as it came."""

    text: str
    level: int
    fields: dict[str, str]


def parse_line(text: str) -> LogLine | None:
    """None for a line that is not one of ours, such as a runtime's own words. Does not raise, whatever comes."""
    found = _LINE.search(text)
    if found is None:
        return None
    fields = {}
    for name, value in _FIELD.findall(found["rest"]):
        try:
            fields[name] = str(literal_eval(value)) if value[:1] in "'\"" else value
        except (ValueError, SyntaxError):  # somebody's text that only looks like a field
            fields[name] = value
    return LogLine(text, logging.getLevelNamesMapping()[found["level"]], fields)
