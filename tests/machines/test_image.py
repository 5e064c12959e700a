"""`make test-image`: a card's image in an emulated board: it enrols, trains, is in blocks, and survives power cuts.

The tests follow each other on one card, as a board's life does. Everything is written to a folder that stays
(FLCHAIN_IMAGE_LOG, default build/test-image): `console.log` is what the board's console said, `times.log` how long what
took.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from agent.cli import main as agent_command
from flchain.base.errors import ConfigError
from flchain.base.types import Address
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.process.command_line import EXIT_TRY_AGAIN
from miner.cli import main as miner_command
from tests.machines.board_updates import CRASHES, derive
from tests.machines.emulated import EmulatedBoard, list_obstacles
from tests.support.networks.field import FieldNetwork, make_node, save_levels
from tests.support.networks.registrar import Registrar, make_registrar, run_command, serving
from tools.cli import main as command_line
from tools.demo.results import query
from tools.fleet.cli import EXIT_UNWELL
from tools.images.cli import find_packages
from tools.network.broker import Broker
from tools.network.layout import Node

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "tools" / "models" / "cnn1d.tflite"
IMAGE = Path(os.environ.get("FLCHAIN_IMAGE") or REPOSITORY / "build" / "images" / "flchain-qemu-arm64.img")
LOG = Path(os.environ.get("FLCHAIN_IMAGE_LOG") or REPOSITORY / "build" / "test-image")
GATEWAY = "10.0.2.2"
"""By what name an emulated board reaches this machine's loopback; `make test-image` gives it to the loopback, so that
nodes here and the board use one name, in a network namespace of the test's own."""
UPDATE_TIMEOUT_S = 3600.0
ROLLOUT_TIMEOUT_S = 120.0
BOOT_TIMEOUT_S = float(os.environ.get("FLCHAIN_BOOT_TIMEOUT_S") or 2400)
ROUND_TIMEOUT_S = 2400.0
MINERS = 2
RATE_HZ = 50
SECONDS_PER_LEVEL = 12
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z")
NAME = "emulated-1"
PROVISION = """name = "emulated-1"
labels = ["site=bench"]

[registrar]
token = "{token}"

[[sensors]]
name = "imu"
kind = "replay"
replay = {{ file = "recording.csv", loop = true }}

[samples]
flush_s = 5

[dataset]
channels = [{channels}]
rate_hz = {rate}.0
window = 100
step = 50
windows_min = 4
label = {{ channel = "imu.label" }}
"""

pytestmark = pytest.mark.timeout(3 * 3600)


@dataclass
class Field:
    """The card in its board, and the network that it belongs to."""

    board: EmulatedBoard
    network: FieldNetwork
    registrar: Registrar
    broker: Broker
    fleet: Path
    """The operator's folder."""
    device: Node | None = None

    def count_updates(self) -> int:
        """How many of the board's updates are in final blocks."""
        assert self.device is not None, "it has enrolled"
        if not all(miner.database.exists() for miner in self.network.miners):
            return 0
        return len(self.network.list_updates(self.device))

    def until_update(self, count: int) -> float:
        """Wait until so many updates of the board are in final blocks."""
        what = f"update {count} of the board in a final block"
        return self.board.until(lambda: self.count_updates() >= count, what, ROUND_TIMEOUT_S)


def note(text: str) -> None:
    """Add a line to times.log, and to pytest's own output."""
    with (LOG / "times.log").open("a") as stream:
        stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    print(text)


def list_reasons() -> tuple[str, ...]:
    """Why this cannot run here."""
    reasons = list(list_obstacles())
    if not IMAGE.exists():
        reasons.append(f"{IMAGE} is not there: make image BOARD=qemu-arm64")
    with socket.socket() as probe:
        try:
            probe.bind((GATEWAY, 0))
        except OSError:
            reasons.append(f"the loopback has no address {GATEWAY}: run make test-image")
    return tuple(reasons)


def read_word(field: Field) -> dict[str, object]:
    """What the board last told its operator, well or not; empty if it has told nothing yet."""
    rows = json.loads(run_command("fleet", "list", "--json", "--dir", str(field.fleet), codes=(0, EXIT_UNWELL)))
    return next((row for row in rows if row.get("name") == NAME), {})


def read_update(field: Field) -> tuple[str, str]:
    """How far root is with which version, from its file on the card."""
    try:
        state = json.loads(field.board.peek(3, "/update/state.json"))
    except ValueError:  # none yet, or it is just being replaced
        return "", ""
    return state["state"], state["version"]


def write_recording(path: Path) -> None:
    """A wearable's readings: each level for some seconds, as the other nodes' examples have them."""
    rng = np.random.default_rng(7)
    labels = np.repeat(np.arange(4), SECONDS_PER_LEVEL * RATE_HZ)
    values = rng.normal(0, 0.5, (len(labels), len(CHANNELS))) + labels[:, None]
    rows = [",".join(("time", *CHANNELS, "label"))]
    rows += [
        ",".join((f"{index / RATE_HZ:.2f}", *(f"{value:.3f}" for value in row), str(label)))
        for index, (row, label) in enumerate(zip(values, labels, strict=True))
    ]
    path.write_text("\n".join(rows) + "\n")


