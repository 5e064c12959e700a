"""A fleet as its operator sees it: real brokers, registrar and commands; boards that do what a test says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest

from flchain.wire.fleet import Health, UpdateState
from tests.support.builders.debs import write_deb
from tests.support.networks.enrolled import enrol_all
from tests.support.networks.fleet import OLD, SimFleet, simulated_fleet
from tests.support.networks.registrar import make_registrar, run_command, serving
from tools.cli import main
from tools.fleet import link, update
from tools.network.broker import BrokerError, BrokerKind, find_program

BOARDS = 8
DEADLINE_S = 60.0
QUICK = ("--soak", "1s", "--patience", "1h")
NEW = "0.2.0"


@pytest.fixture(params=["mosquitto", "nats"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimFleet]:
    kind = cast(BrokerKind, request.param)
    try:
        find_program(kind)
    except BrokerError as missing:
        if kind == "nats":
            raise
        pytest.skip(str(missing))
    with simulated_fleet(kind, tmp_path, BOARDS) as made, made.running():
        yield made


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "TICK_S", 0.1)
    monkeypatch.setattr(link, "SETTLE_S", 0.5)
    monkeypatch.setattr(link, "SHARE_S", 0.2)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


TRANCHES = ("--tranches", "25,62.5,100")
"""Two boards, three more, and the others."""


def list_boards(fleet: SimFleet, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    capsys.readouterr()
    code = main(fleet.run("list", "--json"))
    return code, {str(row["address"]): row for row in json.loads(capsys.readouterr().out)}


def read_status(fleet: SimFleet, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(fleet.run("status", "--json"))
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.timeout(180)
def test_a_good_version_reaches_all_boards(fleet: SimFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three tranches one after the other, each board fetches its package once; list and status tell it."""
    code, rows = list_boards(fleet, capsys)
    assert code == 0 and len(rows) == BOARDS and {row["version"] for row in rows.values()} == {OLD}
    write_deb(tmp_path / "debs", NEW)
    assert main(fleet.run("update", str(tmp_path / "debs"), *TRANCHES, *QUICK)) == 0
    said = capsys.readouterr().out
    assert "0.2.0 to 8 boards" in said and "bringing flchain-agent_0.2.0+deb12_arm64.deb" in said
    assert said.index("tranche 1 of 3") < said.index("tranche 2 of 3") < said.index("tranche 3 of 3")
    assert "0.2.0: done" in said
    assert all(board.fetched == [NEW] for board in fleet.boards)
    code, rows = list_boards(fleet, capsys)
    assert code == 0 and {row["version"] for row in rows.values()} == {NEW}
    code, status = read_status(fleet, capsys)
    assert (code, status["stage"], status["tranche"]) == (0, "done", 3)
    assert {board["outcome"] for board in status["boards"]} == {"updated"}
    assert [board["tranche"] for board in status["boards"]].count(2) == 3
    assert main(fleet.run("update", NEW)) == 0, "the same again is done again, with the options that it had"
    assert main(fleet.run("update", "0.1.9")) == 78
    assert "boards go only forward" in capsys.readouterr().err


