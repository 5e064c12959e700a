"""One line per event on stderr: `LEVEL logger: message key=value`, ready for journald and for grep."""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Formats a record as one line. Fields given by `extra` are appended as key=value.

    Control characters are escaped, tracebacks included: a peer's text can neither start a line of its own nor move
    the cursor of a terminal.
    """

    def __init__(self, *, priorities: bool, times: bool) -> None:
        super().__init__()
        self._priorities = priorities
        self._times = times

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                text += f" {key}={_render(value)}"
        if record.exc_info:
            text += f" exception={self.formatException(record.exc_info)!r}"
        text = "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)
        if self._times:
            moment = datetime.fromtimestamp(record.created, timezone.utc)
            text = f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{moment.microsecond // 1000:03d}Z {text}"
        if self._priorities:
            text = f"<{_compute_priority(record.levelno)}>{text}"
        return text


def setup_logging(level: str, journal: bool | None = None, *, times: bool = False, file: Path | None = None) -> None:
    """Send the root logger to stderr. `journal` adds the priority that journald reads; None detects it.

    `times` adds UTC time, for files; journald has its own. `file` gets the same lines. Raise ValueError for an
    unknown level.
    """
    handler = logging.StreamHandler(sys.stderr)
    is_journal = "JOURNAL_STREAM" in os.environ if journal is None else journal
    handler.setFormatter(LineFormatter(priorities=is_journal, times=times))
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers[:] = [handler]
    if file is not None:
        from flchain_edge.logs.file import BoundedFile  # imported here: few nodes have one, and it costs memory

        kept = BoundedFile(file)
        kept.setFormatter(LineFormatter(priorities=False, times=True))
        root.addHandler(kept)
    # At DEBUG aiosqlite logs every statement, which buries our lines.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)


def _compute_priority(level: int) -> int:
    return next((priority for floor, priority in _PRIORITIES if level >= floor), _DEBUG_PRIORITY)


def _render(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return repr(text) if not text or any(mark.isspace() or mark in "\"'=" for mark in text) else text
