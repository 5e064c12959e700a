"""Root's keeper: it installs, judges, goes back, and survives a power cut at every moment."""

from __future__ import annotations

import ast
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.edge.update import keeper
from agent.edge.update.keeper import Journal, Step, Task, plan, read_journal, read_spoken
from tests.support.updates.world import NEW, OLD, PowerCut, World, cutting

BOOTS = 8
"""More than any update needs."""


def settle(world: World) -> None:
    """Boot until nothing is left to do."""
    for _ in range(BOOTS):
        world.boot()
        if read_journal(world.root) is None and not world.reboot_asked:
            return
    raise AssertionError("never comes to an end")


def test_a_good_version_stays(tmp_path: Path) -> None:
    """It is installed while nothing runs, speaks, and is kept as the way back of the next update."""
    world = World(tmp_path, speaking=(OLD, NEW))
    world.begin()
    assert world.run_keeper() == 0
    assert (world.installed, world.runs, read_journal(world.root)) == (NEW, NEW, None)
    assert world.read_state() == {
        "state": "done",
        "version": "0.2.0",
        "sequence": 7,
        "detail": "",
        "bad_versions": [],
    }
    assert (world.root / keeper.CURRENT_DEB).read_text() == NEW
    assert (world.root / keeper.OLD_DEB).read_text() == OLD


def test_a_silent_version_goes_back_and_is_remembered(tmp_path: Path) -> None:
    """Within its time it says nothing: the version before runs again, and the reason is told."""
    world = World(tmp_path, speaking=(OLD,))
    world.begin(window_s=90)
    assert world.run_keeper() == 0
    assert (world.installed, world.runs, read_journal(world.root)) == (OLD, OLD, None)
    assert world.waited_s == 90
    state = world.read_state()
    assert (state["state"], state["bad_versions"]) == ("rolled_back", ["0.2.0"])
    assert state["detail"] == "no word in a round within 90 s"


def test_a_version_that_does_not_start_need_not_wait(tmp_path: Path) -> None:
    """Where systemd has given up on the agent, the way back begins at once."""
    world = World(tmp_path, speaking=(OLD,))
    world.failed = (NEW,)
    world.begin(window_s=86_400)
    world.run_keeper()
    assert (world.installed, world.runs, world.waited_s) == (OLD, OLD, 0)


def test_a_word_of_another_version_does_not_count(tmp_path: Path) -> None:
    """What the version before has left lying there says nothing about the new one."""
    world = World(tmp_path, speaking=(OLD,))
    (world.agent / keeper.SPOKEN).write_text("0.1.0")
    world.begin()
    world.run_keeper()
    assert world.installed == OLD


def test_a_full_disk_says_nothing_against_a_version(tmp_path: Path) -> None:
    """dpkg has no room: the version before stays, the word is clear, and the version may be tried again."""
    world = World(tmp_path, speaking=(OLD, NEW))
    world.dpkg_says = [(1, "dpkg: error processing archive: cannot copy: No space left on device")]
    world.begin()
    assert world.run_keeper() == 0
    assert (world.installed, world.runs) == (OLD, OLD)
    state = world.read_state()
    assert (state["state"], state["bad_versions"]) == ("refused", [])
    assert "No space left on device" in str(state["detail"])


def test_a_way_back_that_fails_is_tried_again_at_each_boot(tmp_path: Path) -> None:
    """While dpkg refuses, the journal stays; once it works, the board is back."""
    world = World(tmp_path, speaking=(OLD,))
    world.begin()
    world.dpkg_says = [(1, "dpkg: error: broken"), (1, "dpkg: error: broken")]
    world.installed = ""
    assert world.run_keeper() == 1
    assert "stuck" in str(world.read_state()["detail"])
    settle(world)
    assert (world.installed, world.runs) == (OLD, OLD)


def test_on_an_overlay_each_installation_ends_in_a_restart(tmp_path: Path) -> None:
    """The files below a read-only root change: what runs above them is started anew, forward and back."""
    world = World(tmp_path, speaking=(OLD,), is_overlay=True)
    world.begin()
    world.run_keeper()
    assert world.reboot_asked and not world.runs
    world.boot()
    assert world.waited_s == 60 and world.reboot_asked, "silent: back, and restarted"
    settle(world)
    assert (world.installed, world.runs) == (OLD, OLD)


