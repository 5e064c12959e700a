"""A node's log file, for systems without a journal: bounded, and a full disk does not stop the node."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_BYTES_MAX = 8_000_000


class BoundedFile(RotatingFileHandler):
    """A log file and the one before it. A full disk is reported once on stderr, and only costs lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES_MAX, backupCount=1, encoding="utf-8", delay=True)
        self._is_told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if not self._is_told:
            self._is_told = True
            print(f"the log file {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)