def enrol(network: FieldNetwork, registrar: Registrar, role: str, index: int) -> tuple[str, Path, str]:
    """A node on this machine asks for its certificate; there is no genesis yet."""
    token = registrar.make_token("miner" if role == "miner" else "device")
    folder = network.out / f"{role}-{index}"
    command = miner_command if role == "miner" else agent_command
    assert command(["enroll", "--token", token, "--dir", str(folder)]) == EXIT_TRY_AGAIN
    save_levels(folder / "examples.npz", 10 * index + len(role))
    identity = load_or_create_identity(folder / "key.pem", None)
    network.nodes.append(make_node(network.out, role, index, identity.address))
    return role, folder, token


def list_members(registrar: Registrar) -> set[str]:
    """Return the addresses of those that have enrolled."""
    return {member["address"] for member in json.loads(registrar.run("list", "--json"))}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A registrar and a broker on this machine, miners and an agent that have enrolled, and a card in a board."""
    if reasons := list_reasons():
        pytest.skip("; ".join(reasons))
    LOG.mkdir(parents=True, exist_ok=True)
    for name in ("console.log", "times.log"):
        (LOG / name).unlink(missing_ok=True)
    out = tmp_path_factory.mktemp("field")
    registrar = make_registrar(out / "registrar", host=GATEWAY, bind="0.0.0.0")
    with contextlib.ExitStack() as ends:
        broker = ends.enter_context(
            registrar.start_broker("mosquitto", out / "broker", host=GATEWAY, bind="0.0.0.0"),
        )
        settings = registrar.folder / "registrar.toml"
        settings.write_text(re.sub(r"brokers = .*", f'brokers = ["{GATEWAY}:{broker.port}"]', settings.read_text()))
        ends.enter_context(serving(registrar))
        network = ends.enter_context(FieldNetwork(out).running())
        board = EmulatedBoard(out / "card.img", LOG / "console.log")
        ends.callback(board.end)
        board.insert(IMAGE)
        note(f"image {IMAGE.stat().st_size / 2**20:.0f} MB")
        yield Field(board, network, registrar, broker, out / "fleet")


def test_a_flashed_card_enrols_trains_and_is_in_a_final_block(field: Field, tmp_path: Path) -> None:
    """An image, one file on the boot partition, power: the board enrols, trains, and its update is in a final block."""
    board, network, registrar = field.board, field.network, field.registrar
    waiting = [enrol(network, registrar, "miner", index) for index in range(MINERS)]
    waiting.append(enrol(network, registrar, "agent", 0))
    key = ("fleet", "key", "--dir", str(field.fleet), "--token", registrar.make_token("operator"))
    assert command_line(key) == EXIT_TRY_AGAIN
    before = list_members(registrar)
    write_recording(tmp_path / "recording.csv")
    channels = ", ".join(f'"imu.{name}"' for name in CHANNELS)
    text = PROVISION.format(token=registrar.make_token("device").strip(), channels=channels, rate=RATE_HZ)
    (tmp_path / "flchain.toml").write_text(text)
    board.put(tmp_path / "recording.csv", tmp_path / "flchain.toml")
    board.power_on()
    began = time.monotonic()
    board.until(lambda: list_members(registrar) > before, "the board to enrol", BOOT_TIMEOUT_S)
    note(f"power on to enrolled: {time.monotonic() - began:.0f} s")
    (address,) = list_members(registrar) - before
    field.device = make_node(network.out, "agent", 1, Address(bytes.fromhex(address)))
    make_genesis(field, waiting)
    run_command(*key)
    network.start(*network.nodes)
    field.until_update(1)
    note(f"power on to its first update in a final block: {time.monotonic() - began:.0f} s")
    assert b"flchain1/" not in board.read_boot("flchain.toml"), "the token has done its work and is destroyed"


def make_genesis(field: Field, waiting: list[tuple[str, Path, str]]) -> None:
    """The operator makes the genesis from the registrar's list, and the nodes here ask again, as the board will."""
    registrar, network = field.registrar, field.network
    for folder in (registrar.folder, network.out):
        (folder / "model.tflite").write_bytes(MODEL.read_bytes())
    head = 'name = "field"\nmodel = "model.tflite"\npreset = "field"\n[training]\nlocal_epochs = 1\n'
    (network.out / "network.toml").write_text(head + registrar.run("network"))
    genesis = str(registrar.folder / "genesis.cbor")
    run_command("genesis", "make", "--network", str(network.out / "network.toml"), "--out", genesis)
    for role, folder, token in waiting:
        command = miner_command if role == "miner" else agent_command
        assert command(["enroll", "--token", token, "--dir", str(folder)]) == 0
    broker = field.broker
    registrar.render_broker("mosquitto", broker.data_dir.parent, broker.port, host=GATEWAY, bind="0.0.0.0")
    broker.reload()


