"""The files of a database. A damaged one is moved aside, never deleted, and never while a program has it open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from flchain.base.errors import ConfigError

SIDE_FILES = ("-wal", "-shm")
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
"""The bytes of the file that every open SQLite connection in WAL mode keeps a shared lock on (os_unix.c)."""


def refuse_if_open(path: Path) -> None:
    """Raise ConfigError if another process has this database open, or the file cannot be written."""
    try:
        if is_open(path):
            raise ConfigError((f"database {path}: another program has it open; stop that one first",))
    except OSError as error:
        raise ConfigError((f"database {path}: {error.strerror or error}",)) from error


def is_open(path: Path) -> bool:
    """Return whether another process has this database open. Raise OSError if it cannot be opened for writing."""
    if not path.exists():
        return False
    with path.open("r+b") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except BlockingIOError:
            return True
    return False


def move_aside(path: Path) -> Path:
    """Rename a database with its write-ahead log to `NAME.damaged-<n>`, n the first that is free; return the new name.

    The database goes last: an interrupted move that is begun again puts all files under the same number.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in (*SIDE_FILES, ""):
        if (file := Path(f"{path}{suffix}")).exists():
            file.rename(f"{aside}{suffix}")
    sync_folder(path.parent)
    return aside


def remove_database(path: Path) -> None:
    """Delete a database that this program was only building, and the files beside it."""
    for suffix in (*SIDE_FILES, ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
