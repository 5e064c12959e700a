"""A board in the field and the commands of its operator: status, doctor and logs against real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.commands.status_view import read_history
from agent.edge.cpu.control import count_cores
from agent.edge.store.status_file import STATUS_FILE
from agent.status.values import AgentStatus
from flchain_edge.process.command_line import EXIT_UNREAD
from tests.support.networks.board import ROOT, SCHEDULER, BoardNetwork, board_network

pytestmark = pytest.mark.timeout(240)

NOT_RUNNING = 3


def levels(findings: list[dict[str, str]]) -> set[str]:
    return {finding["level"] for finding in findings}


def test_a_board_is_looked_after(tmp_path: Path) -> None:
    """Training is held while memory is low, goes on with its work, is slowed by heat, and the commands say so."""
    with board_network(tmp_path) as network:
        network.lay_out(f"{SCHEDULER}memory_floor_mb = 100\n", epochs=400)
        done = network.call("agent", "status")
        assert done.returncode == NOT_RUNNING and "it was never started" in done.stdout
        network.start("miner", "agent")
        now = network.until(_is_training, "training")
        asked = now.scheduler.asked.train
        assert asked == pytest.approx(1 / count_cores(), abs=0.01), "all that its one thread can use"
        _check_held_and_resumed(network)
        network.until_round(1)
        _check_slowed(network)
        _check_commands(network)


def _is_training(now: AgentStatus) -> bool:
    return bool(now.training.steps_done and now.scheduler.asked.train)


def _check_held_and_resumed(network: BoardNetwork) -> None:
    network.set_free_memory(20)
    held = network.until(lambda now: now.is_held, "low memory to hold the training")
    assert "memory is low" in held.scheduler.explanation and held.scheduler.asked.train == 0
    before = held.training.core_s
    later = network.until(lambda now: now.up_s > held.up_s + 2, "two more looks")
    assert later.training.core_s - before < 0.2, "it stands still"
    assert later.round == held.round and "held" in network.call("agent", "status").stdout
    network.set_free_memory(1_000)
    goes_on = network.until(lambda now: not now.is_held, "training to go on")
    assert goes_on.training.core_s >= before or goes_on.round > held.round, "its work is kept"
    network.until(lambda now: now.model_round >= held.round, "the held round's end")
    said = network.call("agent", "logs", "--round", str(held.round), "--level", "info").stdout
    order = [said.index(text) for text in ("training is held", "training goes on", "trained")]
    assert order == sorted(order), said
    assert "accepted=True" in said, "the update that was held counts"


def _check_slowed(network: BoardNetwork) -> None:
    """At 72 C, one degree below rest, a sixth of the CPU is left."""
    network.set_temperature(72)
    now = network.until(lambda now: "heat, 72 C" in now.scheduler.explanation, "heat to be heeded")
    assert now.scheduler.asked.train <= 0.16
    network.set_temperature(41)


def _check_commands(network: BoardNetwork) -> None:
    done = network.call("agent", "status")
    assert done.returncode == 0 and done.stdout.startswith("The agent RUNS")
    for line in ("round  ", "model  ", "broker  ", "outbox  ", "scheduler  ", "CPU  ", "board  ", "earned  "):
        assert re.search(rf"^  {line}", done.stdout, re.MULTILINE), f"{line}\n{done.stdout}"
    assert max(map(len, done.stdout.splitlines())) < 200
    told = json.loads(network.call("agent", "status", "--json").stdout)
    assert told["history"]["rounds"][-1]["is_accepted"] and told["now"]["link"]["is_connected"]
    assert told["history"]["rounds"][-1]["training_j"] > 0
    shown = network.settings.data_dir / STATUS_FILE
    assert shown.is_symlink() and shown.resolve().parent == network.out / "run", "nothing of it is written to the card"
    code, found = network.diagnose()
    assert code == 0 and levels(found["publish"]) == {"OK"}, found
    assert "receipt" in found["publish"][0]["reason"]
    assert network.until(lambda now: True, "a status").link.connections == 1, "doctor has not thrown the agent out"
    code, found = network.diagnose("miner")
    assert code == 0 and levels(found["ledger"]) == {"OK"} == levels(found["miner"])
    said = network.call("agent", "logs", "-n", "3").stdout.splitlines()
    assert len(said) == 3


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardNetwork]:
    """After a first round the agent was stopped; the miner runs on."""
    with board_network(tmp_path_factory.mktemp("stopped")) as network:
        network.lay_out()
        network.start("miner", "agent")
        network.until_round(1)
        assert network.stop("agent") == 0
        yield network


def test_a_stopped_agent(stopped: BoardNetwork) -> None:
    """Status says that it does not run and since when, and how it stood; doctor logs in itself and gets an answer."""
    done = stopped.call("agent", "status")
    assert done.returncode == NOT_RUNNING and "was stopped at 2" in done.stdout and "UTC" in done.stdout
    assert "model" in done.stdout and "  yes  " in done.stdout
    before = _snapshot_files(stopped.settings.data_dir)
    code, found = stopped.diagnose()
    assert code == 0, found
    assert [row["level"] for row in found["publish"]] == ["OK", "OK"] and "answered" in found["publish"][1]["reason"]
    assert _snapshot_files(stopped.settings.data_dir) == before, "doctor changes nothing"


def _snapshot_files(folder: Path) -> dict[str, bytes]:
    """What is in the files; a reader's index beside a database holds nothing."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