@pytest.mark.timeout(180)
def test_a_sick_tranche_halts_the_rollout_by_itself(
    fleet: SimFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second tranche's boards go back: halted, no board of the third begins, then or later; a new version may."""
    bad = {board.index for board in fleet.boards[2:5]}
    for board in fleet.boards:
        board.takes = lambda one, version: (
            UpdateState.ROLLED_BACK if one.index in bad and version == NEW else UpdateState.DONE
        )
    write_deb(tmp_path / "debs", NEW)
    command = fleet.run("update", str(tmp_path / "debs"), *TRANCHES, *QUICK)
    assert main(command) == 3
    said = capsys.readouterr().out
    assert "HALTED in tranche 2 of 3" in said and "boards of this tranche have failed" in said
    assert main(command) == 78
    assert "--again" in capsys.readouterr().err
    code, status = read_status(fleet, capsys)
    assert (code, status["stage"]) == (3, "halted")
    fetched = [len(board.fetched) for board in fleet.boards]
    assert fetched[:2] == [1, 1] and sum(fetched[2:5]) >= 1 and fetched[5:] == [0, 0, 0]
    code, rows = list_boards(fleet, capsys)
    assert code == 3 and any(row["health"] == "update_failed" for row in rows.values())
    write_deb(tmp_path / "mended", "0.2.1")
    assert main(fleet.run("update", str(tmp_path / "mended"), *QUICK)) == 0
    assert all(board.word.version == "0.2.1" for board in fleet.boards)


class Running:
    """`flchain fleet update` in a process of its own, which a test may kill."""

    def __init__(self, fleet: SimFleet, *arguments: str) -> None:
        self.lines: list[str] = []
        command = [sys.executable, "-m", "tools.cli", *fleet.run("update", *arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def has_said(self, text: str) -> bool:
        assert self.process.poll() is None or text in "".join(self.lines), "".join(self.lines)
        return text in "".join(self.lines)

    def end(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self._reading.join()
        return code


@pytest.mark.timeout(240)
def test_a_rollout_outlives_the_command_that_drives_it(
    fleet: SimFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C and kill -9 leave it at its tranche; the same command continues; what was lost of the folder is found."""
    write_deb(tmp_path / "debs", NEW)
    slow = (str(tmp_path / "debs"), *TRANCHES, "--soak", "30m")
    running = Running(fleet, *slow)
    until(lambda: running.has_said("2 updated"), "the first tranche")
    code, rows = list_boards(fleet, capsys)  # beside the one that is connected
    assert code == 0 and sorted(row["version"] for row in rows.values()) == [OLD] * 6 + [NEW] * 2
    assert running.end(signal.SIGINT) == 130
    assert "stays at tranche 1 of 3" in running.lines[-1] and "flchain fleet halt" in running.lines[-1]
    running = Running(fleet, *slow)
    until(lambda: running.has_said("2 updated"), "it goes on")
    running.end(signal.SIGKILL)
    assert [len(board.fetched) for board in fleet.boards] == [1, 1, 0, 0, 0, 0, 0, 0]
    (fleet.operator / "rollout.json").unlink()
    assert main(fleet.run("update", NEW, *TRANCHES, *QUICK)) == 0
    assert [len(board.fetched) for board in fleet.boards] == [1] * BOARDS
    capsys.readouterr()


@pytest.mark.timeout(240)
def test_an_operator_halts_a_rollout(fleet: SimFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command that drives it, or without one; with --again it goes on."""
    assert main(fleet.run("halt")) == 0
    assert "nothing to halt" in capsys.readouterr().out
    write_deb(tmp_path / "debs", NEW)
    slow = (str(tmp_path / "debs"), *TRANCHES, "--soak", "30m")
    running = Running(fleet, *slow)
    until(lambda: running.has_said("2 updated"), "the first tranche")
    assert main(fleet.run("halt")) == 0
    assert "HALTED in tranche 1 of 3" in capsys.readouterr().out
    assert running.end() == 3
    again = Running(fleet, *slow, "--again")
    until(lambda: again.has_said("2 updated"), "it goes on")
    again.end(signal.SIGKILL)
    assert main(fleet.run("halt")) == 0
    assert "halted by the operator" in capsys.readouterr().out
    code, status = read_status(fleet, capsys)
    assert (code, status["stage"], status["tranche"]) == (3, "halted", 1)
    assert [len(board.fetched) for board in fleet.boards] == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.timeout(240)
def test_real_boards_are_seen_with_their_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two agents, two miners, real processes: the list has their software, their rounds and their health."""
    registrar = make_registrar(tmp_path / "registrar")
    with registrar.start_broker("nats", tmp_path / "broker") as broker:
        settings = registrar.folder / "registrar.toml"
        settings.write_text(settings.read_text().replace(":8883", f":{broker.port}"))
        operator = tmp_path / "operator"
        with serving(registrar):
            network = enrol_all(registrar, tmp_path, 2, 2)
            run_command("fleet", "key", "--dir", str(operator), "--token", registrar.make_token("operator"))
        registrar.render_broker("nats", tmp_path / "broker", broker.port)
        broker.reload()
        for index, agent in enumerate(network.agents):
            named = f'[board]\nname = "board-{index}"\nlabels = ["roof"]\n'
            agent.config.write_text(f"{agent.config.read_text()}\n{named}")
        command = ["fleet", "list", "--json", "--dir", str(operator)]
        with network.running():
            network.start(*network.nodes)
            network.until_settled(2)
            rows: list[dict[str, Any]] = []

            def have_all_trained() -> bool:
                capsys.readouterr()
                main(command)
                rows[:] = json.loads(capsys.readouterr().out)
                return all(row.get("round", 0) >= 1 for row in rows)

            until(have_all_trained, "a word after a round of each")
        assert [row["name"] for row in rows] == ["board-0", "board-1"]
        for row in rows:
            assert (row["task"], row["health"], row["standing"]) == ("field", "ok", "well"), row
            assert row["version"] == metadata.version("flchain") and row["labels"] == ["roof"]
            assert row["age_s"] < DEADLINE_S and row["architecture"]


@pytest.mark.timeout(120)
def test_a_fleet_with_trouble_is_told(fleet: SimFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """A sick board stands first with its reason; labels choose; a revoked one is left out; exit code 3, then 0."""
    sick = fleet.boards[3]
    fleet.tell(sick, health=Health.SENSOR_FAILED, reason="gps has failed: unplugged", labels=("mast",))
    assert main(fleet.run("list")) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"board-{sick.index} ") and "sensor failed" in lines[1]
    assert f"  board-{sick.index}: gps has failed: unplugged" in lines
    assert main(fleet.run("list", "--label", "roof")) == 0
    assert "7 boards: 7 well" in capsys.readouterr().out
    run_command("registrar", "revoke", "--dir", str(fleet.registrar.folder), sick.member.address)
    assert main(fleet.run("list", "--registrar", str(fleet.registrar.folder))) == 0
    assert "7 boards: 7 well" in capsys.readouterr().out