def test_what_a_power_cut_leaves_is_the_chain_of_the_others(field: Field) -> None:
    """After a hard power off the card holds models whose hashes are the x86-64 nodes', and accepted updates."""
    field.until_update(field.count_updates() + 2)
    field.board.cut_power()
    with field.board.reading(3) as data:
        rows = query(data / "agent" / "data" / "agent.db", "SELECT round, model_hash, is_accepted FROM rounds")
        identity = (data / "machine-id").read_text().strip()
        note(f"data partition: {sorted(path.name for path in data.iterdir())}")
    theirs = dict(query(field.network.agents[0].database, "SELECT round, model_hash FROM rounds"))
    assert len(rows) >= 2
    assert all(theirs[number] == model_hash for number, model_hash, _ in rows)
    assert any(accepted for _, _, accepted in rows)
    assert re.fullmatch("[0-9a-f]{32}", identity)
    note(f"{len(rows)} rounds, hashes equal to the x86-64 agent's; {sum(row[2] for row in rows)} updates accepted")


def test_a_board_goes_on_after_a_power_cut(field: Field) -> None:
    """The same card in a machine that starts again: new updates of the same identity get into final blocks."""
    known = field.count_updates()
    members = list_members(field.registrar)
    field.board.power_on()
    took_s = field.until_update(known + 1)
    note(f"power on to the next update in a final block, second boot: {took_s:.0f} s")
    assert list_members(field.registrar) == members, "it did not enrol again"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that the image holds, by its file."""
    try:
        return find_packages(Path(os.environ.get("FLCHAIN_DEBS") or REPOSITORY / "build" / "debs"), "trixie")[-1]
    except ConfigError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def rolling_out(field: Field, deb: Path, folder: Path, window: str) -> Iterator[None]:
    """Run the operator's command, which brings a package to the boards, as long as the block."""
    folder.mkdir()
    (folder / deb.name).write_bytes(deb.read_bytes())
    options = ("--tranches", "100", "--soak", "5s", "--window", window, "--patience", "3h", "--health-min", "50")
    command = ("fleet", "update", str(folder), "--dir", str(field.fleet), *options)
    said = LOG / f"{folder.parent.name}.log"
    with said.open("wb") as log:
        process = subprocess.Popen((sys.executable, "-m", "tools.cli", *command), stdout=log, stderr=log)
        try:
            # It holds the operator's connection from here on; `fleet list`, asked before, would be in its way.
            field.board.until(lambda: b"tranche 1" in said.read_bytes(), "the rollout to begin", ROLLOUT_TIMEOUT_S)
            yield
        finally:
            process.terminate()
            process.wait()


def until_word(field: Field, version: str, what: str) -> None:
    """Wait until the board tells its operator that it runs this version, and then until it is in a block with it."""
    took_s = field.board.until(lambda: read_word(field).get("version") == version, what, UPDATE_TIMEOUT_S)
    note(f"{what}: {took_s:.0f} s")
    field.until_update(field.count_updates() + 1)


def test_a_board_takes_an_update(field: Field, package: Path, tmp_path: Path) -> None:
    """Announced by the operator: the board installs it below its read-only root, starts again and trains."""
    with rolling_out(field, derive(package, "0.2.0", tmp_path), tmp_path / "release", "30m"):
        until_word(field, "0.2.0", "announced to version 0.2.0 running")


def test_a_power_cut_in_the_middle_of_an_update_leaves_a_whole_version(
    field: Field, package: Path, tmp_path: Path
) -> None:
    """Power fails while root installs; the board comes back by itself, trains, and arrives at the new version."""
    with rolling_out(field, derive(package, "0.3.0", tmp_path), tmp_path / "release", "30m"):
        installing = ("installing", "0.3.0")
        field.board.until(lambda: read_update(field) == installing, "root to install", UPDATE_TIMEOUT_S)
        field.board.cut_power()
        assert read_update(field) == installing
        field.board.power_on()
        until_word(field, "0.3.0", "power cut in an update to version 0.3.0 running")


def test_a_bad_version_goes_back(field: Field, package: Path, tmp_path: Path) -> None:
    """A version that does not even start is undone by the board itself, which then trains on with the one before."""
    with rolling_out(field, derive(package, "0.4.0", tmp_path, start=CRASHES), tmp_path / "release", "10m"):

        def is_back() -> bool:
            return read_update(field) == ("rolled_back", "0.4.0")

        note(f"bad version undone: {field.board.until(is_back, 'the way back', UPDATE_TIMEOUT_S):.0f} s")
    until_word(field, "0.3.0", "the version before")
