"""Install a release that root has verified, judge it, and go back if it is bad: the part that outlives the agent.

A program of the standard library alone. Root copies it out of the package before that package is replaced, and the
system's own Python runs the copy: it works while the agent's environment is half replaced, and the version that is
known to work judges the new one.

    python3 -I keeper.py run        go on where the journal stands, to the end
    python3 -I keeper.py recover    at boot, before the agent: finish or undo, and wait for nothing

The journal says what was begun; each step is on disk before it is taken, so that a power cut at any moment leaves
either nothing to do, or a step that can be taken again.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, TimeoutExpired, run

PACKAGE = "flchain-agent"
UNIT = "flchain-agent.service"
INSTALL_UNIT = "flchain-update-install.service"
JOURNAL, STATE, LOCK = "journal", "state.json", "lock"
NEW_DEB, OLD_DEB, CURRENT_DEB = "new.deb", "old.deb", "current.deb"
"""What is tried, the way back, and what proved itself: the way back of the next update."""
SPOKEN = "spoken"
"""In the agent's folder: the version that has spoken in a round. Versions to come write it for this one."""
SPOKEN_BYTES_MAX = 64
TRIES_MAX = 2
"""An installation that is cut off twice is undone."""
BOOTS_MAX = 3
"""A version under which the board starts again and again has not proved itself."""
RESTARTS_MAX = 10
"""Of the agent under the new version; a board whose agent crashes so often need not wait for the end of its time."""
POLL_S, DPKG_S_MAX = 2.0, 1_800
LOCK_WAIT_S, LOCK_WAITS_MAX = 10.0, 60
"""Another program may be installing packages: ten minutes are waited for."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENV = {"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
LOWER_ROOT = Path("/media/root-ro")
"""Of Debian's overlayroot: the file system below a root that keeps nothing."""
CHROOT_FOLDER = Path("/run/flchain-update")
"""Seen inside and outside of overlayroot-chroot."""
EXIT_BUSY = 75
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Step(str, Enum):
    """What was begun last."""

    READY = "ready"  # verified and copied, nothing is touched
    INSTALLING = "installing"
    CHECKING = "checking"  # installed, and has to prove itself
    REVERTING = "reverting"


class Task(Enum):
    """What is to be done now."""

    FORGET = "forget"
    INSTALL = "install"
    CHECK = "check"
    REVERT = "revert"


@dataclass(frozen=True)
class Journal:
    """One update, from the moment at which everything for it is in root's folder."""

    step: Step
    version: str
    sequence: int
    from_version: str
    """As dpkg has it, to see whether the way back is complete."""
    window_s: int
    tries: int = 0
    boots: int = 0
    reason: str = ""
    """Why it goes back."""
    is_bad: bool = True
    """Whether a way back says something against this version: a full disk does not."""


def plan(journal: Journal, *, is_boot: bool) -> tuple[Journal, Task]:
    """Return what to do now, and the journal that must be on disk before it is begun."""
    match journal.step:
        case Step.READY if is_boot:
            return journal, Task.FORGET  # the agent asks again, once its battery and its round allow it
        case Step.READY:
            return replace(journal, step=Step.INSTALLING, tries=1), Task.INSTALL
        case Step.INSTALLING if journal.tries >= TRIES_MAX:
            return begin_revert(journal, f"the installation was cut off {journal.tries} times"), Task.REVERT
        case Step.INSTALLING:
            return replace(journal, tries=journal.tries + 1), Task.INSTALL
        case Step.CHECKING if is_boot and journal.boots >= BOOTS_MAX:
            return begin_revert(journal, f"the board started {journal.boots} times without a word of it"), Task.REVERT
        case Step.CHECKING:
            return replace(journal, boots=journal.boots + is_boot), Task.CHECK
        case _:
            return journal, Task.REVERT


def begin_revert(journal: Journal, reason: str, *, is_bad: bool = True) -> Journal:
    """Return the journal of an update that is undone."""
    return replace(journal, step=Step.REVERTING, reason=reason[:200], is_bad=is_bad)


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step; it is on disk when this returns. Raise OSError."""
    fresh = path.with_name(f".{path.name}.fresh")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_journal(folder: Path, journal: Journal) -> None:
    """Put down what is begun. Raise OSError."""
    replace_file(folder / JOURNAL, json.dumps(asdict(journal)).encode())


def read_journal(folder: Path) -> Journal | None:
    """Return what was begun, None if nothing was. A journal that nobody can read is none: nothing is touched then."""
    try:
        fields = json.loads((folder / JOURNAL).read_bytes())
        return Journal(**{**fields, "step": Step(fields["step"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        say(f"the journal cannot be read and is left out: {error}")
        return None


def read_bad_versions(folder: Path) -> tuple[str, ...]:
    """Return the versions that this board has gone back from."""
    try:
        return tuple(str(word) for word in json.loads((folder / STATE).read_bytes())["bad_versions"])
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def write_state(folder: Path, state: str, journal: Journal, detail: str, bad: tuple[str, ...] | None = None) -> None:
    """Tell the agent, and whoever asks, how far the update is."""
    known = read_bad_versions(folder) if bad is None else bad
    content = {"state": state, "version": journal.version, "sequence": journal.sequence, "detail": detail}
    replace_file(folder / STATE, json.dumps({**content, "bad_versions": known}).encode())


def say(text: str) -> None:
    """Log a line; systemd's journal keeps it."""
    print(text, file=sys.stderr, flush=True)


