"""Read sysfs and proc: small files that vanish, refuse and lie. What cannot be read is None, and is logged once."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 4_096
"""A sysfs attribute is one page at most."""
FAULTS_MAX = 256
"""Most different faults that are logged; later ones are unmeasured as well, but silent."""
_AWAY = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENODATA, errno.EAGAIN})
"""How a sensor reports that it has no value now: unplugged, or its part of the chip is switched off."""

ReadFile = Callable[[Path], bytes]
ROOT_VARIABLE = "FLCHAIN_BOARD_ROOT"
"""Names a folder with `sys` and `proc` of a board that is laid out for a test. No operator needs it."""


@dataclass(frozen=True)
class BoardRoots:
    """Where the kernel shows the board."""

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")


def read_board_roots(environ: Mapping[str, str] | None = None) -> BoardRoots:
    """Return the kernel's own folders, or those of the board that ROOT_VARIABLE names."""
    root = (os.environ if environ is None else environ).get(ROOT_VARIABLE)
    return BoardRoots(Path(root) / "sys", Path(root) / "proc") if root else BoardRoots()


def read_file(path: Path) -> bytes:
    """Read at most FILE_BYTES_MAX bytes by bare system calls: buffered text reading turns EAGAIN into a TypeError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


class SensorFiles:
    """The sysfs and proc of a board, at any place. Each fault is logged once, as long as it stays the same."""

    def __init__(self, roots: BoardRoots, read: ReadFile = read_file) -> None:
        self.sysfs = roots.sysfs
        self.proc = roots.proc
        self._read = read
        self.faults: dict[Path, str] = {}

    def find(self, pattern: str) -> list[Path]:
        """Return the paths below sysfs that match, in order; folders that cannot be listed have none."""
        try:
            return sorted(self.sysfs.glob(pattern))
        except OSError:
            return []

    def read_text(self, path: Path, *, is_optional: bool = False) -> str | None:
        """Return the stripped text, None if there is none. An optional file may be missing silently."""
        try:
            text = self._read(path).decode("ascii", "replace").strip(" \t\r\n\0")
        except OSError as error:
            if not (is_optional and error.errno in _AWAY):
                self.tell(path, error.strerror or str(error))
            return None
        if not text:
            self.tell(path, "is empty")
            return None
        return text

    def read_int(self, path: Path, *, is_optional: bool = False, base: int = 10) -> int | None:
        """Return the number in a file, None if there is none."""
        text = self.read_text(path, is_optional=is_optional)
        if text is None:
            return None
        try:
            return int(text, base)
        except ValueError:
            self.tell(path, f"is not a number: {text[:40]!r}")
            return None

    def read_unsigned(self, path: Path, *, is_optional: bool = False) -> int | None:
        """Return a number that cannot be negative; a driver that gives an error code as its value does not measure."""
        value = self.read_int(path, is_optional=is_optional)
        if value is not None and value < 0:
            self.tell(path, f"is negative: {value}")
            return None
        return value

    def read_lines(self, path: Path, *, is_optional: bool = False) -> Iterator[tuple[str, str]]:
        """Yield (name, value) of a file of NAME=value lines."""
        for line in (self.read_text(path, is_optional=is_optional) or "").splitlines():
            name, equals, value = line.partition("=")
            if equals:
                yield name, value

    def tell(self, path: Path, fault: str) -> None:
        """Log a fault that is new."""
        if self.faults.get(path) == fault or (path not in self.faults and len(self.faults) >= FAULTS_MAX):
            return
        self.faults[path] = fault
        log.warning("a sensor is unmeasured", extra={"file": str(path), "cause": fault})
