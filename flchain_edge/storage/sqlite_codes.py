"""SQLite's result codes (sqlite.org/rescode.html), which Python's sqlite3 names and hands out only since 3.11."""

from __future__ import annotations

import sqlite3
from typing import Final

PERM: Final = 3
READONLY: Final = 8
IOERR: Final = 10
CORRUPT: Final = 11
FULL: Final = 13
CANTOPEN: Final = 14
NOTADB: Final = 26
IOERR_SHMSIZE: Final = IOERR | 19 << 8
"""What a full disk gives when a database is opened, since its shared memory file cannot grow."""

_WORDS: Final = {
    "access permission denied": PERM,
    "attempt to write a readonly database": READONLY,
    "disk I/O error": IOERR,
    "database disk image is malformed": CORRUPT,
    "malformed database schema": CORRUPT,
    "database or disk is full": FULL,
    "unable to open database file": CANTOPEN,
    "file is not a database": NOTADB,
}


def get_extended_code(error: sqlite3.Error) -> int:
    """Return the code with its details, the primary code alone where Python 3.10 keeps no more, or 0."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return next((found for words, found in _WORDS.items() if str(error).startswith(words)), 0)
    return code


def get_code(error: sqlite3.Error) -> int:
    """Return the primary code, or 0 if the error is not SQLite's."""
    return get_extended_code(error) & 0xFF