def test_a_killed_agent(stopped: BoardNetwork) -> None:
    """After kill -9 status says that it was killed, and doctor that it does not run."""
    stopped.start("agent")
    stopped.until(lambda now: now.link.is_connected, "the agent to be back")
    stopped.stop("agent", signal.SIGKILL)
    done = stopped.call("agent", "status")
    assert done.returncode == NOT_RUNNING and "it was killed, or lost power" in done.stdout
    _, found = stopped.diagnose()
    assert levels(found["agent"]) == {"WARN"}


def test_a_damaged_database(stopped: BoardNetwork) -> None:
    """Status still says what it can and names doctor; doctor fails and names resync."""
    path = stopped.settings.data_dir / "agent.db"
    whole, log = path.read_bytes(), path.with_name("agent.db-wal")
    kept = log.read_bytes() if log.exists() else b""
    try:
        path.write_bytes(b"not a database " * 1000)
        log.unlink(missing_ok=True)
        done = stopped.call("agent", "status")
        assert done.returncode == NOT_RUNNING and "cannot be read" in done.stdout and "doctor" in done.stdout
        code, found = stopped.diagnose()
        assert code == 1 and levels(found["database"]) == {"FAIL"} and "resync" in found["database"][0]["advice"]
    finally:
        path.write_bytes(whole)
        log.write_bytes(kept)


def test_wrong_files(stopped: BoardNetwork) -> None:
    """A key that others may read and examples that are gone: each fails, with its reason, and what needs them."""
    config = stopped.agent_config
    key, examples = config.parent / "key.pem", config.parent / "examples.npz"
    key.chmod(0o644)
    examples.rename(examples.with_suffix(".away"))
    try:
        code, found = stopped.diagnose()
    finally:
        key.chmod(0o600)
        examples.with_suffix(".away").rename(examples)
    assert code == 1
    assert "chmod 600" in found["key"][0]["reason"] and "No such file" in found["data"][0]["reason"]
    assert {name for name, rows in found.items() if "FAIL" in levels(rows)} == {"key", "data", "publish"}


def test_a_full_disk(stopped: BoardNetwork, tmp_path: Path) -> None:
    """On a disk without room status and doctor still answer, and doctor says what it is."""
    mount = tmp_path / "disk"
    mount.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small file system")
    try:
        data = stopped.settings.data_dir
        for name in ("agent.db", "agent.db-wal", STATUS_FILE):
            if (data / name).exists():
                (mount / name).write_bytes((data / name).read_bytes())
        _fill(mount / "filler")
        environ = {**os.environ, "FLCHAIN_DATA_DIR": str(mount)}
        done = _call(stopped, "status", environ)
        assert done.returncode == NOT_RUNNING and "The agent DOES NOT RUN" in done.stdout and not done.stderr
        done = _call(stopped, "doctor", environ)
        assert done.returncode == 1 and "FAIL  disk" in done.stdout and "free some space" in done.stdout
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass


def _call(network: BoardNetwork, command: str, environ: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "agent.cli", command, "--config", str(network.agent_config)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environ, timeout=120)


def test_a_dead_broker(stopped: BoardNetwork) -> None:
    """Last, as it kills the broker: status says for how long it is gone, doctor fails for broker and publishing."""
    stopped.start("agent")
    stopped.until(lambda now: now.link.is_connected, "the agent to be back")
    stopped.broker.stop()
    stopped.until(lambda now: not now.link.is_connected, "the broker to be missed")
    done = stopped.call("agent", "status")
    assert done.returncode == 0 and re.search(r"NOT CONNECTED for \d+ s; trying 127\.0\.0\.1:\d+: ", done.stdout)
    code, found = stopped.diagnose()
    assert code == 1 and levels(found["broker"]) == {"FAIL"} == levels(found["publish"])
    assert stopped.stop("agent") == 0


def test_nothing_keeps_the_log(stopped: BoardNetwork) -> None:
    """Without a journal and without a log file `logs` says so, and what to set."""
    config = stopped.agent_config
    text = config.read_text()
    config.write_text(re.sub(r'^file = "agent.log"$', "", text, flags=re.MULTILINE))
    try:
        done = stopped.call("agent", "logs")
    finally:
        config.write_text(text)
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here: the journal keeps it")
    assert done.returncode == 78 and "[log] file" in done.stderr and not done.stdout


def test_a_reader_that_has_seen_enough(stopped: BoardNetwork) -> None:
    """`doctor | head -1` ends without a word on stderr: each line is written as its check ends."""
    command = [sys.executable, "-m", "agent.cli", "doctor", "--config", str(stopped.agent_config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == EXIT_UNREAD


def test_status_of_a_history_of_another_life(stopped: BoardNetwork) -> None:
    """Bytes of a round are its own, also where a restart has begun the counters anew."""
    path = stopped.out / "history.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE rounds (round, is_accepted, samples, training_ms, bytes_up, bytes_down,"
                   " energy_mj, training_mj, energy_source)")  # fmt: skip
        db.execute("CREATE TABLE outbox (digest)")
        db.execute("CREATE TABLE position (header)")
        for number, up in ((1, 100), (2, 250), (3, 80), (4, 200)):
            db.execute("INSERT INTO rounds VALUES (?, 1, 5, 900, ?, 7, 2500, 900, 1)", (number, up))
    rounds = read_history(path, 3).rounds
    assert [(row.round, row.bytes_up) for row in rounds] == [(2, 150), (3, 80), (4, 120)]
    assert rounds[0].energy_j == 2.5 and rounds[0].energy_source == "estimated"
