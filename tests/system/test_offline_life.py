"""A board without network: its messages wait on its disk, whatever dies meanwhile, and count once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flchain.wire.messages import Phase
from flchain_edge.keys.keystore import load_or_create_identity
from tests.support.networks.field import FieldNetwork, make_node, save_levels
from tests.support.networks.registrar import run_command
from tools.demo.results import query
from tools.network.broker import Broker, BrokerError, start_broker
from tools.network.layout import Node

MODEL = Path(__file__).parents[2] / "tools" / "models" / "cnn1d.tflite"


def lay_out(out: Path, broker: Broker) -> FieldNetwork:
    """Two miners and two agents, with keys and configuration as by hand."""
    network = FieldNetwork(out)
    lines = ['name = "offline"', 'model = "model.tflite"', 'preset = "minimal"', "[training]", "local_epochs = 1"]
    homes: list[str] = []
    for role, index in (("miner", 0), ("miner", 1), ("agent", 0), ("agent", 1)):
        folder = out / f"{role}-{index}"
        folder.mkdir()
        identity = load_or_create_identity(folder / "key.pem", None)
        save_levels(folder / "examples.npz", len(homes) + 10 * index)
        key = f'public_key = "{identity.public_key.hex()}"'
        if role == "miner":
            homes.append(identity.public_key.hex())
            lines += ["[[validators]]", key]
        else:
            lines += ["[[devices]]", key, f'home = "{homes[index]}"']
        (folder / f"{role}.toml").write_text(
            f'genesis = "../genesis.cbor"\nmodel = "../model.tflite"\nexamples = "examples.npz"\ndata_dir = "data"\n'
            f'[key]\nfile = "key.pem"\n[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\n[log]\nlevel = "debug"\n'
        )
        network.nodes.append(make_node(out, role, index, identity.address))
    shutil.copyfile(MODEL, out / "model.tflite")
    (out / "network.toml").write_text("\n".join(lines) + "\n")
    run_command("genesis", "make", "--network", str(out / "network.toml"), "--out", str(out / "genesis.cbor"))
    return network


def get_work(agent: Node) -> tuple[int, bytes] | None:
    """(round, the update as it will be sent), from the agent's disk."""
    rows = query(agent.database, "SELECT round, reveal_raw FROM work")
    return (rows[0][0], rows[0][1]) if rows else None


@pytest.mark.timeout(240)
def test_nothing_is_lost_or_said_twice_while_the_broker_is_dead(tmp_path: Path) -> None:
    """The broker dies in mid-round and stays dead over power cuts of the board; then the very same update counts, once.

    And work whose round went on without the board is dropped, with the reason.
    """
    try:
        broker = start_broker("mosquitto", tmp_path / "broker")
    except BrokerError as missing:
        pytest.skip(str(missing))
    with broker:
        network = lay_out(tmp_path, broker)
        board, other = network.agents
        with network.running():
            network.start(*network.agents, *network.miners)
            network.until_settled(1)
            network.until(lambda: network.get_place().phase is Phase.COMMIT, "a round that opens")
            open_round = network.get_place().round
            network.until(lambda: (get_work(board) or (0,))[0] >= open_round, "the board's update of it")
            broker.kill()
            kept = get_work(board)
            assert kept is not None
            for _ in range(2):
                network.kill(board)
                network.start(board)
                network.until(lambda: "no connection" in network.read_log(board), "a life without a broker")
                assert get_work(board) == kept, "the update is the same, bit by bit"
            broker.start()
            network.until_settled(kept[0] + 1)
            for agent in network.agents:
                assert network.get_rounds(agent)[kept[0]], f"{agent.name}: its update was lost"
            said = network.list_updates(board)
            assert said.count(kept) == 1, "the update that waited, and once"
            assert len(said) == len({number for number, _ in said}), "one a round"

            network.until(lambda: (get_work(board) or (0,))[0] > kept[0] + 1, "another update")
            network.kill(board)
            stale, was_waiting = get_work(board), is_waiting(board)
            assert stale is not None
            network.until(lambda: stale[0] + 1 in network.get_rounds(other), "the others to go on without the board")
            network.start(board)
            network.until(lambda: max(network.get_rounds(board), default=0) > stale[0], "the board to catch up")
            network.until(lambda: not is_waiting(board) or get_work(board) != stale, "the stale message to go")
            assert not was_waiting or "the phase is over" in network.read_log(board), "dropped with a reason"
            network.until(lambda: network.list_updates(board)[-1][0] > stale[0], "its next update")
            assert [number for number, _ in network.list_updates(board)].count(stale[0]) <= 1


def is_waiting(agent: Node) -> bool:
    """Whether a message still waits in the outbox."""
    return bool(query(agent.database, "SELECT 1 FROM outbox"))
