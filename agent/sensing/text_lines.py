"""Lines from a serial port: cut from the bytes as they arrive, then read as comma-separated values or JSON."""

from __future__ import annotations

from collections.abc import Sequence

from agent.sensing.samples import InvalidReading

LINE_BYTES_MAX = 1024
"""Longest line; NMEA 0183 allows 82. A longer one is dropped whole and counted."""
COLUMNS_MAX = 256


class LineSplitter:
    """Bytes in, whole lines out; never keeps more than LINE_BYTES_MAX."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_too_long = False
        self.dropped = 0
        """Counts lines that were too long."""

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that `chunk` completes, without line ends and without empty ones.

        Bytes that are not UTF-8 become U+FFFD: a checksum or a parser then refuses only that line.
        """
        *ended, rest = (self._rest + chunk).replace(b"\r", b"\n").split(b"\n")
        lines = []
        for line in ended:
            if self._is_too_long or len(line) > LINE_BYTES_MAX:
                self.dropped += 1
            elif line:
                lines.append(line.decode("utf-8", errors="replace"))
            self._is_too_long = False
        if len(rest) > LINE_BYTES_MAX:
            rest, self._is_too_long = b"", True
        self._rest = rest
        return lines


def split_columns(line: str) -> list[str]:
    """Return the columns of a line, separated by comma, semicolon or tab (the first that occurs), otherwise by spaces.

    Raises InvalidReading for more than COLUMNS_MAX.
    """
    separator = next((mark for mark in ",;\t" if mark in line), None)
    columns = [column.strip().strip('"') for column in line.split(separator)]
    if len(columns) > COLUMNS_MAX:
        raise InvalidReading(f"{len(columns)} columns, at most {COLUMNS_MAX}")
    return columns


def find_column(columns: Sequence[str], wanted: str) -> int | None:
    """Return the index that `wanted` names: a column's name in a header, or a number from 0."""
    if wanted in columns:
        return columns.index(wanted)
    return int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 4 else None
