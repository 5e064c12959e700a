"""`flchain genesis make|show|example`: make the file that all nodes of a chain agree on, or show it."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flchain.aggregation import AGGREGATION_RULES
from flchain.base.crypto import compute_address
from flchain.base.errors import ConfigError
from flchain.codecs import CODECS, DOWNSTREAM_RULES
from flchain.codecs.codec import LEVEL_MAX
from flchain.consensus import CONSENSUS_RULES, PROPOSER_RULES
from flchain.incentives import REWARD_RULES
from flchain.ledger.genesis import Genesis, decode_genesis, encode_genesis
from flchain.ledger.params import PRESETS, ChainParams
from flchain.ledger.state import hash_model
from flchain.privacy import MECHANISMS
from flchain.wire.fields import SAMPLES_CAP_MAX, VALIDATORS_MAX
from flchain.wire.messages import DeviceEntry, HolderEntry, ValidatorEntry
from flchain_edge.model.model_files import compute_initial_model
from flchain_edge.model.tflite import TfliteModel
from flchain_edge.process.chain_files import load_genesis, load_trainable
from flchain_edge.process.command_line import CommandParser, add_command
from flchain_edge.settings.config import load_config, render_example
from flchain_edge.settings.node import HASH_FORM

KEY_PATTERN = "[0-9a-f]{64}"


@dataclass(frozen=True)
class TrainingRules:
    """How every device trains."""

    local_epochs: int = field(default=5, metadata={"min": 1, "max": 1000, "help": "passes over its data per round"})
    batch_size: int = field(default=32, metadata={"min": 1, "max": 4096})
    learning_rate: float = field(default=0.02, metadata={"min": 1e-6, "max": 10.0})


@dataclass(frozen=True)
class UpdateRules:
    """How updates are compressed, protected and aggregated."""

    codec: str = field(default="sparse-ternary", metadata={"choices": tuple(CODECS)})
    codec_level: int = field(
        default=20,
        metadata={
            "min": 1,
            "max": LEVEL_MAX,
            "help": "sparse-ternary sends one parameter in this many; others: docs/compression.md",
        },
    )
    downstream_codec: str = field(
        default="sparse-ternary",
        metadata={
            "choices": tuple(DOWNSTREAM_RULES),
            "help": "compresses the change of the model in a round, for light devices",
        },
    )
    downstream_level: int = field(default=20, metadata={"min": 1, "max": LEVEL_MAX, "help": "like codec_level"})
    aggregation: str = field(default="weighted-sum", metadata={"choices": tuple(AGGREGATION_RULES)})
    samples_cap: int = field(
        default=100_000, metadata={"min": 1, "max": SAMPLES_CAP_MAX, "help": "largest weight that an update may claim"}
    )
    privacy: str = field(default="none", metadata={"choices": tuple(MECHANISMS)})
    clip_norm: float = field(default=10.0, metadata={"min": 0.001, "max": 1e6, "help": "largest L2 norm of an update"})
    noise_multiplier: float = field(default=0.0, metadata={"min": 0.0, "max": 1e3, "help": "in units of clip_norm"})


@dataclass(frozen=True)
class RewardRules:
    """Which updates are accepted, and their reward."""

    consensus: str = field(default="bft", metadata={"choices": tuple(CONSENSUS_RULES), "help": "pow: simulator only"})
    proposer_rule: str = field(default="pok", metadata={"choices": tuple(PROPOSER_RULES)})
    score_margin_percent: float = field(
        default=30.0,
        metadata={"min": 0.0, "max": 100.0, "help": "points that an update may be below the base"},
    )
    reward_rule: str = field(default="per-update", metadata={"choices": tuple(REWARD_RULES)})
    reward_per_update: int = field(default=1_000, metadata={"min": 0, "max": 10**9})


@dataclass(frozen=True)
class ScoreRules:
    """The reward for scoring, and which scores are outliers."""

    reward_for_scores: int = field(
        default=1_000,
        metadata={"min": 0, "max": 10**9, "help": "per round, for its scorers and their delegators"},
    )
    outlier_percent: float = field(
        default=30.0,
        metadata={"min": 0.0, "max": 100.0, "help": "points off the median gain at which a scorer earns nothing"},
    )
    mining_weight_percent: float = field(
        default=10.0, metadata={"min": 0.0, "max": 33.33, "help": "weight of all mining devices' scores together"}
    )


@dataclass(frozen=True)
class StakeRules:
    """How validators are elected and punished. Amounts are in the chain's smallest unit."""

    seats: int = field(
        default=21,
        metadata={"min": 1, "max": VALIDATORS_MAX, "help": "validators: the candidates with most stake"},
    )
    power_cap_percent: float = field(
        default=30.0,
        metadata={"min": 0.01, "max": 33.33, "help": "largest voting power of one validator"},
    )
    bond_min: int = field(
        default=100, metadata={"min": 1, "max": 2**31 - 1, "help": "smallest own stake of a candidate"}
    )
    stake_min: int = field(default=10, metadata={"min": 1, "max": 2**31 - 1, "help": "smallest delegation"})
    order_fee: int = field(default=1, metadata={"min": 0, "max": 2**31 - 1, "help": "burned for every order"})
    slash_percent: float = field(
        default=5.0, metadata={"min": 0.0, "max": 100.0, "help": "of the stake behind a validator that signs twice"}
    )
    jail_rounds: int = field(default=100, metadata={"min": 1, "max": 2**31 - 1, "help": "without a seat after that"})
    evidence_heights_max: int = field(
        default=100_000, metadata={"min": 1, "max": 2**31 - 1, "help": "oldest offence that is punished, in blocks"}
    )


