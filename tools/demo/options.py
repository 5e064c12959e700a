"""The options of `flchain demo`, checked together and completed by the plan of an earlier run in the same folder."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from flchain.aggregation import AGGREGATION_RULES
from flchain.base.errors import ConfigError
from flchain.base.frozen import replace
from flchain.codecs import CODECS, DOWNSTREAM_RULES
from flchain.codecs.codec import LEVEL_MAX
from flchain.ledger.params import DEVICES_MAX
from flchain.wire.fields import VALIDATORS_MAX
from flchain_edge.model.tflite import TfliteModel
from flchain_edge.process.chain_files import load_trainable
from flchain_edge.process.command_line import CommandParser
from tools.demo.measures import load_measures
from tools.network.broker import BrokerKind
from tools.network.datasets import DATASETS, Dataset, load_dataset, load_npz
from tools.network.layout import PLAN_FILE, Plan, get_model_file

DEFAULTS: dict[str, object] = {
    "devices": 8,
    "miners": 4,
    "seed": 1,
    "codec": "sparse-ternary",
    "codec_level": 0,
    "downstream_codec": "sparse-ternary",
    "downstream_level": 0,
    "follow": "full",
    "aggregation": "weighted-sum",
    "preset": "edge",
    "local_epochs": 0,
    "batch_size": 32,
    "learning_rate": 0.0,
    "mining": 0,
}
"""Local epochs and learning rate 0 stand for the value that suits the data and the model, codec level 0 for the codec's
default."""
SUITED = {("watch", "cnn1d"): (5, 0.1), ("mnist", "mlp"): (2, 0.05), ("mnist", "cnn"): (2, 0.02)}
SUITED_TO_UNKNOWN = (5, 0.02)
Number = TypeVar("Number", int, float)
NUMBER_NAMES: dict[type[int | float], str] = {int: "whole number", float: "number"}
BOUNDS: dict[str, tuple[int, int]] = {
    "devices": (1, DEVICES_MAX),
    "miners": (1, VALIDATORS_MAX),
    "rounds": (1, 1_000_000),
    "seed": (0, 2**32 - 1),
    "codec_level": (1, LEVEL_MAX),
    "downstream_level": (1, LEVEL_MAX),
    "local_epochs": (1, 1_000),
    "mining": (0, DEVICES_MAX),
}
"""Whole numbers: the smallest and the largest value of each option."""
LEARNING_RATES = (1e-6, 10.0)
ROUNDS = 8
FOLLOW = ("full", "light")
ALL = str(DEVICES_MAX)
BROKERS: tuple[BrokerKind, ...] = ("nats", "mosquitto")
NAMES: dict[str, Collection[str]] = {
    "codec": CODECS,
    "downstream_codec": DOWNSTREAM_RULES,
    "follow": FOLLOW,
    "aggregation": AGGREGATION_RULES,
    "broker": BROKERS,
}
"""The known names of each option that takes one."""

EXAMPLES = """\
examples:
  flchain demo                    8 people's watches learn to tell 7 exercises
  flchain demo --dataset mnist --rounds 20
                                  handwritten digits, dealt unevenly
  flchain demo --dataset-file mine.npz --model cnn
                                  your data: arrays x, y and client (whose)
  flchain demo --codec identity   whole updates instead of compressed ones
  flchain demo --follow light     devices download only the result of a round
  flchain demo --mining 3         three devices also score the others' updates
  flchain demo --out DIR --rounds 20
                                  resume a network, or add rounds to it
  flchain demo --json 2>/dev/null one JSON object on stdout

