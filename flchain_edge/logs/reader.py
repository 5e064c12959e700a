"""Read a node's log from the journal or from its log file, and filter it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain_edge.logs.lines import LogLine, parse_line
from flchain_edge.settings.node import NodeSettings

SYSTEMD_RUNS = Path("/run/systemd/system")
POLL_S = 0.5


@dataclass(frozen=True)
class Wanted:
    """Which lines to show. A line that is not ours is shown only without any filter."""

    level: int = logging.DEBUG
    fields: dict[str, str] = field(default_factory=dict)

    def has(self, line: LogLine | None) -> bool:
        """Return whether to show a line."""
        if line is None:
            return self.level <= logging.DEBUG and not self.fields
        return line.level >= self.level and all(line.fields.get(name) == value for name, value in self.fields.items())

    def filter(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the wanted lines, without line ends."""
        for raw in lines:
            text = raw.rstrip("\n")
            if self.has(parse_line(text)):
                yield text


def run_logs(settings: NodeSettings, arguments: argparse.Namespace, unit: str, systemd: Path = SYSTEMD_RUNS) -> None:
    """Print the wanted lines. Raise ConfigError if the node's log is kept nowhere."""
    fields = dict(arguments.field) | ({} if arguments.round is None else {"round": str(arguments.round)})
    wanted = Wanted(getattr(logging, arguments.level.upper()), fields)
    with contextlib.suppress(KeyboardInterrupt):
        for text in _choose_source(settings, unit, systemd, arguments.lines, arguments.follow, wanted=wanted):
            print(text, flush=True)


def _choose_source(
    settings: NodeSettings, unit: str, systemd: Path, count: int, follow: bool, *, wanted: Wanted
) -> Iterator[str]:
    file = settings.log.file
    if file is not None and (file.exists() or not systemd.is_dir()):
        if not file.exists():
            raise ConfigError((f"[log] file {file}: no such file; the node has logged nothing yet",))
        return read_file(file, count, wanted, follow=follow)
    if systemd.is_dir() and shutil.which("journalctl"):
        return read_journal(unit, count, wanted, follow=follow)
    raise ConfigError(
        (
            "logs: this node's log is kept nowhere: there is no systemd journal here, and [log] file is not set; "
            "it goes to stderr only; who started the node knows where that went (flchain demo: log.txt in its folder)",
        )
    )


def read_journal(unit: str, count: int, wanted: Wanted, *, follow: bool) -> Iterator[str]:
    """Yield the newest `count` wanted lines, then new ones as they come."""
    command = ("journalctl", "--no-pager", "--quiet", "--output=cat", f"--unit={unit}")
    newest: deque[str] = deque()
    if count:
        with subprocess.Popen((*command, "--reverse"), stdout=subprocess.PIPE, text=True, errors="replace") as process:
            assert process.stdout is not None
            for text in wanted.filter(process.stdout):
                newest.appendleft(text)
                if len(newest) >= count:
                    break
            process.kill()
    yield from newest
    if follow:
        yield from _follow_journal((*command, "--follow", "--lines=0"), wanted)


def _follow_journal(command: tuple[str, ...], wanted: Wanted) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            assert process.stdout is not None
            yield from wanted.filter(process.stdout)
        finally:
            process.kill()


def read_file(path: Path, count: int, wanted: Wanted, *, follow: bool) -> Iterator[str]:
    """Yield the newest `count` wanted lines of the file and the one before it; then new ones, across its rotation."""
    newest: deque[str] = deque(maxlen=count)
    with contextlib.suppress(FileNotFoundError), Path(f"{path}.1").open(encoding="utf-8", errors="replace") as older:
        newest.extend(wanted.filter(older))
    stream = path.open(encoding="utf-8", errors="replace")
    try:
        newest.extend(wanted.filter(stream))
        yield from newest
        rest = ""
        while follow:
            chunk = stream.read()
            if not chunk:
                time.sleep(POLL_S)
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_ino != os.fstat(stream.fileno()).st_ino:
                        stream.close()
                        stream = path.open(encoding="utf-8", errors="replace")
                continue
            *whole, rest = (rest + chunk).split("\n")
            yield from wanted.filter(whole)
    finally:
        stream.close()