@dataclass(frozen=True)
class ValidatorLine:
    """A miner that is a candidate from the start."""

    public_key: str = field(
        metadata={"pattern": KEY_PATTERN, "form": HASH_FORM, "help": "from: flchain-miner key", "example": "ab" * 32}
    )
    bond: int = field(default=1_000, metadata={"min": 1, "max": 2**31 - 1, "help": "its own stake"})
    commission_percent: float = field(
        default=10.0, metadata={"min": 0.0, "max": 100.0, "help": "kept of rewards before delegators get their share"}
    )


@dataclass(frozen=True)
class DeviceLine:
    """A device that may send updates."""

    public_key: str = field(
        metadata={"pattern": KEY_PATTERN, "form": HASH_FORM, "help": "from: flchain-agent key", "example": "cd" * 32}
    )
    home: str = field(
        metadata={
            "pattern": KEY_PATTERN,
            "form": HASH_FORM,
            "help": "public key of the miner it belongs to",
            "example": "ab" * 32,
        }
    )


@dataclass(frozen=True)
class HolderLine:
    """An account that owns money from the start, to pay and to delegate."""

    public_key: str = field(
        metadata={"pattern": KEY_PATTERN, "form": HASH_FORM, "help": "from: flchain-miner key", "example": "ef" * 32}
    )
    balance: int = field(default=1_000, metadata={"min": 1, "max": 2**53})


@dataclass(frozen=True)
class NetworkSettings:
    """The network file, from which the genesis for every node is made."""

    name: str = field(
        metadata={
            "pattern": "[A-Za-z0-9_-]{1,64}",
            "form": "at most 64 letters, digits, _ and -",
            "help": "for people",
            "example": "field-1",
        }
    )
    model: Path = field(metadata={"help": "the .tflite file that all devices train", "example": "model.tflite"})
    preset: str = field(default="edge", metadata={"choices": tuple(PRESETS), "help": "how long miners wait"})
    training: TrainingRules = field(default_factory=TrainingRules)
    update: UpdateRules = field(default_factory=UpdateRules)
    reward: RewardRules = field(default_factory=RewardRules)
    score: ScoreRules = field(default_factory=ScoreRules)
    stake: StakeRules = field(default_factory=StakeRules)
    validators: tuple[ValidatorLine, ...] = ()
    devices: tuple[DeviceLine, ...] = ()
    holders: tuple[HolderLine, ...] = ()


def build_genesis(settings: NetworkSettings, time_ms: int) -> Genesis:
    """Return the genesis of a network that is made at `time_ms` (since 1970).

    Raises ConfigError for a model that cannot train, and for keys that are invalid, duplicate or unknown.
    """
    model_file = load_trainable(settings.model, "model")
    validators = tuple(
        ValidatorEntry(bytes.fromhex(v.public_key), v.bond, round(v.commission_percent * 100))
        for v in settings.validators
    )
    devices = tuple(
        DeviceEntry(bytes.fromhex(d.public_key), compute_address(bytes.fromhex(d.home))) for d in settings.devices
    )
    holders = tuple(HolderEntry(bytes.fromhex(h.public_key), h.balance) for h in settings.holders)
    if not validators:
        raise ConfigError((f"network {settings.name}: at least one [[validators]] is needed",))
    genesis = Genesis(1, settings.name, time_ms, _build_params(settings, model_file), validators, devices, holders)
    # Checked like a stranger's genesis: unknown plug-in names, keys and homes fail here.
    return decode_genesis(encode_genesis(genesis))