@pytest.mark.parametrize("is_overlay", [False, True])
@pytest.mark.parametrize("speaking", [(OLD, NEW), (OLD,)], ids=["good", "silent"])
def test_a_power_cut_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaking: tuple[str, ...], is_overlay: bool
) -> None:
    """Whenever the power goes, and also a second time, the board comes back to a whole version that speaks."""
    moments = 0
    for cut in range(1, 200):
        folder = tmp_path / str(cut)
        folder.mkdir()
        world = World(folder, speaking, is_overlay=is_overlay)
        with cutting(world, monkeypatch):
            world.begin()
            world.ticks, world.cut_at = 0, cut
            was_cut = False
            try:
                world.run_keeper()
                if world.reboot_asked:
                    world.boot()
            except PowerCut:
                was_cut = True
                world.ticks, world.cut_at = 0, cut % 7 + 1
                try:
                    settle(world)
                except PowerCut:
                    world.cut_at = -1
                    settle(world)
            world.cut_at = -1
            settle(world)
        assert read_journal(world.root) is None
        assert world.installed in speaking and world.runs == world.installed, (cut, world.installed, world.runs)
        assert world.read_state()["state"] in ("done", "rolled_back", "waiting")
        if not was_cut:
            break
        moments += 1
    assert moments > 15, "there are many moments in an update"


def test_a_step_is_on_disk_before_it_is_taken(tmp_path: Path) -> None:
    """Every task but forgetting is written down with its step; two installations that are cut off are enough."""
    ready = Journal(Step.READY, "0.2.0", 7, OLD, 60)
    assert plan(ready, is_boot=True) == (ready, Task.FORGET)
    first, task = plan(ready, is_boot=False)
    assert (first.step, first.tries, task) == (Step.INSTALLING, 1, Task.INSTALL)
    second, task = plan(first, is_boot=True)
    assert (second.tries, task) == (2, Task.INSTALL)
    third, task = plan(second, is_boot=True)
    assert (third.step, third.reason, task) == (Step.REVERTING, "the installation was cut off 2 times", Task.REVERT)
    assert plan(third, is_boot=True) == (third, Task.REVERT)


def test_a_board_that_starts_again_and_again_goes_back() -> None:
    """Three starts under the new version without a word of it: the fourth goes back before it runs again."""
    journal, tasks = Journal(Step.CHECKING, "0.2.0", 7, OLD, 86_400), []
    for _ in range(4):
        journal, task = plan(journal, is_boot=True)
        tasks.append(task)
    assert tasks == [Task.CHECK, Task.CHECK, Task.CHECK, Task.REVERT]
    assert plan(Journal(Step.CHECKING, "0.2.0", 7, OLD, 60, boots=3), is_boot=False)[1] is Task.CHECK


def test_a_journal_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    """Garbage under its name: nothing is installed, nothing is removed."""
    world = World(tmp_path, speaking=(OLD,))
    for garbage in (b"", b"{}", b"[]", b'{"step": "flying"}', b"\xff"):
        (world.root / keeper.JOURNAL).write_bytes(garbage)
        assert world.run_keeper() == 0
        assert (world.installed, world.runs) == (OLD, "")


def test_the_agents_word_is_read_without_following_it(tmp_path: Path) -> None:
    """A link, a pipe, a folder or nothing under the name: no word, and no waiting."""
    secret = tmp_path / "secret"
    secret.write_text("0.2.0")
    folder, spoken = tmp_path / "agent", tmp_path / "agent" / keeper.SPOKEN
    folder.mkdir()
    assert read_spoken(folder) == ""
    spoken.symlink_to(secret)
    assert read_spoken(folder) == ""
    spoken.unlink()
    os.mkfifo(spoken)
    assert read_spoken(folder) == ""
    spoken.unlink()
    spoken.write_text("0.2.0\n")
    assert read_spoken(folder) == "0.2.0"
    (tmp_path / "link").symlink_to(folder)
    assert read_spoken(tmp_path / "link") == ""


def test_it_is_a_program_of_the_standard_library() -> None:
    """It imports nothing that an update replaces, and runs alone under the system's Python."""
    path = Path(keeper.__file__)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names <= set(sys.stdlib_module_names)
    done = subprocess.run([sys.executable, "-I", "-S", str(path), "--help"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_at_once_are_one(tmp_path: Path) -> None:
    """While one is at work another one says so, and ends with "not yet"."""
    keeper_main = [sys.executable, "-I", keeper.__file__, "run", "--dir", str(tmp_path), "--agent-dir", str(tmp_path)]
    lock = os.open(tmp_path / keeper.LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = subprocess.run(keeper_main, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (75, "another update is at work")
    os.close(lock)
    assert subprocess.run(keeper_main, capture_output=True, check=False).returncode == 0
