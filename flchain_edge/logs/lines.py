"""Parse log lines: the inverse of `flchain_edge.logs.setup`. Pure."""

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
    """A parsed line of `LineFormatter`; `text` is the line as it came."""

    text: str
    level: int
    fields: dict[str, str]


def parse_line(text: str) -> LogLine | None:
    """Parse a line. Return None for one that is not ours, such as a runtime's output. Never raise."""
    found = _LINE.search(text)
    if found is None:
        return None
    fields = {}
    for name, value in _FIELD.findall(found["rest"]):
        try:
            fields[name] = str(literal_eval(value)) if value[:1] in "'\"" else value
        except (ValueError, SyntaxError):  # text that only looks like a field
            fields[name] = value
    return LogLine(text, int(logging.getLevelName(found["level"])), fields)  # of a name it gives the number