Ctrl-C stops all processes cleanly; the chain stays valid, and --out resumes it.
"""


@dataclass(frozen=True)
class Options:
    """A checked command line. `dataset_file` is None for a built-in dataset."""

    plan: Plan
    rounds: int
    out: Path
    broker: BrokerKind
    dataset_file: Path | None
    is_json: bool

    @property
    def is_resumed(self) -> bool:
        """True if the folder already holds a whole network."""
        return (self.out / PLAN_FILE).exists()


def load_data(options: Options) -> tuple[Plan, Dataset]:
    """Return the plan with its model and training filled in, and the data in the form the model reads.

    Raises ConfigError.
    """
    model, file = options.plan.model or None, options.dataset_file
    dataset = load_npz(file, model) if file else load_dataset(options.plan.dataset, model)
    check_model(dataset)
    epochs, rate = SUITED.get((options.plan.dataset, dataset.model), SUITED_TO_UNKNOWN)
    epochs, rate = options.plan.local_epochs or epochs, options.plan.learning_rate or rate
    return replace(options.plan, model=dataset.model, local_epochs=epochs, learning_rate=rate), dataset


def build_parser() -> argparse.ArgumentParser:
    """Return the parser. Numbers and names are checked later, so that all problems are reported at once."""
    parser = CommandParser(
        prog="flchain demo",
        description="Run a whole network on this machine: miners, agents and a broker, each a process of its own.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--devices", metavar="N", help="agents (default 8)")
    add("--miners", metavar="N", help="miners; with 4 the network survives the loss of one (default 4)")
    add("--rounds", metavar="N", help=f"rounds of training (default {ROUNDS})")
    add("--seed", metavar="N", help="decides how the data is split (default 1)")
    add("--dataset", metavar="NAME", help=f"one of {', '.join(DATASETS)} (default watch)")
    add("--dataset-file", type=Path, metavar="X.npz", help="your own data: arrays x, y, client")
    add("--model", metavar="NAME|FILE", help="a built-in model or a .tflite file (default: the dataset's own)")
    add("--codec", metavar="NAME", help=f"one of {', '.join(CODECS)} (default sparse-ternary)")
    add("--codec-level", metavar="N", help="how hard it compresses; sparse-ternary sends one parameter in N (20)")
    add(
        "--downstream-codec",
        metavar="NAME",
        help=f"codec of the global model: {', '.join(DOWNSTREAM_RULES)} (default sparse-ternary)",
    )
    add("--downstream-level", metavar="N", help="as --codec-level, for --downstream-codec")
    add("--follow", metavar="HOW", help="full: devices download all updates; light: only the result (default full)")
    add("--local-epochs", metavar="N", help="passes over its data per round (default: suits data and model)")
    add("--learning-rate", metavar="R", help="of the devices' training (default: suits data and model)")
    add("--aggregation", metavar="NAME", help=f"one of {', '.join(AGGREGATION_RULES)} (default weighted-sum)")
    add("--mining", nargs="?", const=ALL, metavar="N", help="N agents (all if N is left out) also score updates")
    add("--broker", metavar="NAME", default="nats", help=f"one of {', '.join(BROKERS)} (default nats)")
    add("--out", type=Path, metavar="DIR", help="folder of the network; resumes one that exists (default: a new one)")
    add("--json", action="store_true", help="print one JSON object on stdout at the end, everything else on stderr")
    return parser


def read_options(argv: list[str]) -> Options:
    """Parse and check. Raises ConfigError with every problem found."""
    given = build_parser().parse_args(argv)
    out = given.out or Path("flchain-demo") / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    earlier = _read_earlier_plan(out)
    asked = _check_options(given, earlier)
    rounds = asked.pop("rounds", None) or load_measures(out).rounds_wanted or ROUNDS
    plan = _build_plan(asked, earlier)
    return Options(plan, int(str(rounds)), out, given.broker, given.dataset_file, given.json)


def _check_options(given: argparse.Namespace, earlier: dict[str, object]) -> dict[str, object]:
    """Return the values that were given, by name. Raises ConfigError with every problem."""
    problems: list[str] = []
    asked: dict[str, object | None] = {
        key: _read_number(problems, key, getattr(given, key), low, high) for key, (low, high) in BOUNDS.items()
    }
    asked["learning_rate"] = _read_number(problems, "learning_rate", given.learning_rate, *LEARNING_RATES)
    for key, known in NAMES.items():
        _check_name(problems, key, getattr(given, key), known)
    asked |= {key: getattr(given, key) for key in NAMES if key != "broker"}
    asked["dataset"] = dataset = _name_dataset(problems, given.dataset, given.dataset_file, earlier)
    asked["model"] = _name_model(problems, given.model, dataset, earlier)
    if problems:
        raise ConfigError(tuple(problems))
    return {key: value for key, value in asked.items() if value is not None}


def _build_plan(asked: dict[str, object], earlier: dict[str, object]) -> Plan:
    """Complete what was asked for by the folder's plan, so that `--out DIR` alone resumes it, and by defaults."""
    values = DEFAULTS | earlier | asked
    codec = CODECS[str(values["codec"])]
    values["codec_level"] = values["codec_level"] or codec.level_default
    if codec.decode_summary is not None and "downstream_codec" not in asked:  # such a codec is used both ways
        values |= {"downstream_codec": values["codec"], "downstream_level": values["codec_level"]}
    values["downstream_level"] = values["downstream_level"] or CODECS[str(values["downstream_codec"])].level_default
    values["mining"] = min(int(str(values["mining"])), int(str(values["devices"])))
    return Plan(**{key: values[key] for key in Plan.__dataclass_fields__})  # type: ignore[arg-type]


