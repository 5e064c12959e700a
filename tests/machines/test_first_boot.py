"""A board under systemd as PID 1, from its package to training, by nothing but a file on its boot partition."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.machines.conftest import Boot, MakeRoot
from tests.machines.field_network import enrol, give_examples, make_genesis, make_token, set_up_registrar
from tests.machines.nspawn import Machine
from tests.support.networks.field import save_levels
from tools.images.debs.cli import Order, build_packages

PACKAGES = ("flchain-agent", "flchain-miner", "flchain-tools")
BOOT = "boot/firmware"
PLACES = "/boot /etc /var /run /tmp"


def find_packages(release: str, folder: Path) -> list[str]:
    """The packages in the folder that FLCHAIN_DEBS names, otherwise new ones."""
    if given := os.environ.get("FLCHAIN_DEBS"):
        number = {"bookworm": 12, "trixie": 13}[release]
        return [str(next(Path(given).glob(f"{name}_*+deb{number}_amd64.deb"))) for name in PACKAGES]
    return [str(path) for path in build_packages(Order(PACKAGES, (release,), ("amd64",), None, folder, True))]


def read_state(machine: Machine) -> str:
    word = json.loads(machine.run("flchain-agent", "provision", "--status", "--json", user="nobody").stdout)
    return str(word["state"])


def find_text(machine: Machine, text: str) -> str:
    """The files that hold a text, in every place that is written to."""
    return machine.shell(f"grep -rlaF -- '{text}' {PLACES} || true")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_from_a_file_to_training_and_back(new_root: MakeRoot, boot: Boot, tmp_path: Path, release: str) -> None:
    """It waits and says how; refuses a bad file; takes a good one, enrols, destroys the token and trains; goes on after
    a power cut as if nothing had been; and a file takes it back to where it began."""
    root = new_root(release, packages=("mosquitto", "openssh-server", "avahi-daemon"), name="board")
    root.install(*find_packages(release, tmp_path))
    folder = root.folder / BOOT
    folder.mkdir(parents=True)
    machine = boot(root)

    assert read_state(machine) == "waiting"
    issue = machine.shell("cat /etc/issue.d/flchain.issue")
    assert "(waiting)" in issue and "/boot/firmware/flchain.toml" in issue
    assert "waits for its settings" in machine.read_journal("-b", "-u", "flchain-provision")
    assert machine.run("flchain-agent", "status", check=False).returncode == 3

    (folder / "flchain.toml").write_text('nam = "x"\n[registrar]\ntoken = "flchain1/cut-off"\n')
    assert machine.run("systemctl", "start", "flchain-provision", check=False).returncode
    assert read_state(machine) == "refused" and "did you mean name?" in machine.shell("cat /etc/issue.d/flchain.issue")

    set_up_registrar(machine)
    machine.shell("systemctl enable -q flchain-registrar")
    miner_token, token = make_token(machine, "miner"), make_token(machine, "device")
    enrol(machine, "miner", miner_token)
    key = f"ssh-ed25519 {'A' * 68} field"
    settings = f'name = "north-3"\nlabels = ["site=north"]\nexamples = "examples.npz"\nssh_keys = ["{key}"]\n'
    (folder / "flchain.toml").write_text(f'{settings}[registrar]\ntoken = "{token}"\n')
    save_levels(folder / "examples.npz", 1)
    machine.power_off()
    machine.boot()
    machine.until(lambda: "enrolled as" in machine.read_journal("-b", "-u", "flchain-enroll"), "the enrolment")
    assert machine.shell("hostname").strip() == "north-3"
    machine.until(lambda: "The network is not complete" in machine.shell("cat /etc/issue.d/flchain.issue"), "the word")
    assert machine.show("ssh", "ActiveState") == "active" and key in machine.shell(
        "cat /etc/ssh/authorized_keys.d/root"
    )
    machine.until(lambda: "state=enrolling" in machine.shell("cat /etc/avahi/services/flchain.service"), "mDNS")

    make_genesis(machine, machine.shell("find /opt/flchain-tools -name cnn1d.tflite").strip())
    assert enrol(machine, "miner", miner_token) == 0
    give_examples(machine, "miner", 2, tmp_path)
    machine.shell("systemctl enable -q --now flchain-miner")
    machine.until(lambda: machine.show("flchain-agent", "ActiveState") == "active", "the agent", 180)
    machine.until(lambda: read_state(machine) == "training", "the word", 60)
    assert find_text(machine, token.rsplit("/", 1)[1]) == "", "the secret is nowhere"
    machine.until(lambda: is_accepted(machine), "an accepted update", 180)
    assert 'name = "north-3"' in machine.shell("cat /var/lib/flchain-agent/agent.toml")

    address = machine.shell("flchain-agent provision --status --json")
    machine.cut_power()
    machine.boot()
    machine.until(lambda: machine.show("flchain-agent", "ActiveState") == "active", "the agent again", 180)
    assert machine.shell("flchain-agent provision --status --json") == address
    said = machine.read_journal("-b", "-u", "flchain-provision", "-o", "cat").splitlines()
    ours = [line for line in said if "flchain-provision.service" not in line]
    assert len(ours) == 1 and ours[0].startswith("training: "), "nothing was left to do"
    assert machine.get_state() == "running", machine.shell("systemctl --failed")

    (folder / "flchain-reset").touch()
    machine.power_off()
    machine.boot()
    assert read_state(machine) == "waiting" and machine.show("flchain-agent", "ActiveState") == "inactive"
    assert machine.shell("ls -A /var/lib/flchain-agent /var/lib/flchain-provision") == (
        "/var/lib/flchain-agent:\n\n/var/lib/flchain-provision:\n"
    )
    assert not (folder / "flchain-reset").exists() and not (folder / "flchain.toml").exists()
    assert machine.get_state() == "running", machine.shell("systemctl --failed")


def is_accepted(machine: Machine) -> bool:
    """Whether an update of this board is in a final block."""
    done = machine.run("flchain-agent", "status", "--json", user="flchain-agent", check=False)
    rounds = json.loads(done.stdout)["history"]["rounds"] if done.stdout else []
    return any(each["is_accepted"] for each in rounds)


@pytest.mark.timeout(1800)
def test_cloud_init_carries_the_file(new_root: MakeRoot, boot: Boot, tmp_path: Path) -> None:
    """Its own check finds the example valid; booted with it, the board enrols, and no copy of cloud-init's keeps the
    token once that has done its work."""
    root = new_root("bookworm", packages=("cloud-init",), name="board")
    root.install(*find_packages("bookworm", tmp_path)[:1])
    user_data = (Path(__file__).parents[2] / "firmware_config/firstboot/user-data").read_text()
    root.run("tee", "/srv/user-data", text=user_data)
    assert "Valid" in root.run("cloud-init", "schema", "--config-file", "/srv/user-data").stdout
    secret = "Zx7" * 7 + "q"
    seed = root.folder / "var/lib/cloud/seed/nocloud"
    seed.mkdir(parents=True)
    token = f"flchain1/registrar.lan:8443/{'F' * 43}/{secret}"
    (seed / "user-data").write_text(user_data.replace('token = ""', f'token = "{token}"'))
    (seed / "meta-data").write_text("instance-id: board-1\n")
    machine = boot(root)
    machine.until(lambda: read_state(machine) == "enrolling", "the board to have its token", 180)
    assert machine.shell("hostname").strip() == "north-3"
    assert "/var/lib/cloud/instances/board-1/obj.pkl" in find_text(machine, secret)
    machine.shell("touch /var/lib/flchain-agent/agent.toml; flchain-agent provision --settle")
    assert find_text(machine, secret) == "" and read_state(machine) == "training"
