"""A board as root's keeper sees it: what is installed, whether it speaks, and a power cut at any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.edge.update import keeper
from agent.edge.update.keeper import Journal, Keeper, Step, System

OLD, NEW = "0.1.0+deb12", "0.2.0+deb12"
HALF = ""
"""What is installed while dpkg is at work."""


class PowerCut(BaseException):
    """Nothing that comes after it happens, no handler and no clean-up of ours."""


class World(System):
    """The machine. Packages are files that hold their version; a version speaks if it is in `speaking`."""

    def __init__(self, folder: Path, speaking: tuple[str, ...], *, is_overlay: bool = False) -> None:
        super().__init__()
        self.root, self.agent = folder / "root", folder / "agent"
        for place in (self.root, self.agent):
            place.mkdir()
        self.installed, self.speaking, self.overlay = OLD, speaking, is_overlay
        self.runs = ""
        self.failed: tuple[str, ...] = ()
        """The version of the agent that runs, and the versions that do not even start."""
        self.dpkg_says: list[tuple[int, str]] = []
        self.check_asked = self.reboot_asked = False
        self.ticks, self.cut_at, self.waited_s = 0, -1, 0.0
        self.sleep = self._sleep
        (self.root / keeper.OLD_DEB).write_text(OLD)
        (self.root / keeper.NEW_DEB).write_text(NEW)

    def tick(self) -> None:
        """A moment at which the power may go."""
        self.ticks += 1
        if self.ticks == self.cut_at:
            raise PowerCut

    def _sleep(self, seconds: float) -> None:
        self.tick()
        self.waited_s += seconds

    def is_overlay(self) -> bool:
        return self.overlay

    def install(self, deb: Path) -> tuple[int, str]:
        self.tick()
        if self.dpkg_says:
            return self.dpkg_says.pop(0)
        wanted = deb.read_text()
        assert not self.runs, "its files would change under a running program"
        self.installed = HALF
        self.tick()
        self.installed = wanted
        self.tick()
        return 0, ""

    def read_installed(self) -> str:
        return self.installed

    def stop_agent(self) -> None:
        self.tick()
        self.runs = ""

    def start_agent(self) -> None:
        self.tick()
        self.runs = self.installed if self.installed not in self.failed else ""
        if self.runs in self.speaking:
            (self.agent / keeper.SPOKEN).write_text(self.runs.partition("+")[0])

    def has_agent_failed(self) -> bool:
        return self.installed in self.failed

    def start_check(self) -> None:
        self.check_asked = True

    def reboot(self) -> None:
        self.reboot_asked = True

    def boot(self) -> None:
        """What systemd does: the keeper first, then the agent, then the check if it is asked for."""
        self.runs, self.check_asked, self.reboot_asked = "", False, False
        Keeper(self.root, self.agent, self).run(is_boot=True)
        if self.reboot_asked:
            return
        self.start_agent()
        if self.check_asked:
            self.run_keeper()

    def run_keeper(self) -> int:
        return Keeper(self.root, self.agent, self).run(is_boot=False)

    def begin(self, window_s: int = 60) -> None:
        """Lay down what root has verified."""
        journal = Journal(Step.READY, "0.2.0", 7, OLD, window_s)
        keeper.write_state(self.root, "installing", journal, "")
        keeper.write_journal(self.root, journal)

    def read_state(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.root / keeper.STATE).read_bytes())
        return found


@contextmanager
def cutting(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each durable write be two moments: before it, and after it."""
    write, sync = keeper.replace_file, keeper.sync_folder

    def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
        world.tick()
        write(path, data, mode)
        world.tick()

    def sync_folder(folder: Path) -> None:
        world.tick()
        sync(folder)

    with monkeypatch.context() as patch:
        patch.setattr(keeper, "replace_file", replace_file)
        patch.setattr(keeper, "sync_folder", sync_folder)
        yield