class System:
    """The machine: dpkg, systemd, and the time."""

    def __init__(self, dpkg: str = "dpkg", systemctl: str = "systemctl", chroot: str = "overlayroot-chroot") -> None:
        self._dpkg, self._systemctl, self._chroot = dpkg, systemctl, chroot
        self.sleep: Callable[[float], None] = time.sleep
        self.is_stopping = False

    def stop_later(self) -> None:
        """Let a signal end this program between two steps: dpkg finishes what it has begun."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "is_stopping", True))

    def is_overlay(self) -> bool:
        """Return whether the root keeps nothing: what is installed must go to the file system below it."""
        mounts = (line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
        return ["/", "overlay"] in mounts and LOWER_ROOT.is_dir()

    def run(self, *command: str, timeout_s: float = 120.0) -> tuple[int, str]:
        """Return exit code and output of a command."""
        try:
            done = run(command, env=ENV, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, timeout=timeout_s, check=False)
        except (OSError, TimeoutExpired) as error:
            return 127, f"{command[0]}: {error}"
        return done.returncode, done.stdout.decode(errors="replace")

    def install(self, deb: Path) -> tuple[int, str]:
        """Install a package, on the root that lasts; return dpkg's exit code and output."""
        command = [self._dpkg, "--force-confdef", "--force-confold", "--force-downgrade", "--install"]
        if self.is_overlay():
            CHROOT_FOLDER.mkdir(mode=0o700, exist_ok=True)
            inside = CHROOT_FOLDER / "package.deb"
            inside.write_bytes(deb.read_bytes())
            command = [self._chroot, *command]
            deb = inside
        for _ in range(LOCK_WAITS_MAX):
            code, text = self.run(*command, str(deb), timeout_s=DPKG_S_MAX)
            if code == 0 or self.is_stopping or not re.search(r"dpkg.*lock", text):
                break
            self.sleep(LOCK_WAIT_S)
        return code, text

    def read_installed(self) -> str:
        """Return the version that is installed completely; empty if none is."""
        command = ["dpkg-query"] if self._dpkg == "dpkg" else [self._dpkg, "--query"]
        if self.is_overlay():
            command = [self._chroot, *command]
        code, text = self.run(*command, "--showformat", "${db:Status-Abbrev} ${Version}", "--show", PACKAGE)
        words = text.split()
        return words[1] if code == 0 and len(words) == 2 and words[0] == "ii" else ""

    def stop_agent(self) -> None:
        """Stop it: the files under a running program are about to change."""
        self.run(self._systemctl, "stop", UNIT)

    def start_agent(self) -> None:
        """Start it, also after it has failed."""
        self.run(self._systemctl, "daemon-reload")
        self.run(self._systemctl, "reset-failed", UNIT)
        self.run(self._systemctl, "start", "--no-block", UNIT)

    def has_agent_failed(self) -> bool:
        """Return whether systemd has given up on it, or starts it again and again."""
        if self.run(self._systemctl, "is-failed", "--quiet", UNIT)[0] == 0:
            return True
        _, text = self.run(self._systemctl, "show", "--property", "NRestarts", "--value", UNIT)
        return text.strip().isdecimal() and int(text) >= RESTARTS_MAX

    def start_check(self) -> None:
        """Let the check begin once the board is up."""
        self.run(self._systemctl, "start", "--no-block", INSTALL_UNIT)

    def reboot(self) -> None:
        """Restart the board."""
        os.sync()
        self.run(self._systemctl, "reboot")


