"""`flchain-agent update`, as a person at the board uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli import main
from agent.edge.update import keeper
from agent.edge.update.inbox import TRUST
from agent.edge.update.trust import Trust, encode_trust
from flchain.base.types import HASH_BYTES
from tests.support.updates.debs import OPERATOR

CHAIN = bytes(range(HASH_BYTES))


def ask(folder: Path, *words: str) -> int:
    return main(["update", *words, "--dir", str(folder), "--agent-dir", str(folder / "agent")])


def test_status_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything, and after a version went back: in words, and for programs."""
    assert ask(tmp_path, "status") == 0
    assert "update     none yet" in capsys.readouterr().out
    journal = keeper.Journal(keeper.Step.REVERTING, "0.3.0", 9, "0.2.0+deb12", 900)
    keeper.write_state(tmp_path, "rolled_back", journal, "no word in a round within 900 s", ("0.3.0",))
    (tmp_path / TRUST).write_bytes(encode_trust(Trust(CHAIN, (OPERATOR.public_key,))))
    assert ask(tmp_path, "status") == 0
    said = capsys.readouterr().out
    assert "version 0.3.0 was bad: this board went back: no word in a round within 900 s" in said
    assert "bad        0.3.0: never tried again" in said
    assert f"operators  {OPERATOR.public_key.hex()[:16]}" in said
    assert ask(tmp_path, "status", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["update"]["state"] == "rolled_back" and shown["trust"]["chain"] == CHAIN.hex()
    (tmp_path / keeper.STATE).write_bytes(b'{"state": "of a version to come"}')
    assert ask(tmp_path, "status") == 0
    assert "is in a state that this version does not know" in capsys.readouterr().out


def test_roots_tasks_say_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No request, nothing begun, no version before: one line each, and the exit code of its kind."""
    assert ask(tmp_path, "recover") == 0
    assert "nothing was begun" in capsys.readouterr().out
    assert ask(tmp_path, "apply") == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert ask(tmp_path, "rollback") == 78
    said = capsys.readouterr().err
    assert "not installed as a Debian package" in said or "no package of a version before" in said
    keeper.write_journal(tmp_path, keeper.Journal(keeper.Step.CHECKING, "0.3.0", 9, "0.2.0+deb12", 900))
    assert ask(tmp_path, "rollback") == 75
    assert "an update is under way" in capsys.readouterr().err