def check_model(dataset: Dataset) -> None:
    """Raise ConfigError if the model is missing, cannot train, or does not read the dataset's examples."""
    model = TfliteModel(load_trainable(get_model_file(dataset.model), "--model"))
    problems = []
    if model.input_shape != dataset.x.shape[1:]:
        shape = dataset.x.shape[1:]
        problems.append(f"--model {dataset.model}: reads examples of shape {model.input_shape}, the data has {shape}")
    if model.classes < dataset.classes:
        problems.append(f"--model {dataset.model}: has {model.classes} classes, the data has {dataset.classes}")
    if problems:
        raise ConfigError(tuple(problems))


def _read_earlier_plan(out: Path) -> dict[str, object]:
    try:
        found = json.loads((out / PLAN_FILE).read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError((f"--out: {out / PLAN_FILE}: {error.strerror or error}",)) from error
    except ValueError as error:
        raise ConfigError((f"--out: {out / PLAN_FILE} is damaged: {error}",)) from error
    if not isinstance(found, dict) or not Plan.__dataclass_fields__.keys() <= found.keys():
        raise ConfigError((f"--out: {out / PLAN_FILE} is not the plan of a network",))
    return found


def _read_number(problems: list[str], key: str, text: str | None, low: Number, high: Number) -> Number | None:
    """Return the number, a whole one if its bounds are; None with a problem noted if it is wrong."""
    if text is None:
        return None
    try:
        value = type(low)(text)
    except ValueError:
        problems.append(f"{_name_option(key)}: must be a {NUMBER_NAMES[type(low)]}, is {text!r}")
        return None
    if not low <= value <= high:
        problems.append(f"{_name_option(key)}: must be {low} to {high}, is {value}")
        return None
    return value


def _name_option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _check_name(problems: list[str], key: str, value: str | None, known: Collection[str]) -> None:
    if value is not None and value not in known:
        problems.append(f"{_name_option(key)}: unknown name {value!r}; known: {', '.join(known)}")


def _name_dataset(problems: list[str], name: str | None, file: Path | None, earlier: dict[str, object]) -> str:
    """Return the name for the plan: a known one, or a file's name and digest, since file names are not unique."""
    _check_name(problems, "dataset", name, DATASETS)
    if file is None:
        return name or str(earlier.get("dataset", "watch"))
    if name is not None:
        problems.append("--dataset and --dataset-file: give only one of them")
    try:
        return f"{file.stem}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"
    except OSError as error:
        problems.append(f"--dataset-file: {file}: {error.strerror or error}")
        return ""


def _name_model(problems: list[str], model: str | None, dataset: str, earlier: dict[str, object]) -> str | None:
    if model is None:
        return None if "model" in earlier else ""
    try:
        get_model_file(model)
    except ConfigError as error:
        problems += [f"--{problem}" for problem in error.problems]
    return model
