"""A Debian root that is booted: systemd as PID 1, in a container with a network of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from tests.machines.cgroups import make_groups
from tests.machines.chroot import ENVIRONMENT, run_checked
from tools.images.programs import find_program

BOOT_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
POWEROFF = signal.SIGRTMIN + 4
"""What tells systemd as PID 1 to power off."""
UP = ("running", "degraded")
POLL_S = 0.2


class Machine:
    """One container. `boot` again after `power_off` or `cut_power`: the folder is its disk."""

    def __init__(self, folder: Path, log: Path, groups: list[Path], options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._log = log
        self._groups = groups
        self._options = options
        self._name = f"flchain-{uuid.uuid4().hex[:8]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._console: IO[bytes] | None = None
        self._leader = 0

    def boot(self) -> float:
        """Start it and wait until all units are up (or have failed); the seconds it took."""
        assert self._process is None, "it runs"
        begin = time.monotonic()
        is_scoped = Path("/run/systemd/system").exists()  # then the machine's systemd gives it a scope
        alone = () if is_scoped else ("--keep-unit",)
        command = (
            find_program("systemd-nspawn") or "systemd-nspawn", "--quiet", "--directory", str(self.folder), "--boot",
            "--console=pipe", "--private-network", "--register=no", *alone, "--machine", self._name,
            "--resolv-conf=off", "--timezone=off", *self._options,
        )  # fmt: skip
        # systemd 256 and newer know version 2 of control groups only.
        env = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1" if self._needs_unified() else "0"}
        if is_scoped:
            env.pop("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY")
        self._console = self._log.open("ab")
        enter = 'for group in $1; do echo $$ > "$group/cgroup.procs"; done; shift; exec "$@"'
        self._process = subprocess.Popen(
            ("sh", "-c", enter, "sh", " ".join(map(str, self._groups)), *command),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
        )
        self.until(lambda: self._find_leader() != 0, "PID 1", BOOT_TIMEOUT_S)
        self.until(lambda: self.get_state() in UP, "all units to be up", BOOT_TIMEOUT_S)
        return time.monotonic() - begin

    def _needs_unified(self) -> bool:
        release = (self.folder / "etc" / "os-release").read_text()
        return "VERSION_CODENAME=bookworm" not in release

    def _find_leader(self) -> int:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the container has ended:\n{self.read_console()[-4000:]}")
        ahead = [self._process.pid]
        while ahead:
            pid = ahead.pop()
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
            if len(ids) > 1 and ids[-1] == "1":
                self._leader = pid
                return pid
            ahead += map(int, children)
        return 0

    @property
    def leader(self) -> int:
        """The number of its PID 1, as this machine counts."""
        assert self._leader, "it does not run"
        return self._leader

    def get_state(self) -> str:
        """Return what systemd says of the whole machine, "" if it does not answer yet."""
        done = self.run("systemctl", "is-system-running", check=False)
        return done.stdout.strip()

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: str = "root",
        check: bool = True,
        text: str | None = None,
        timeout_s: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end, as root or as `user`; with `check`, fail with all that it said."""
        assert self._leader, "it does not run"
        as_user = () if user == "root" else ("runuser", "-u", user, "--")
        settings = {**ENVIRONMENT, **(env or {})}
        inside = ("env", "-i", *(f"{name}={value}" for name, value in settings.items()), *as_user, *command)
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        return run_checked(
            ("nsenter", "--target", str(self._leader), *spaces, *inside), check=check, text=text, timeout_s=timeout_s
        )

    def shell(self, script: str, **options: object) -> str:
        """Run lines of shell, stopping at the first that fails; what they said."""
        return self.run("bash", "-euo", "pipefail", "-c", script, **options).stdout  # type: ignore[arg-type]

    def until(self, is_so: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
        """Wait for a condition; without it in time, fail with the console and the journal's end."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_s:g} s for {what}\n{self.read_journal()[-6000:]}")
            time.sleep(POLL_S)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, for instance ActiveState."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def read_journal(self, *arguments: str) -> str:
        """Return the journal, or the console where there is none to ask."""
        if not self._leader:
            return self.read_console()
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", *arguments, check=False).stdout

    def read_console(self) -> str:
        """Return what it has written to its console, over all boots."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def power_off(self) -> None:
        """Shut it down in order."""
        if self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, POWEROFF)
        self._wait()

    def cut_power(self) -> None:
        """End everything inside at once."""
        if self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
        self._wait()

    def _wait(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                for pid in (self._leader, self._process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid or self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._console is not None:
            self._console.close()
        self._process, self._console, self._leader = None, None, 0


@contextlib.contextmanager
def booted(folder: Path, log: Path, *options: str) -> Iterator[Machine]:
    """A running container on a root; it is gone at the end, with its groups."""
    with make_groups(f"flchain-{uuid.uuid4().hex[:8]}") as groups:
        machine = Machine(folder, log, groups, options)
        try:
            machine.boot()
            yield machine
        finally:
            machine.power_off()
