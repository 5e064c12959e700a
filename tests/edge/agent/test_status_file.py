"""Where a running agent leaves its status, and how often that costs a write to the card."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from agent.commands.status_view import build_node, read_history
from agent.edge.store import status_file
from agent.edge.store.status_file import SELDOM_S, SOON_S, YOUNG_S, StatusFile, read_status
from agent.status.values import AgentStatus
from flchain_edge.checks.checkup import Check, Level, run_check
from flchain_edge.storage.mounts import Mount
from tests.support.builders.status import build_status

DAY_S = 86_400.0


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def pretend(monkeypatch: pytest.MonkeyPatch, *in_memory: Path) -> None:
    """These folders, and what is in them, are on tmpfs, all others on a card."""

    def find_mount(path: Path) -> Mount:
        is_memory = any(path.is_relative_to(folder) for folder in in_memory)
        return Mount(Path("/"), "tmpfs" if is_memory else "ext4", "none", frozenset())

    monkeypatch.setattr(status_file, "find_mount", find_mount)


def make_folders(tmp_path: Path) -> tuple[Path, Path]:
    data, shared = tmp_path / "data", tmp_path / "shm"
    data.mkdir()
    shared.mkdir()
    return data, shared


def report(up_s: float) -> AgentStatus:
    """A report that can be told from the others."""
    return msgspec.structs.replace(build_status(), up_s=up_s)


def read_up_s(data: Path) -> float:
    """Which report readers see."""
    found = read_status(data)
    assert found is not None
    return found.status.up_s


def count_writes(file: StatusFile, data: Path, clock: Clock, span_s: float) -> int:
    """How often the file is replaced, while the agent reports every five seconds."""
    seen = set()
    end_s = clock.now_s + span_s
    while clock.now_s < end_s:
        file.write(report(clock.now_s))
        seen.add(read_up_s(data))
        clock.now_s += 5.0
    return len(seen)


def test_an_agent_started_by_hand_reports_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd each report is there at once, in a folder that only this user can use, and the card holds a link;
    at the end the card holds the last
    report and the memory nothing, not even what a killed agent has left."""
    data, shared = make_folders(tmp_path)
    pretend(monkeypatch, shared)
    file = StatusFile(data, {}, shared_memory=shared)
    for up_s in (7.0, 8.0):
        file.write(report(up_s))
        assert read_up_s(data) == up_s
    assert (data / "status.json").is_symlink()
    (own,) = shared.iterdir()
    (own / "status-of-a-killed-agent.json").touch()
    os.utime(own / "status-of-a-killed-agent.json", (1, 1))
    StatusFile(data, {}, shared_memory=shared)
    assert own.stat().st_mode & 0o777 == 0o700 and len(list(own.iterdir())) == 1
    file.close(report(9.0))
    found = read_status(data)
    assert found is not None and found.status.up_s == 9.0 and not found.writer.is_running
    assert not (data / "status.json").is_symlink() and list(own.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "file", "writable"])
def test_a_trap_in_shared_memory_is_not_used(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes this user's folder first, as a link, a file, or open to all, gets nothing written: the card is used."""
    data, shared = make_folders(tmp_path)
    pretend(monkeypatch, shared)
    trap, other = shared / f"flchain-{os.geteuid()}", tmp_path / "other"
    other.mkdir()
    if kind == "link":
        trap.symlink_to(other)
    elif kind == "file":
        trap.touch()
    else:
        trap.mkdir()
        trap.chmod(0o777)
    StatusFile(data, {}, shared_memory=shared).write(report(7.0))
    assert not (data / "status.json").is_symlink() and (data / "status.json").exists()
    assert list(other.iterdir()) == [] and (kind != "writable" or list(trap.iterdir()) == [])


def test_without_memory_the_first_minutes_are_told_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card a report is at most 15 s old in the first ten minutes, when somebody watches; a day costs 40 writes
    more than one every five minutes."""
    data, shared = make_folders(tmp_path)
    pretend(monkeypatch)
    clock = Clock()
    file = StatusFile(data, {}, read_clock_s=clock, shared_memory=shared)
    young = count_writes(file, data, clock, YOUNG_S)
    assert young == YOUNG_S / SOON_S == 40
    later = count_writes(file, data, clock, DAY_S - YOUNG_S)
    assert later <= 289 and DAY_S / SELDOM_S == 288
    assert list(shared.iterdir()) == []


def test_systemds_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a unit the file is in $RUNTIME_DIRECTORY, which systemd clears, and nowhere else."""
    data, shared = make_folders(tmp_path)
    pretend(monkeypatch, shared)
    run = tmp_path / "run"
    run.mkdir()
    StatusFile(data, {"RUNTIME_DIRECTORY": str(run)}, shared_memory=shared).write(report(7.0))
    assert (data / "status.json").resolve().parent == run and list(shared.iterdir()) == []


def test_an_agent_in_memory_needs_no_other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `data_dir` itself is in memory the file is in it, and each report is written."""
    data, shared = make_folders(tmp_path)
    pretend(monkeypatch, shared, data)
    file = StatusFile(data, {}, shared_memory=shared)
    for up_s in (7.0, 8.0):
        file.write(report(up_s))
        assert read_up_s(data) == up_s
    assert not (data / "status.json").is_symlink() and list(shared.iterdir()) == []


def test_a_folder_of_another_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not look into data_dir hears that, and not that the agent has never run; nothing is guessed."""
    data = tmp_path / "data"
    data.mkdir()

    def refuse(path: Path, *given: object, **options: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("agent.commands.status_view.os.access", lambda *_: False)
    node = build_node(None, data)
    assert node.state == "unknown" and node.since_ms is None
    monkeypatch.setattr(Path, "is_file", refuse)
    fault = read_history(data / "agent.db", 3).fault
    assert fault == f"{data / 'agent.db'}: Permission denied; are you the user that runs the agent?"
    (finding,) = run_check(Check("database", lambda: iter(refuse(data))))  # type: ignore[call-overload]
    assert (finding.reason, finding.level) == (f"{data}: Permission denied", Level.FAIL)
    assert "as the user that the node runs as" in finding.advice
