"""A network on one machine, as an operator sets it up with the packages: registrar, mosquitto, one miner, one board."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.machines.nspawn import Machine
from tests.support.networks.field import save_levels

REGISTRAR = "runuser -u flchain-registrar -- flchain registrar"
BROKER_FILES = "/etc/mosquitto/flchain"
TOKEN_FILE = "/etc/credstore/flchain-agent.token"
ROUND_TIMEOUT_S = 300.0
"""On two busy cores."""


def set_up_registrar(machine: Machine) -> None:
    """The authority, its service, and a broker that knows nobody yet."""
    machine.shell(f"{REGISTRAR} init --name field-1 --host localhost --broker localhost:8883")
    machine.shell("systemctl start flchain-registrar && systemctl is-active flchain-registrar")
    write_broker_files(machine)
    machine.shell("systemctl restart mosquitto")


def write_broker_files(machine: Machine) -> None:
    """The broker's files, from what the registrar knows now."""
    machine.shell(
        f"""
        out=$(mktemp -d); chown flchain-registrar "$out"
        {REGISTRAR} broker --kind mosquitto --host localhost --out "$out/edge" \\
            --install-dir {BROKER_FILES} --data /var/lib/mosquitto
        install -d -o mosquitto -g mosquitto -m 700 {BROKER_FILES}
        install -o mosquitto -g mosquitto -m 600 "$out"/edge/* {BROKER_FILES}/
        cp "$out/edge/mosquitto.conf" /etc/mosquitto/mosquitto.conf; chmod 644 /etc/mosquitto/mosquitto.conf
        """
    )


def make_token(machine: Machine, role: str) -> str:
    """A new token of the registrar's."""
    return machine.shell(f"{REGISTRAR} token --role {role}").strip().splitlines()[-1]


def enrol(machine: Machine, role: str, token: str) -> int:
    """Enrol as the service's user; the exit code."""
    command = f"flchain-{role} enroll --token {shlex.quote(token)} --dir /var/lib/flchain-{role}"
    done = machine.run("runuser", "-u", f"flchain-{role}", "--", *command.split(), check=False)
    assert done.returncode in (0, 75), done.stdout + done.stderr
    return done.returncode


def make_genesis(machine: Machine, model: str) -> None:
    """The chain of everybody who has enrolled, with quick phases."""
    head = 'name = "field"\nmodel = "model.tflite"\npreset = "minimal"\n[training]\nlocal_epochs = 1\n'
    machine.run("tee", "/srv/network.toml", text=head)
    machine.shell(
        f"""
        cd /srv; cp {model} model.tflite
        {REGISTRAR} network >> network.toml
        flchain genesis make --network network.toml --out genesis.cbor
        install -m 600 -o flchain-registrar genesis.cbor model.tflite /var/lib/flchain-registrar/
        """
    )
    write_broker_files(machine)
    machine.shell("systemctl reload mosquitto || systemctl restart mosquitto")


def give_examples(machine: Machine, role: str, seed: int, scratch: Path) -> None:
    """Data of the node's own."""
    save_levels(scratch / "examples.npz", seed)
    data = (scratch / "examples.npz").read_bytes()
    (machine.folder / "srv" / "examples.npz").write_bytes(data)
    user = f"flchain-{role}"
    machine.shell(f"install -m 600 -o {user} -g {user} /srv/examples.npz /var/lib/{user}/examples.npz")


def read_round(machine: Machine, unit: str = "flchain-agent") -> int:
    """The round that the service's status line names; -1 if it names none."""
    found = re.search(r"round (\d+)", machine.show(unit, "StatusText"))
    return int(found[1]) if found else -1


def until_round(machine: Machine, number: int, unit: str = "flchain-agent") -> None:
    """Wait until the service is active and has come to a round."""
    machine.until(
        lambda: machine.show(unit, "ActiveState") == "active" and read_round(machine, unit) >= number,
        f"{unit} in round {number}",
        ROUND_TIMEOUT_S,
    )
