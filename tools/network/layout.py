"""Lay out a whole network in one folder: keys, genesis, configuration and data of every node, as a person would.

OUT/genesis.cbor  model.tflite  test.npz  network.json
OUT/miners/miner-0/{miner.toml, key.pem, examples.npz, data/}
OUT/agents/agent-0/{agent.toml, key.pem, examples.npz, data/}
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError
from flchain.base.types import Address
from flchain.ledger.genesis import Genesis, decode_genesis, encode_genesis
from flchain_edge.keys.keystore import load_or_create_identity
from tools.genesis import DeviceLine, NetworkSettings, TrainingRules, UpdateRules, ValidatorLine, build_genesis
from tools.network.datasets import Dataset, save_examples
from tools.network.splits import Split, split

MODELS_FOLDER = Path(__file__).parents[1] / "models"
PLAN_FILE = "network.json"


@dataclass(frozen=True)
class Plan:
    """What a network is made from. Kept beside the network, so that a second run can tell whether it is the same."""

    dataset: str
    devices: int
    miners: int
    seed: int
    model: str
    codec: str
    codec_level: int
    downstream_codec: str
    downstream_level: int
    follow: str
    """How devices follow the chain: full or light."""
    aggregation: str
    preset: str
    local_epochs: int
    batch_size: int
    learning_rate: float
    mining: int = 0
    """How many agents, counted from the first, also mine."""


@dataclass(frozen=True)
class Node:
    """One process of the network."""

    name: str
    role: str
    folder: Path
    address: Address

    @property
    def config(self) -> Path:
        """Return the path of its configuration file."""
        return self.folder / f"{self.role}.toml"

    @property
    def database(self) -> Path:
        """Return the path of its ledger or store."""
        return self.folder / "data" / ("ledger.db" if self.role == "miner" else "agent.db")

    @property
    def log(self) -> Path:
        """Return the path of the file that gets its stderr."""
        return self.folder / "log.txt"


@dataclass(frozen=True)
class Network:
    """A laid-out network."""

    out: Path
    genesis: Genesis
    nodes: tuple[Node, ...]

    @property
    def miners(self) -> tuple[Node, ...]:
        """Return the miners in order of name."""
        return tuple(node for node in self.nodes if node.role == "miner")

    @property
    def agents(self) -> tuple[Node, ...]:
        """Return the agents in order of name."""
        return tuple(node for node in self.nodes if node.role == "agent")


def get_model_file(model: str) -> Path:
    """Return a built-in model by name, or the path of a .tflite file. Raise ConfigError."""
    path = MODELS_FOLDER / f"{model}.tflite"
    path = path if path.is_file() else Path(model)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in MODELS_FOLDER.glob("*.tflite")))
        raise ConfigError((f"model {model}: neither a file nor one of: {known}",))
    return path


def build_network(out: Path, plan: Plan, dataset: Dataset) -> Network:
    """Lay out a new network in `out`. Raise ConfigError, also if there is one already."""
    if (out / PLAN_FILE).exists():
        raise ConfigError((f"{out}: already holds a network",))
    out.mkdir(parents=True, exist_ok=True)
    parts = split(dataset, plan.devices, plan.miners, plan.seed)
    shutil.copyfile(get_model_file(plan.model), out / "model.tflite")
    save_examples(out / "test.npz", parts.test.x, parts.test.y)
    nodes, keys = _lay_out_nodes(out, plan, parts)
    genesis = build_genesis(_build_settings(plan, out / "model.tflite", keys), time.time_ns() // 1_000_000)
    (out / "genesis.cbor").write_bytes(encode_genesis(genesis))
    # The plan comes last: a folder with a plan is whole.
    (out / PLAN_FILE).write_text(json.dumps(asdict(plan) | {"split": parts.kind}, indent=2) + "\n")
    return Network(out, genesis, nodes)


def open_network(out: Path, plan: Plan) -> Network:
    """Return the network that was laid out in `out`. Raise ConfigError, which names every difference from `plan`."""
    found = json.loads((out / PLAN_FILE).read_text())
    wanted = asdict(plan)
    problems = tuple(
        f"{out}: was made with --{key.replace('_', '-')} {found.get(key)}, not {value}; name another folder with --out"
        for key, value in wanted.items()
        if found.get(key) != value
    )
    if problems:
        raise ConfigError(problems)
    genesis = decode_genesis((out / "genesis.cbor").read_bytes())
    nodes = tuple(
        _open_node(out, role, index)
        for role, count in (("miner", plan.miners), ("agent", plan.devices))
        for index in range(count)
    )
    return Network(out, genesis, nodes)


def _get_folder(out: Path, role: str, index: int) -> Path:
    return out / f"{role}s" / f"{role}-{index}"


def _open_node(out: Path, role: str, index: int) -> Node:
    folder = _get_folder(out, role, index)
    return Node(folder.name, role, folder, load_or_create_identity(folder / "key.pem", None).address)


def _lay_out_nodes(out: Path, plan: Plan, parts: Split) -> tuple[tuple[Node, ...], list[Identity]]:
    nodes, keys = [], []
    for role, role_parts in (("miner", parts.miner_parts), ("agent", parts.device_parts)):
        for index, part in enumerate(role_parts):
            folder = _get_folder(out, role, index)
            (folder / "data").mkdir(parents=True, exist_ok=True)
            identity = load_or_create_identity(folder / "key.pem", None)
            save_examples(folder / "examples.npz", part.x, part.y)
            nodes.append(Node(folder.name, role, folder, identity.address))
            keys.append(identity)
    return tuple(nodes), keys


def _build_settings(plan: Plan, model: Path, keys: list[Identity]) -> NetworkSettings:
    """Return the network file that a person would write for this plan; devices take the miners as homes in turn."""
    miners = [key.public_key.hex() for key in keys[: plan.miners]]
    return NetworkSettings(
        name=f"demo-{plan.seed}",
        model=model,
        preset=plan.preset,
        training=TrainingRules(plan.local_epochs, plan.batch_size, plan.learning_rate),
        update=UpdateRules(
            codec=plan.codec,
            codec_level=plan.codec_level,
            downstream_codec=plan.downstream_codec,
            downstream_level=plan.downstream_level,
            aggregation=plan.aggregation,
        ),
        validators=tuple(ValidatorLine(key) for key in miners),
        devices=tuple(
            DeviceLine(key.public_key.hex(), miners[index % plan.miners])
            for index, key in enumerate(keys[plan.miners :])
        ),
    )


def write_configs(
    network: Network, host: str, port: int, until_round: int, *, mining: int = 0, follow: str = "full"
) -> None:
    """Write every node's configuration file: the broker's port may change from run to run. The first `mining` agents
    mine, which requires them to follow fully; the others follow as `follow` says."""
    for node in network.nodes:
        mines = node in network.agents[:mining]
        of_agent = f'failover_s = 3\nfollow = "{"full" if mines else follow}"\n' if node.role == "agent" else ""
        # Experiments look at every round.
        of_board = "\n[board]\nreport_s = 0\n" if node.role == "agent" else ""
        of_miner = "\n[mining]\nenabled = true\n" if mines else ""
        node.config.write_text(
            f'genesis = "../../genesis.cbor"\nmodel = "../../model.tflite"\nexamples = "examples.npz"\n'
            f'data_dir = "data"\nuntil_round = {until_round}\n{of_agent}'
            f'\n[key]\nfile = "key.pem"\n\n[mqtt]\nhost = "{host}"\nport = {port}\n{of_board}{of_miner}'
        )
