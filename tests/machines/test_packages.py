"""The Debian packages in clean systems of both releases, under a real systemd: install, run, upgrade, remove, purge."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machines import field_network as network
from tests.machines.chroot import BUNDLE
from tests.machines.conftest import Boot, MakeRoot
from tests.machines.nspawn import Machine
from tools.images.debs.cli import REPOSITORY, Order, build_packages
from tools.images.debs.plan import Package, list_installed, read_contents
from tools.images.programs import find_program, list_missing, run_tool
from tools.images.suites import SUITES

NAMES = ("flchain-agent", "flchain-miner", "flchain-tools")
RELEASES = ("bookworm", "trixie")
NEWER = "9.9.0"
INSTALLED_MB_MAX = 120
BOARD_TIMEOUT_S = 1200
"""Compiling under emulation, on two busy cores."""

Build = Callable[..., dict[str, Path]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function: release, architecture, names, version -> the packages' files by name; each is built once."""
    if missing := list_missing(("uv", "cyclonedx-py", "dpkg-deb")):
        pytest.skip("; ".join(missing) + " (make test-debs)")
    out = tmp_path_factory.mktemp("debs")
    known: dict[tuple[str, ...], Path] = {}

    def make(
        release: str, architecture: str = "amd64", names: tuple[str, ...] = NAMES, version: str | None = None
    ) -> dict[str, Path]:
        keys = {name: (release, architecture, name, version or "") for name in names}
        if wanted := tuple(name for name in names if keys[name] not in known):
            order = Order(wanted, (release,), (architecture,), version, out, is_quick=True)
            known.update(zip((keys[name] for name in wanted), build_packages(order), strict=True))
        return {name: known[keys[name]] for name in names}

    return make


def install(machine: Machine, *debs: Path) -> str:
    """Copy packages in and install them as a person does; what apt said."""
    for deb in debs:
        shutil.copy(deb, machine.folder / "srv")
    paths = [f"/srv/{deb.name}" for deb in debs]
    begin = time.monotonic()
    said = machine.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *paths).stdout
    print(f"installed {', '.join(deb.name for deb in debs)}: {time.monotonic() - begin:.1f} s")
    return said


def hash_files(machine: Machine, *paths: str) -> str:
    return machine.run("sha256sum", *paths).stdout


