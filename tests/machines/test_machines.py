"""Roots, chroots and containers do what the other tests in this folder build on."""

from __future__ import annotations

import pytest

from tests.machines.conftest import Boot, MakeRoot


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_a_root_runs_commands_and_boots(new_root: MakeRoot, boot: Boot, release: str) -> None:
    """A root resolves its own name, boots under its own systemd, keeps its disk over a power cut, and ends."""
    root = new_root(release, name="board")
    assert "127.0.0.1" in root.run("getent", "ahostsv4", "localhost").stdout
    assert root.run("sh", "-c", "exit 3", check=False).returncode == 3
    machine = boot(root)
    assert machine.run("cat", "/proc/1/comm").stdout.strip() == "systemd"
    assert machine.shell("hostname").strip() == "board"
    assert "state UNKNOWN" in machine.shell("ip link show lo") and "eth0" not in machine.shell("ip link")
    machine.shell("echo kept > /var/lib/note; sync")
    machine.cut_power()
    machine.boot()
    assert machine.shell("cat /var/lib/note").strip() == "kept"
    with pytest.raises(AssertionError, match="exit code 1"):
        machine.shell("false; echo not reached")


@pytest.mark.timeout(1800)
def test_an_arm64_root_runs_here(new_root: MakeRoot) -> None:
    """Programs of another architecture run in their root, under an emulator that is new enough."""
    root = new_root("bookworm", "arm64")
    assert root.run("uname", "-m").stdout.strip() == "aarch64"
    assert root.run("python3", "-c", "import platform; print(platform.machine())").stdout.strip() == "aarch64"
