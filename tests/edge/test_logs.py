"""Log lines: one each, with key=value, and nothing a peer sends can break out of its line."""

from __future__ import annotations

import logging

import pytest

from flchain_edge.logs import LineFormatter, setup_logging


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
