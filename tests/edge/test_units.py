"""Every file in systemd/ is loaded by systemd's own programs: no unknown key, nothing that may do what it need not."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import build_command
from flchain_edge.process.command_line import EXIT_CONFIG
from miner.cli import COMMAND as MINER

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
EXPOSURE_MAX = 2.0
VERIFY = ("systemd-analyze", "verify", "--man=no")
"""Pages of the manual are not on every machine."""
OF_ROOT = {
    "flchain-provision.service": "/var/lib/flchain-provision 0700",
    "flchain-update.service": "/var/lib/flchain-update 0755",
    "flchain-update-install.service": "/var/lib/flchain-update 0755",
    "flchain-update-recover.service": "/var/lib/flchain-update 0755",
}
"""They change the system: everything else runs as a user of its own. By unit: its folder, and who may look into it."""
INSTALLERS = {"flchain-update-install.service": 6.5, "flchain-update-recover.service": 6.5}
"""They run dpkg, which may do anything; what it never needs is closed all the same."""
KEEPER = "/usr/bin/python3 -I -B /var/lib/flchain-update/keeper.py"
"""Of the standard library alone, under the system's own Python."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read_keys(unit: str) -> dict[str, str]:
    lines = (UNITS / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@needs_systemd
def test_every_unit_loads_without_a_word(tmp_path: Path) -> None:
    """systemd-analyze verify exits 0 even with unknown keys, so it is its stderr that must be empty."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("flchain", "flchain-agent", "flchain-miner"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    units = []
    for path in UNITS.iterdir():
        if path.is_file():
            units.append(tmp_path / path.name)
            # where a program is, systemd finds out: a package puts it elsewhere than a wheel does
            text = re.sub(r"^(Exec\w+=\+?)flchain", rf"\1{programs}/flchain", path.read_text(), flags=re.MULTILINE)
            units[-1].write_text(text)
    done = subprocess.run([*VERIFY, *map(str, units)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "flchain" in line]
    assert (ours, done.returncode) == ([], 0)
    wrong = tmp_path / "flchain-agent.service"
    wrong.write_text(wrong.read_text().replace("WatchdogSec=", "WatchDog="))
    done = subprocess.run([*VERIFY, str(wrong)], capture_output=True, text=True, check=False)
    assert "WatchDog" in done.stderr, "the check can fail"


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_can_do_little_more_than_it_must(unit: str) -> None:
    """systemd's own measure of what a taken-over process could do is at most 2.0 of 10, but for what installs."""
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found.group(1)) <= INSTALLERS.get(unit, EXPOSURE_MAX), done.stdout


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_users_and_folders_load() -> None:
    """systemd-sysusers and systemd-tmpfiles take their files; each service's user is there and owns its folder."""
    users = "".join(path.read_text() for path in sorted((UNITS / "sysusers.d").iterdir()))
    folders = "".join(path.read_text() for path in sorted((UNITS / "tmpfiles.d").iterdir()))
    command = ["systemd-sysusers", "--dry-run", "--inline", *[line for line in users.splitlines() if line[:1] in "um"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("Ignoring")) == (0, 0), done.stderr
    for unit in SERVICES:
        if unit in OF_ROOT:
            folder, mode = OF_ROOT[unit].split()
            assert re.search(rf"^d {folder}\s+{mode} root\s", folders, re.MULTILINE)
            continue
        user = read_keys(unit)["User"]
        assert f"u {user} " in users
        assert re.search(rf"^d /var/lib/{user}\s+0700 {user}\s", folders, re.MULTILINE)


@pytest.mark.parametrize("unit", SERVICES)
def test_units_and_programs_agree(unit: str) -> None:
    """The commands that units start exist, and a configuration error is what systemd does not restart on."""
    keys = read_keys(unit)
    if keys["ExecStart"].startswith(KEEPER):
        assert keys["ExecStart"].removeprefix(KEEPER).strip() in ("run", "recover") and keys["Type"] == "oneshot"
        return
    program, action = keys["ExecStart"].split()[:2]
    known = {
        "flchain-agent": {"run", *(extra.name for extra in build_command().actions)},
        "flchain-miner": {"run", *(extra.name for extra in MINER.actions)},
        "flchain": {"registrar"},
    }
    assert action in known[program]
    assert keys["RestartPreventExitStatus"] == str(EXIT_CONFIG)
    assert keys["Type"] in ("notify", "oneshot")
    assert ("WatchdogSec" in keys) == (action == "run"), "a node's watchdog"
