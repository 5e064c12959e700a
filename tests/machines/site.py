"""A field site for the pages in docs/: registrar, edge server and board, each a machine of its own under systemd."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.machines.chroot import Chroot, run_checked
from tests.machines.conftest import MakeRoot
from tests.machines.doc_runner import Reader
from tests.machines.network import Network
from tests.machines.nspawn import Machine
from tests.support.networks.field import save_levels
from tools.images.roots import get_cache

ROOT = Path(__file__).parents[2]
NAMES = {"operator": "registrar.lan", "edge": "edge-1.lan", "board": "board-1.lan"}
WHEELS = "/var/cache/wheels"
UNITS = {"operator": "flchain-registrar", "edge": "flchain-miner", "board": "flchain-agent"}
PACKAGES = {"operator": "flchain-tools", "edge": "flchain-miner", "board": "flchain-agent"}
LOCKS = {"operator": "tools.lock", "edge": "agent.lock", "board": "agent.lock"}
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
"""The machines' network ends at their switch: what they install has been fetched before they boot."""


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


def build_packages(release: str, out: Path, *names: str, version: str = "") -> Path:
    """Build this checkout's packages for a release, quickly packed; the folder."""
    which = " ".join(f"--package {name}" for name in names)
    arguments = f"ARGS=--quick --release {release} --architecture amd64 --out {out} {which}"
    chosen = (f"VERSION={version}",) if version else ()
    run_checked(("make", "-C", str(ROOT), "debs", arguments, *chosen), check=True, text=None, timeout_s=1800)
    return out


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

    def wait_for_everyone(self) -> None:
        operator = self.machines["operator"]
        command = ("runuser", "-u", "flchain-registrar", "--", "flchain", "registrar", "list")
        operator.until(lambda: "  device  " in operator.run(*command, check=False).stdout, "the board to enrol", 300)

    def put_model(self) -> None:
        place = copy(ROOT / "tools/models/cnn1d.tflite", self.machines["operator"], "/var/lib/flchain-registrar")
        place.rename(place.with_name("model.tflite"))

    def put_examples(self, name: str, user: str, seed: int) -> None:
        save_levels(self._data / "examples.npz", seed)
        copy(self._data / "examples.npz", self.machines[name], f"/var/lib/{user}")
        self.machines[name].shell(f"chown {user}: /var/lib/{user}/examples.npz")

    def copy_packages(self, folder: Path) -> None:
        for name, package in PACKAGES.items():
            for path in folder.glob(f"{package}_*.deb"):
                copy(path, self.machines[name])

    def copy_new_packages(self, folder: Path) -> None:
        copy(folder, self.machines["operator"], "var/lib/flchain-registrar")

    def wait_for_board(self) -> None:
        operator = self.machines["operator"]
        command = ("bash", "-c", "HOME=~root flchain fleet list --json")
        operator.until(lambda: '"version": "0' in operator.run(*command, check=False).stdout, "the board's word", 300)

    def wait_for_agent(self) -> None:
        board = self.machines["board"]
        board.until(lambda: has_accepted_round(board), "an accepted round", 300)

    def read_status(self) -> dict[str, Any]:
        """Return what the board's agent says of itself."""
        return read_status(self.machines["board"])

    def build_reader(self, hands: dict[str, Callable[[], None]]) -> Reader:
        """Return who reads the page; `hands` are what else is done by hand."""
        by_name = {
            "copy-broker-files": self.copy_broker_files,
            "wait-for-everyone": self.wait_for_everyone,
            "put-model": self.put_model,
            "put-data": lambda: self.put_examples("board", "flchain-agent", 3),
            "put-test-data": lambda: self.put_examples("edge", "flchain-miner", 17),
            "wait-for-agent": self.wait_for_agent,
            "wait-for-board": self.wait_for_board,
            **hands,
        }
        return Reader(self.machines, by_name, OFFLINE)


def check_services(site: Site) -> None:
    """All three services run, say how they are, and are fed to their watchdogs; the board's model is the chain's."""
    for name, unit in UNITS.items():
        machine = site.machines[name]
        assert machine.show(f"{unit}.service", "ActiveState") == "active", machine.read_journal("-u", unit)
        assert machine.show(f"{unit}.service", "NRestarts") == "0"
    board = site.machines["board"]
    before = board.show("flchain-agent.service", "WatchdogTimestampMonotonic")
    board.until(lambda: board.show("flchain-agent.service", "WatchdogTimestampMonotonic") != before, "the watchdog fed")
    assert "round" in board.show("flchain-agent.service", "StatusText")
    now = read_status(board)["now"]
    assert now["is_synced"] and not now["is_mismatch"]
