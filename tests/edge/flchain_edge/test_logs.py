"""Log lines: one each, with key=value, and nothing a peer sends can break out of its line."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError
from flchain_edge.logs.file import BoundedFile
from flchain_edge.logs.lines import parse_line
from flchain_edge.logs.reader import Wanted, read_file, read_journal, run_logs
from flchain_edge.logs.setup import LineFormatter, setup_logging
from flchain_edge.process.log_actions import build_log_action
from flchain_edge.settings.node import KeySettings, LogSettings, NodeSettings


@pytest.fixture
def root_kept():
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = kept


def test_line_has_level_logger_and_fields(root_kept: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Level, logger, message and what was added stand on one line of stderr; below the level nothing is said."""
    setup_logging("info", journal=False)
    logging.getLogger("a.b").info("round %d settled", 3, extra={"height": 7, "head": b"\x01\xff", "who": "a b"})
    logging.getLogger("a.b").debug("unheard")
    assert capsys.readouterr().err == "INFO a.b: round 3 settled height=7 head=01ff who='a b'\n"


def test_journal_gets_priorities(
    root_kept: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under systemd each line starts with the priority that journald reads."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    setup_logging("DEBUG")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("x").log(level, "m")
    assert [line[:3] for line in capsys.readouterr().err.splitlines()] == ["<7>", "<6>", "<4>", "<3>", "<2>"]


def test_peers_text_stays_in_its_line(root_kept: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Line feeds and terminal codes in messages, fields and tracebacks are escaped."""
    setup_logging("info", journal=False)
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        logging.getLogger("x").exception("bad\nINFO x: forged \x1b[2J", extra={"topic": "a\nb"})
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert "ValueError" in said


def test_times_are_utc() -> None:
    """With times a line starts with the instant in UTC, to the millisecond."""
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "levelno": 20, "msg": "m", "created": 0.0625})
    assert LineFormatter(priorities=False, times=True).format(record) == "1970-01-01T00:00:00.062Z INFO x: m"


def test_lines_are_taken_apart_again() -> None:
    """Whatever a field holds, what was formatted is read back; a foreign line is not taken for ours."""
    values = {"round": 7, "text": "a b", "quote": 'it\'s "so"', "path": Path("/a=b"), "empty": "", "raw": b"\x01"}
    record = logging.makeLogRecord({"name": "agent.x", "levelname": "WARNING", "levelno": 30, "msg": "m: n", **values})
    for priorities, times in ((False, False), (True, True), (False, True)):
        line = parse_line(LineFormatter(priorities=priorities, times=times).format(record))
        assert line is not None and line.level == logging.WARNING
        assert line.fields == {**{key: str(value) for key, value in values.items()}, "raw": "01"}
    assert parse_line("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.") is None
    assert parse_line("") is None and parse_line("\x00=\\x='") is None


def call(settings: NodeSettings, *arguments: str, systemd: Path) -> None:
    parser = argparse.ArgumentParser()
    build_log_action("x.service").add_arguments(parser)
    run_logs(settings, parser.parse_args(arguments), "x.service", systemd)


def test_a_log_file_is_bounded_read_and_filtered(
    tmp_path: Path, root_kept: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file and the one before it, the newest N of what is wanted; nothing to read is said."""
    monkeypatch.setattr("flchain_edge.logs.file.FILE_BYTES_MAX", 20_000)
    key = KeySettings(tmp_path / "k")
    node = NodeSettings(tmp_path, tmp_path, tmp_path, tmp_path, key, log=LogSettings("info", tmp_path / "node.log"))
    with pytest.raises(ConfigError, match="no such file"):
        call(node, systemd=tmp_path / "none")
    setup_logging("info", journal=False, file=node.log.file)
    for number in range(600):
        logging.getLogger("a").log(30 if number % 10 == 0 else 20, "said", extra={"round": number // 100, "n": number})
    capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.log", "node.log.1"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 40_000
    call(node, "-n", "3", systemd=tmp_path / "none")
    assert [line.rpartition("n=")[2] for line in capsys.readouterr().out.splitlines()] == ["597", "598", "599"]
    call(node, "--level", "warning", "--round", "5", "-n", "100", systemd=tmp_path / "none")
    assert [line.rpartition("n=")[2] for line in capsys.readouterr().out.splitlines()] == [
        str(n) for n in range(500, 600, 10)
    ]
    call(node, "--field", "n=555", systemd=tmp_path / "none")
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(ConfigError, match="kept nowhere"):
        call(replace(node, log=LogSettings()), systemd=tmp_path / "none")


def test_a_log_file_is_followed_over_its_rotation(tmp_path: Path) -> None:
    """What is said after the reader has begun comes, also from the file that takes the place of a full one."""
    path = tmp_path / "node.log"
    path.write_text("INFO a: one\n")
    lines = read_file(path, 5, Wanted(), follow=True)
    assert next(lines) == "INFO a: one"
    with path.open("a") as stream:
        stream.write("INFO a: two\nINFO a: th")
    assert next(lines) == "INFO a: two"
    with path.open("a") as stream:
        stream.write("ree\n")
    assert next(lines) == "INFO a: three"
    path.rename(tmp_path / "node.log.1")
    path.write_text("INFO a: four\n")
    assert next(lines) == "INFO a: four"
    del lines


def test_a_full_disk_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log file that cannot be written costs its lines and one line on stderr."""
    handler = BoundedFile(tmp_path / "gone" / "node.log")
    for number in range(3):
        handler.handle(logging.makeLogRecord({"msg": "m", "levelno": 20, "n": number}))
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_the_journal_is_asked_by_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are read newest first until enough wanted ones are found, and then printed in order."""
    script = tmp_path / "journalctl"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nfor n in 9 8 7 6; do echo "INFO a: m round=$n"; echo noise; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = list(read_journal("x.service", 2, Wanted(logging.INFO), follow=False))
    assert told == ["INFO a: m round=8", "INFO a: m round=9"]
    assert "--unit=x.service" in (tmp_path / "asked").read_text() and "--reverse" in (tmp_path / "asked").read_text()