def _build_params(settings: NetworkSettings, model_file: bytes) -> ChainParams:
    model = TfliteModel(model_file)
    initial_model = compute_initial_model(model)
    update, reward, training = settings.update, settings.reward, settings.training
    score, stake = settings.score, settings.stake
    return ChainParams(
        codec=update.codec,
        codec_level=update.codec_level,
        downstream_codec=update.downstream_codec,
        downstream_level=update.downstream_level,
        aggregation=update.aggregation,
        privacy=update.privacy,
        clip_norm_thousandths=round(update.clip_norm * 1000),
        noise_multiplier_thousandths=round(update.noise_multiplier * 1000),
        consensus=reward.consensus,
        proposer_rule=reward.proposer_rule,
        model_digest=hashlib.sha256(model_file).digest(),
        parameters_count=model.parameters_count,
        initial_model_hash=hash_model(initial_model),
        local_epochs=training.local_epochs,
        batch_size=training.batch_size,
        learning_rate_millionths=round(training.learning_rate * 1e6),
        samples_cap=update.samples_cap,
        score_margin_bp=round(reward.score_margin_percent * 100),
        reward_rule=reward.reward_rule,
        reward_per_update=reward.reward_per_update,
        reward_for_scores=score.reward_for_scores,
        score_outlier_bp=round(score.outlier_percent * 100),
        mining_weight_bp=round(score.mining_weight_percent * 100),
        seats=stake.seats,
        power_cap_bp=round(stake.power_cap_percent * 100),
        bond_min=stake.bond_min,
        stake_min=stake.stake_min,
        order_fee=stake.order_fee,
        evidence_heights_max=stake.evidence_heights_max,
        slash_bp=round(stake.slash_percent * 100),
        jail_rounds=stake.jail_rounds,
        **PRESETS[settings.preset],
    )


def format_genesis(genesis: Genesis) -> str:
    """Return the genesis as text, one fact per line."""
    lines = [f"name      {genesis.name}", f"chain id  {genesis.compute_id().hex()}", "", "parameters"]
    for name in genesis.params.__struct_fields__:
        value = getattr(genesis.params, name)
        lines.append(f"  {name:<30}{value.hex() if isinstance(value, bytes) else value}")
    lines += ["", f"validators ({len(genesis.validators)}): address, bond, commission in basis points"]
    lines += [f"  {_format_address(e.public_key)}  {e.bond}  {e.commission_bp}" for e in genesis.validators]
    lines += ["", f"devices ({len(genesis.devices)}): address, home"]
    lines += [f"  {_format_address(entry.public_key)}  {entry.home.hex()}" for entry in genesis.devices]
    lines += ["", f"holders ({len(genesis.holders)}): address, balance"]
    lines += [f"  {_format_address(entry.public_key)}  {entry.balance}" for entry in genesis.holders]
    return "\n".join(lines)


def _format_address(public_key: bytes) -> str:
    return compute_address(public_key).hex()


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain genesis",
        description="Make or show the genesis of a chain.",
        epilog="examples:\n"
        "  flchain genesis example > network.toml    write one, then edit it\n"
        "  flchain genesis make --network network.toml --out genesis.cbor\n"
        "  flchain genesis show genesis.cbor",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    make = add_command(actions, "make", "make a genesis file from a network file (TOML)")
    make.add_argument("--network", type=Path, required=True, metavar="FILE", help="see: flchain genesis example")
    make.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write; never overwritten")
    show = add_command(actions, "show", "print the parameters, validators, devices and holders of a genesis file")
    show.add_argument("file", type=Path, metavar="FILE", help="a genesis file")
    add_command(actions, "example", "print a commented network file")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run `flchain genesis`. Raises ConfigError."""
    arguments = _build_parser().parse_args(argv)
    if arguments.action == "example":
        print(render_example(NetworkSettings), end="")
    elif arguments.action == "show":
        print(format_genesis(load_genesis(arguments.file)))
    else:
        genesis = build_genesis(load_config(arguments.network, NetworkSettings), time.time_ns() // 1_000_000)
        try:
            with arguments.out.open("xb") as stream:
                stream.write(encode_genesis(genesis))
        except OSError as error:
            raise ConfigError((f"{arguments.out}: {error.strerror or error}",)) from error
        print(
            f"{arguments.out}: chain {genesis.compute_id().hex()[:16]}, {len(genesis.validators)} validators, "
            f"{len(genesis.devices)} devices; copy it and {arguments.network.name}'s model to every node"
        )
    return 0