class Keeper:
    """One run. `folder` is root's, `agent_folder` the agent's, which is not believed in anything but one word."""

    def __init__(self, folder: Path, agent_folder: Path, system: System) -> None:
        self._folder, self._agent_folder, self._system = folder, agent_folder, system

    def run(self, *, is_boot: bool) -> int:
        """Go on where the journal stands; return the exit code. Raise OSError (full disk)."""
        while not self._system.is_stopping and (journal := read_journal(self._folder)) is not None:
            journal, task = plan(journal, is_boot=is_boot)
            if task is Task.FORGET:
                say(f"version {journal.version} was not begun: left to the agent")
                write_state(self._folder, "waiting", journal, "the board was restarted before it was begun")
                self._close()
                return 0
            write_journal(self._folder, journal)
            if task is Task.CHECK and is_boot:
                self._system.start_check()
                return 0
            act = {Task.INSTALL: self._install, Task.CHECK: self._check, Task.REVERT: self._revert}[task]
            if not act(journal):
                return int(task is Task.REVERT)
        return 0

    def _install(self, journal: Journal) -> bool:
        """Install; return whether to go on at once."""
        say(f"installing version {journal.version}")
        write_state(self._folder, "installing", journal, "")
        self._system.stop_agent()
        code, text = self._system.install(self._folder / NEW_DEB)
        if code:
            last = find_cause(text)
            say(f"it could not be installed:\n{text[-2000:]}")
            is_bad = "No space left" not in text
            write_journal(self._folder, begin_revert(journal, f"dpkg: {last}", is_bad=is_bad))
            return True
        write_journal(self._folder, replace(journal, step=Step.CHECKING, boots=0))
        write_state(self._folder, "checking", journal, f"has to speak in a round within {journal.window_s} s")
        if self._system.is_overlay():
            self._system.reboot()
            return False
        self._system.start_agent()
        return True

    def _check(self, journal: Journal) -> bool:
        """Wait until the new version has spoken in a round, or its time is over; return whether to go on at once."""
        say(f"version {journal.version} has {journal.window_s} s to speak in a round")
        waited_s = 0.0
        while waited_s < journal.window_s and not self._system.is_stopping:
            if read_spoken(self._agent_folder) == journal.version:
                say(f"version {journal.version} has spoken in a round: it stays")
                write_state(self._folder, "done", journal, "")
                self._close(is_kept=True)
                return True
            if self._system.has_agent_failed():
                write_journal(self._folder, begin_revert(journal, "the agent does not start; see its log"))
                return True
            self._system.sleep(POLL_S)
            waited_s += POLL_S
        if self._system.is_stopping:
            return False  # the check begins again with the board
        write_journal(self._folder, begin_revert(journal, f"no word in a round within {journal.window_s} s"))
        return True

    def _revert(self, journal: Journal) -> bool:
        """Install the version before; return whether that is done."""
        say(f"going back to {journal.from_version}: {journal.reason}")
        if self._system.read_installed() != journal.from_version:
            self._system.stop_agent()
            code, text = self._system.install(self._folder / OLD_DEB)
            if code:
                say(f"the version before could not be installed; the next start tries again:\n{text[-2000:]}")
                write_state(self._folder, "refused", journal, f"the way back is stuck: {find_cause(text)}")
                self._system.start_agent()
                return False
        bad = read_bad_versions(self._folder)
        if journal.is_bad and journal.version not in bad:
            bad = (*bad, journal.version)
        state = "rolled_back" if journal.is_bad else "refused"
        write_state(self._folder, state, journal, journal.reason, bad)
        self._close()
        if self._system.is_overlay():
            self._system.reboot()
        else:
            self._system.start_agent()
        return True

    def _close(self, *, is_kept: bool = False) -> None:
        """End this update. What proved itself is kept, once nobody goes back from it any more."""
        (self._folder / JOURNAL).unlink(missing_ok=True)
        sync_folder(self._folder)
        if is_kept:
            os.replace(self._folder / NEW_DEB, self._folder / CURRENT_DEB)
        (self._folder / NEW_DEB).unlink(missing_ok=True)


def find_cause(text: str) -> str:
    """Return the line of dpkg's output that says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no word"]
    return next((line for line in lines if re.search(r"(?i)error|No space|cannot|fail", line)), lines[0])[:160]


def read_spoken(agent_folder: Path) -> str:
    """Return which version says that it has spoken; empty if none does. The folder is the agent's: no links."""
    try:
        folder = os.open(agent_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(SPOKEN, flags, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, SPOKEN_BYTES_MAX).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser("keeper.py", description="Install a release, judge it, and go back if it is bad.")
    parser.add_argument("task", choices=("run", "recover"), help="go on to the end, or what a boot has to do first")
    parser.add_argument("--dir", type=Path, default=Path("/var/lib/flchain-update"), help="root's folder")
    parser.add_argument("--agent-dir", type=Path, default=Path("/var/lib/flchain-agent/update"), help="the agent's")
    parser.add_argument("--dpkg", default="dpkg", help="program that installs packages")
    parser.add_argument("--systemctl", default="systemctl", help="program that starts and stops services")
    options = parser.parse_args(arguments)
    lock = os.open(options.dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another update is at work")
        return EXIT_BUSY
    system = System(options.dpkg, options.systemctl)
    system.stop_later()
    return Keeper(options.dir, options.agent_dir, system).run(is_boot=options.task == "recover")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
