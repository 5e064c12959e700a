"""A whole network whose nodes have enrolled at a registrar, as an operator sets it up."""

from __future__ import annotations

from pathlib import Path

from agent.cli import main as agent_command
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.process.command_line import EXIT_TRY_AGAIN
from miner.cli import main as miner_command
from tests.support.networks.field import FieldNetwork, make_node, save_levels
from tests.support.networks.registrar import Registrar, run_command

MODEL = Path(__file__).parents[3] / "tools" / "models" / "cnn1d.tflite"
COMMANDS = {"agent": agent_command, "miner": miner_command}


def enrol_all(registrar: Registrar, out: Path, miners: int, agents: int) -> FieldNetwork:
    """All nodes enrol, the operator makes the genesis from the registrar's list, and all nodes enrol with it."""
    network = FieldNetwork(out)
    tokens: list[tuple[str, Path, str]] = []
    for role, count in (("miner", miners), ("agent", agents)):
        for index in range(count):
            token = registrar.make_token("miner" if role == "miner" else "device")
            folder = out / f"{role}-{index}"
            assert COMMANDS[role](["enroll", "--token", token, "--dir", str(folder)]) == EXIT_TRY_AGAIN
            save_levels(folder / "examples.npz", 10 * index + len(role))
            identity = load_or_create_identity(folder / "key.pem", None)
            network.nodes.append(make_node(out, role, index, identity.address))
            tokens.append((role, folder, token))
    (out / "model.tflite").write_bytes(MODEL.read_bytes())
    (registrar.folder / "model.tflite").write_bytes(MODEL.read_bytes())
    head = 'name = "field"\nmodel = "model.tflite"\npreset = "minimal"\n[training]\nlocal_epochs = 1\n'
    (out / "network.toml").write_text(head + registrar.run("network"))
    genesis = str(registrar.folder / "genesis.cbor")
    run_command("genesis", "make", "--network", str(out / "network.toml"), "--out", genesis)
    for role, folder, token in tokens:
        assert COMMANDS[role](["enroll", "--token", token, "--dir", str(folder)]) == 0
    return network