def list_ours(machine: Machine) -> set[str]:
    """Everything on the disk with our name on it, without what the test itself has put there."""
    found = machine.shell("find / -xdev -name '*flchain*' -not -path '/srv/*' -not -path '/proc/*'")
    return set(found.split()) - {BUNDLE, network.BROKER_FILES}


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("release", RELEASES)
def test_services_of_a_network_live_through_upgrade_reboot_and_removal(
    new_root: MakeRoot, boot: Boot, build: Build, tmp_path: Path, release: str
) -> None:
    """The packages of a whole network install, run as services, keep data over an upgrade, and leave nothing behind."""
    current, newer = build(release), build(release, version=NEWER)
    machine: Machine = boot(new_root(release, packages=("mosquitto",), name="edge"))

    # installed, enabled, and nothing runs that nobody has configured
    install(machine, *current.values())
    for unit in ("flchain-agent", "flchain-miner", "flchain-registrar", "flchain-enroll"):
        assert machine.run("systemctl", "is-enabled", unit).stdout.strip() == "enabled"
        assert machine.show(unit, "ActiveState") == "inactive"
    assert machine.run("systemctl", "--failed", "--no-legend").stdout.strip() == ""

    # a board with a token in the credential store enrols by itself and trains
    network.set_up_registrar(machine)
    miner_token = network.make_token(machine, "miner")
    assert network.enrol(machine, "miner", miner_token) == 75
    machine.run("install", "-m", "600", "/dev/stdin", network.TOKEN_FILE, text=network.make_token(machine, "device"))
    machine.run("systemctl", "start", "flchain-enroll", check=False)
    machine.until(lambda: "genesis does not exist yet" in machine.read_journal("-u", "flchain-enroll"), "the board")
    models = machine.run("find", "/opt/flchain-tools", "-name", "cnn1d.tflite").stdout.strip()
    network.make_genesis(machine, models)
    for role, seed in (("agent", 1), ("miner", 2)):
        network.give_examples(machine, role, seed, tmp_path)
    assert network.enrol(machine, "miner", miner_token) == 0
    machine.run("systemctl", "start", "flchain-miner")
    machine.run("systemctl", "restart", "flchain-enroll")
    network.until_round(machine, 2)
    assert machine.show("flchain-agent", "ActiveState") == "active"

    # the watchdog is fed, and the doctors find nothing
    fed = machine.show("flchain-agent", "WatchdogTimestampMonotonic")
    machine.until(lambda: machine.show("flchain-agent", "WatchdogTimestampMonotonic") != fed, "a feed of the watchdog")
    for role in ("agent", "miner"):
        doctor = f"flchain-{role} doctor --config /var/lib/flchain-{role}/{role}.toml"
        done = machine.run(*doctor.split(), user=f"flchain-{role}", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "The agent RUNS"
        in machine.run(
            "flchain-agent", "status", "--config", "/var/lib/flchain-agent/agent.toml", user="flchain-agent"
        ).stdout
    )

    # an operator's change of a setting, the keys, and the rounds outlive an upgrade
    machine.shell("echo '# ours' >> /etc/flchain/boards/x86-64.toml")
    keys = ("/var/lib/flchain-agent/key.pem", "/var/lib/flchain-miner/key.pem", "/var/lib/flchain-registrar/ca-key.pem")
    before, number = hash_files(machine, *keys), network.read_round(machine)
    install(machine, *newer.values())
    shown = machine.run("dpkg-query", "-W", "-f", "${Version}\n", *NAMES).stdout.split()
    assert all(version.startswith(f"{NEWER}+") for version in shown), shown
    network.until_round(machine, number + 2)
    assert hash_files(machine, *keys) == before
    assert "# ours" in machine.run("tail", "-1", "/etc/flchain/boards/x86-64.toml").stdout
    assert machine.show("flchain-agent", "NRestarts") == "0"

    # so they do a reboot
    number = network.read_round(machine)
    machine.power_off()
    print(f"booted again: {machine.boot():.1f} s")
    network.until_round(machine, number + 1)

    # a removal keeps data and settings, and the package can come back
    machine.run("apt-get", "remove", "-y", "-q", "flchain-agent")
    assert machine.run("systemctl", "is-active", "flchain-agent", check=False).stdout.strip() != "active"
    assert hash_files(machine, *keys) == before
    assert machine.run("sh", "-c", "command -v flchain-agent || pgrep -u flchain-agent", check=False).stdout == ""
    number = network.read_round(machine, "flchain-miner")
    install(machine, newer["flchain-agent"])
    network.until_round(machine, number)

    # a purge leaves the keys that nobody can make again, and says so
    said = machine.run("apt-get", "purge", "-y", "-q", *NAMES).stdout
    kept = {path for path in list_ours(machine) if path.startswith("/var/backups/")}
    assert list_ours(machine) - kept == set()
    assert {path.count("/") for path in kept} == {3}, "folders only: keys have other names"
    files = machine.run("find", "/var/backups", "-type", "f", "-name", "*.pem.*").stdout.split()
    assert sorted(re.sub(r"\.\d{8}-\d{6}$", "", path) for path in files) == [
        "/var/backups/flchain-miner/key.pem",
        "/var/backups/flchain-tools/ca-key.pem",
        "/var/backups/flchain-tools/ca.pem",
    ]
    assert all(f"kept {path}" in said for path in files)
    assert machine.run("pgrep", "-f", "flchain", check=False).stdout == ""


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("release", RELEASES)
def test_a_board_of_another_architecture_installs_and_trains(new_root: MakeRoot, build: Build, release: str) -> None:
    """The arm64 package installs where nothing of x86-64 runs, stays below its size, and trains a model."""
    deb = build(release, "arm64", ("flchain-agent",))["flchain-agent"]
    root = new_root(release, "arm64", name="board")
    begin = time.monotonic()
    root.install(str(deb))
    print(f"installed under emulation: {time.monotonic() - begin:.0f} s")
    size_mb = int(root.run("du", "-sB1000000", "/opt/flchain-agent").stdout.split()[0])
    compiled = root.run("sh", "-c", "find /opt/flchain-agent -name '*.pyc' | wc -l").stdout.strip()
    print(f"{release} arm64: {deb.stat().st_size / 1e6:.1f} MB, installed {size_mb} MB, {compiled} files compiled")
    assert int(compiled) > 300
    assert size_mb <= INSTALLED_MB_MAX
    assert "usage: flchain-agent" in root.run("flchain-agent", "--help").stdout
    model = REPOSITORY / "tools" / "models" / "cnn1d.tflite"
    script = (
        "import sys; import numpy as np; from flchain_edge.model.tflite import TfliteModel, probe_model\n"
        "data = open(sys.argv[1], 'rb').read(); probe_model(data); model = TfliteModel(data)\n"
        "y = (np.arange(32) % 4).astype(np.int32)\n"
        "x = (np.random.default_rng(1).normal(0, 0.5, (32, 100, 6)) + y[:, None, None]).astype(np.float32)\n"
        "losses = [model.train_step(x, y, 0.05) for _ in range(20)]; print(losses[0], losses[-1])\n"
    )
    program = ("/opt/flchain-agent/bin/python3", "-c", script, root.copy_in(model))
    first, last = map(float, root.run(*program, timeout_s=BOARD_TIMEOUT_S).stdout.split())
    assert last < 0.8 * first


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that git knows, in another folder, under another path."""
    folder = tmp_path / "another place" / "clone"
    listing = subprocess.run(("git", "ls-files", "-z"), cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in filter(None, listing.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    for command in (("init", "-q"), ("add", "-A")):
        subprocess.run(("git", *command), cwd=folder, check=True)
    return folder


@pytest.mark.timeout(1200)
def test_the_same_commit_is_the_same_file(clone: Path, build: Build, tmp_path: Path) -> None:
    """Two clones in different folders, with other umasks, give one file, byte for byte."""
    first = build("trixie", "arm64", ("flchain-agent",))["flchain-agent"]
    epoch = run_tool(("git", "log", "-1", "--format=%ct"), cwd=REPOSITORY)
    done = subprocess.run(
        (
            sys.executable, "-m", "tools.images.debs.cli", "--package", "flchain-agent", "--release", "trixie",
            "--architecture", "arm64", "--quick", "--out", str(tmp_path / "out"),
        ),
        cwd=clone,
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch.strip()},
        capture_output=True,
        text=True,
        check=False,
        umask=0o077,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (second,) = (tmp_path / "out").glob("*.deb")
    assert hashlib.sha256(second.read_bytes()).hexdigest() == hashlib.sha256(first.read_bytes()).hexdigest()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_a_package_is_in_order(build: Build, tmp_path: Path, name: str) -> None:
    """lintian finds no error, and the list of parts names what the environment holds and nothing else."""
    deb = build("trixie", "arm64", (name,))[name]
    if lintian := find_program("lintian"):
        command = (lintian, "--allow-root", "--fail-on", "error", str(deb))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(("dpkg-deb", "-x", str(deb), str(tmp_path)), check=True)
    parts = json.loads((tmp_path / "usr" / "share" / "doc" / name / "sbom.cdx.json").read_text())
    assert parts["bomFormat"] == "CycloneDX"
    listed = {f"{part['name']}-{part['version']}" for part in parts["components"]}
    assert {text.lower().replace("-", "_") for text in listed} == {
        path.name.removesuffix(".dist-info").lower().replace("-", "_")
        for path in tmp_path.glob("opt/*/lib/python3.13/site-packages/*.dist-info")
        if not path.name.startswith("flchain-")
    }
    assert all(part.get("licenses") for part in parts["components"]), "each part's licence"
    assert "pip" not in {part["name"] for part in parts["components"]}


def test_every_unit_is_in_a_package() -> None:
    """No file in systemd/ is forgotten; the target groups services of machines that install from a wheel."""
    known = {file for name in NAMES for file, _ in list_installed(REPOSITORY, name)}
    ours = {path for path in (REPOSITORY / "systemd").rglob("*") if path.is_file()}
    assert ours - known == {REPOSITORY / "systemd" / "flchain.target"}


def test_versions_sort_as_dpkg_sorts_them() -> None:
    """A candidate comes before its release, and a newer Debian's package after an older one's."""
    (content,) = list(read_contents(REPOSITORY).values())[:1]

    def version(text: str, suite: str) -> str:
        return Package("flchain-agent", content, text, SUITES[suite], "arm64").debian_version

    ordered = [version("0.2.0rc1", "trixie"), version("0.2.0", "bookworm"), version("0.2.0", "trixie"), "0.10.0+deb12"]
    for older, newer in itertools.pairwise(ordered):
        assert subprocess.run(("dpkg", "--compare-versions", older, "lt", newer), check=False).returncode == 0
