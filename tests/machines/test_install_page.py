"""docs/install.md works as it is written: its own command blocks, typed on three machines under systemd."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machines.chroot import Chroot
from tests.machines.conftest import Boot, MakeRoot
from tests.machines.doc_runner import Reader
from tests.machines.network import Network, switched
from tests.machines.nspawn import Machine
from tests.support.doc_blocks import Step, read_page
from tests.support.networks.field import save_levels
from tools.images.roots import get_cache

ROOT = Path(__file__).parents[2]
NAMES = {"operator": "registrar.lan", "edge": "edge-1.lan", "board": "board-1.lan"}
WHEELS = "/var/cache/wheels"
WHEEL_SECTION, PACKAGE_SECTION = "10. Other distributions: from a wheel", "1. Packages"
LOCKS = {"operator": "tools.lock", "edge": "agent.lock", "board": "agent.lock"}
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
"""The machines' network ends at their switch: what they install has been fetched before they boot."""


@pytest.fixture
def network() -> Iterator[Network]:
    """A switch that knows the page's names."""
    with switched() as network:
        network.name(*NAMES.values())
        yield network


def fetch_packages(root: Chroot, *names: str) -> None:
    """Fetch Debian's packages into apt's cache, and let apt ask nothing: nobody is there to answer."""
    root.run("apt-get", "update", "-q")
    root.run("apt-get", "install", "--download-only", "-y", "-q", *names)
    (root.folder / "etc/apt/apt.conf.d/90tests").write_text('APT::Get::Assume-Yes "true";\n')


def fetch_wheels(new_root: MakeRoot, release: str, lock: str) -> Path:
    """Return a folder with what a lock names, for this release's Python: fetched once for all runs."""
    text = (ROOT / "requirements" / lock).read_bytes()
    kept = get_cache() / "wheels" / f"{release}-{hashlib.sha256(text).hexdigest()[:8]}"
    if not kept.is_dir():
        root = new_root(release, packages=("python3-venv",), name=f"fetch-{lock}")
        inside = root.copy_in(ROOT / "requirements" / lock)
        download = f"/tmp/fetch/bin/pip download -q --require-hashes -r {inside} -d {WHEELS}"
        root.run("sh", "-c", f"python3 -m venv /tmp/fetch && {download}", timeout_s=1200)
        shutil.copytree(root.folder / WHEELS.lstrip("/"), kept)
    return kept


def copy(path: Path, machine: Machine, target: str = "root") -> Path:
    """Carry a file or folder to a machine; where it is now."""
    place = machine.folder / target.lstrip("/") / path.name
    if path.is_dir():
        shutil.copytree(path, place, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, place)
    return place


def read_status(board: Machine) -> dict[str, Any]:
    """Return what the agent says of itself, {} while it says nothing."""
    done = board.run("runuser", "-u", "flchain-agent", "--", "flchain-agent", "status", "--json", check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def has_accepted_round(board: Machine) -> bool:
    """True once an update of this board is in a final block."""
    return any(row["is_accepted"] for row in read_status(board).get("history", {}).get("rounds", ()))


class Site:
    """The three machines, and what the page's reader does by hand."""

    def __init__(self, network: Network, machines: dict[str, Machine], data: Path) -> None:
        self.machines = machines
        self._data = data
        for name, machine in machines.items():
            network.plug_in(machine, NAMES[name])

    def copy_broker_files(self) -> None:
        made = self.machines["operator"].folder / "var/lib/flchain-registrar/edge-1"
        copy(made, self.machines["edge"])

    def put_model(self) -> None:
        place = copy(ROOT / "tools/models/cnn1d.tflite", self.machines["operator"], "/var/lib/flchain-registrar")
        place.rename(place.with_name("model.tflite"))

    def put_examples(self, name: str, user: str, seed: int) -> None:
        save_levels(self._data / "examples.npz", seed)
        copy(self._data / "examples.npz", self.machines[name], f"/var/lib/{user}")
        self.machines[name].shell(f"chown {user}: /var/lib/{user}/examples.npz")

    def wait_for_agent(self) -> None:
        board = self.machines["board"]
        board.until(lambda: has_accepted_round(board), "an accepted round", 300)

    def build_reader(self, hands: dict[str, Callable[[], None]]) -> Reader:
        """Return who reads the page; `hands` are what else is done by hand."""
        by_name = {
            "copy-broker-files": self.copy_broker_files,
            "put-model": self.put_model,
            "put-data": lambda: self.put_examples("board", "flchain-agent", 3),
            "put-test-data": lambda: self.put_examples("edge", "flchain-miner", 17),
            "wait-for-agent": self.wait_for_agent,
            **hands,
        }
        return Reader(self.machines, by_name, OFFLINE)


def take_sections(*, is_wheel: bool) -> list[Step]:
    """Return the page's steps in a reader's order: section 1, or section 10 in its place."""
    steps = read_page("install.md")
    first = [step for step in steps if step.section == (WHEEL_SECTION if is_wheel else PACKAGE_SECTION)]
    return first + [step for step in steps if step.section not in (WHEEL_SECTION, PACKAGE_SECTION)]


def check_services(site: Site) -> None:
    """All three services run, say how they are, and are fed to their watchdogs; the board's model is the chain's."""
    units = {"operator": "flchain-registrar", "edge": "flchain-miner", "board": "flchain-agent"}
    for name, unit in units.items():
        machine = site.machines[name]
        assert machine.show(f"{unit}.service", "ActiveState") == "active", machine.read_journal("-u", unit)
        assert machine.show(f"{unit}.service", "NRestarts") == "0"
    board = site.machines["board"]
    before = board.show("flchain-agent.service", "WatchdogTimestampMonotonic")
    board.until(lambda: board.show("flchain-agent.service", "WatchdogTimestampMonotonic") != before, "the watchdog fed")
    assert "round" in board.show("flchain-agent.service", "StatusText")
    now = read_status(board)["now"]
    assert now["is_synced"] and not now["is_mismatch"]


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_the_page_from_a_wheel(release: str, new_root: MakeRoot, boot: Boot, network: Network, tmp_path: Path) -> None:
    """Wheel and locks, by section 10: the network trains, under units that were never touched by hand."""
    steps = take_sections(is_wheel=True)
    machines = {}
    for name in NAMES:
        root = new_root(release, name=name)
        network.write_hosts(root.folder)
        fetch_packages(root, "python3-venv", "mosquitto", "nftables")
        shutil.copytree(fetch_wheels(new_root, release, LOCKS[name]), root.folder / WHEELS.lstrip("/"))
        machines[name] = boot(root)
    site = Site(network, machines, tmp_path)

    def copy_wheel() -> None:
        for name, machine in machines.items():
            copy(max((ROOT / "dist").glob("*.whl")), machine)
            copy(ROOT / "requirements" / LOCKS[name], machine).rename(machine.folder / "root/flchain.lock")

    site.build_reader({"copy-wheel": copy_wheel}).follow(steps)
    check_services(site)
