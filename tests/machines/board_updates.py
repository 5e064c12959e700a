"""An agent's package in other versions, good and bad, and how an operator or an intruder hands them to a board."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.machines import field_network as network
from tests.machines.nspawn import Machine

SITE = "opt/flchain-agent/lib/python3*/site-packages"
FLEET = "flchain fleet"
FLEET_DIR = "/srv/fleet"
CRASHES = "raise SystemExit('this version does not even start')\n"
SILENT = """\
import os, socket, sys, time
if sys.argv[1:2] == ["run"]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        while True:
            notify.send(b"READY=1\\nWATCHDOG=1")
            time.sleep(5)
"""
"""A version that runs, feeds its watchdog, and says nothing to anybody."""
LAY_DOWN = """\
import hashlib, shutil, sys
from pathlib import Path
from flchain.base.crypto import Identity
from flchain.wire.envelope import seal
from flchain.wire.release import Package, Release, ReleaseState
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.process.chain_files import load_genesis
deb, version, sequence, fault = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
fleet = Path("/srv/fleet")
operator = load_or_create_identity(fleet / "key.pem", None)
signer = Identity.from_seed(bytes(32)) if fault == "signature" else operator
chain = bytes(32) if fault == "chain" else load_genesis(fleet / "genesis.cbor").compute_id()
data = deb.read_bytes()
package = Package("bookworm", "amd64", hashlib.sha256(data).digest(), len(data))
release = Release(sequence, version, (package,), 10_000, ReleaseState.ROLLING, 600, 0)
folder = Path("/var/lib/flchain-agent/update")
name = folder / f"{package.sha256.hex()}.deb"
name.write_bytes(data[: len(data) // 2] if fault == "cut off" else data)
shutil.chown(name, "flchain-agent", "flchain-agent")
fresh = folder / ".fresh"
fresh.write_bytes(seal(release, chain, signer))
shutil.chown(fresh, "flchain-agent", "flchain-agent")
fresh.rename(folder / "request")
"""


def derive(deb: Path, version: str, out: Path, *, start: str = "") -> Path:
    """The package under another version; `start` is put in front of what the agent's program does."""
    tree = out / f"tree-{version}"
    _run("dpkg-deb", "--raw-extract", str(deb), str(tree))
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    old = re.search(r"^Version: (\S+)\+(\S+)$", text, re.MULTILINE)
    assert old is not None
    control.write_text(text.replace(f"Version: {old[1]}+", f"Version: {version}+"))
    (papers,) = tree.glob(f"{SITE}/flchain-*.dist-info/METADATA")
    papers.write_text(papers.read_text().replace(f"\nVersion: {old[1]}\n", f"\nVersion: {version}\n"))
    if start:
        (program,) = tree.glob(f"{SITE}/agent/cli.py")
        lines = program.read_text().split("from __future__ import annotations\n", 1)
        program.write_text(f"{lines[0]}from __future__ import annotations\n{start}{lines[1]}")
    target = out / f"flchain-agent_{version}+{old[2]}_{deb.stem.rpartition('_')[2]}.deb"
    _run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(target))
    return target


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def set_up(machine: Machine, debs: list[Path], scratch: Path) -> None:
    """A whole network on one machine, its operator included; the board trains."""
    for deb in debs:
        (machine.folder / "srv" / deb.name).write_bytes(deb.read_bytes())
    machine.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *(f"/srv/{deb.name}" for deb in debs))
    network.set_up_registrar(machine)
    miner_token = network.make_token(machine, "miner")
    assert network.enrol(machine, "miner", miner_token) == 75
    operator_token = network.make_token(machine, "operator")
    machine.run(*FLEET.split(), "key", "--dir", FLEET_DIR, "--token", operator_token, check=False)
    device_token = network.make_token(machine, "device")
    assert network.enrol(machine, "agent", device_token) == 75
    model = machine.run("find", "/opt/flchain-tools", "-name", "cnn1d.tflite").stdout.strip()
    network.make_genesis(machine, model)
    for role, seed in (("agent", 1), ("miner", 2)):
        network.give_examples(machine, role, seed, scratch)
    assert network.enrol(machine, "miner", miner_token) == 0
    assert network.enrol(machine, "agent", device_token) == 0
    machine.run(*FLEET.split(), "key", "--dir", FLEET_DIR, "--token", operator_token)
    machine.run("systemctl", "start", "flchain-miner", "flchain-agent", "flchain-update.path")
    network.until_round(machine, 2)


def announce(machine: Machine, deb: Path, window: str) -> str:
    """Let the operator roll a package out, in a service of its own; the service's name."""
    version = deb.name.split("_")[1].split("+")[0]
    folder = machine.folder / "srv" / f"release-{version}"
    folder.mkdir()
    (folder / deb.name).write_bytes(deb.read_bytes())
    unit = f"rollout-{version}"
    options = ("--tranches", "100", "--soak", "5s", "--window", window, "--patience", "20m")
    command = (*FLEET.split(), "update", f"/srv/release-{version}", "--dir", FLEET_DIR, *options)
    machine.run("systemd-run", f"--unit={unit}", "--collect", *command)
    return unit


def lay_down(machine: Machine, deb: Path, sequence: int, fault: str = "none") -> None:
    """Put a request into the agent's folder, as the agent would, or as an intruder could."""
    version = deb.name.split("_")[1].split("+")[0]
    inside = machine.folder / "srv" / deb.name
    if not inside.exists():
        inside.write_bytes(deb.read_bytes())
    arguments = (f"/srv/{deb.name}", version, str(sequence), fault)
    machine.run("/opt/flchain-tools/bin/python3", "-c", LAY_DOWN, *arguments)


def read_update(machine: Machine) -> dict[str, object]:
    """What root says of the newest update: from its file, since the agent's program may be the bad version's."""
    state = machine.folder / "var/lib/flchain-update/state.json"
    found: dict[str, object] = json.loads(state.read_bytes()) if state.exists() else {}
    return found


def is_under_way(machine: Machine) -> bool:
    """Whether root has begun an update and not ended it."""
    return (machine.folder / "var/lib/flchain-update/journal").exists()


def until_update(machine: Machine, state: str, version: str, timeout_s: float = 300) -> None:
    """Wait until root has come to a state with a version, and nothing is under way."""

    def is_so() -> bool:
        update = read_update(machine)
        return (update.get("state"), update.get("version")) == (state, version) and not is_under_way(machine)

    machine.until(is_so, f"version {version} {state}", timeout_s)
