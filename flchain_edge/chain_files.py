"""The files a node starts from: genesis, model and examples, each checked against what the genesis says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flchain.consensus import CONSENSUS_RULES
from flchain.errors import ConfigError
from flchain.fixedpoint import to_fixed
from flchain.genesis import Genesis, decode_genesis
from flchain.types import ModelVector
from flchain_edge.tflite import TfliteModel

MODEL_BYTES_MAX = 64_000_000


@dataclass(frozen=True, eq=False)
class Examples:
    """A node's own data: x float32 (N, *input shape), y int32 (N,)."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.y)


def _read(path: Path, what: str, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError((f"{what} {path}: {error.strerror or error}",)) from error
    if len(data) > bytes_max:
        raise ConfigError((f"{what} {path}: more than {bytes_max} bytes",))
    return data


def load_genesis(path: Path) -> Genesis:
    """Read and check a genesis file. Raises ConfigError."""
    try:
        genesis = decode_genesis(_read(path, "genesis", 1_000_000))
    except ConfigError as error:
        raise ConfigError(tuple(p if str(path) in p else f"{path}: {p}" for p in error.problems)) from error
    if not CONSENSUS_RULES[genesis.params.consensus].is_final_at_once:
        hint = "nodes and their devices need final blocks; compare the rules with: flchain bench consensus"
        raise ConfigError(
            (f"{path}: genesis: consensus: {genesis.params.consensus!r} runs in simulations only: {hint}",)
        )
    return genesis


def load_model_file(path: Path, genesis: Genesis) -> bytes:
    """Read the .tflite file that the genesis names by its SHA-256. Raises ConfigError for another file."""
    data = _read(path, "model", MODEL_BYTES_MAX)
    found, wanted = hashlib.sha256(data).digest(), genesis.params.model_digest
    if found != wanted:
        raise ConfigError((f"model {path}: SHA-256 is {found.hex()}, the genesis wants {wanted.hex()}",))
    return data


def compute_initial_model(model: TfliteModel) -> ModelVector:
    """The model of round 0: the file's own initial weights, at the chain's fixed scale, shape (P,)."""
    model.init()
    return to_fixed(model.get_weights())


def hold_out(examples: Examples, percent: int) -> tuple[Examples, Examples]:
    """To train on, and to score on: `percent` (1 to 50) of the rows, spread evenly over the file, are never trained on.

    Raises ConfigError if that is not even one.
    """
    held_before = np.arange(len(examples) + 1) * percent // 100
    is_held = np.diff(held_before) > 0
    if not is_held.any():
        what = f"{percent}% of {len(examples)} examples are none to score on"
        raise ConfigError((f"[mining] holdout_percent: {what}",))
    train, held = (Examples(examples.x[rows], examples.y[rows]) for rows in (~is_held, is_held))
    return train, held


def load_examples(path: Path, model: TfliteModel) -> Examples:
    """Read arrays x and y of a .npz file and check that they fit the model. Raises ConfigError with all problems."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if missing := [name for name in ("x", "y") if name not in arrays]:
                raise ConfigError((f"data {path}: no array {' and no array '.join(missing)}",))
            x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError((f"data {path}: {error}",)) from error
    problems = []
    if x.shape[1:] != model.input_shape:
        problems.append(
            f"data {path}: x has shape {x.shape}, the model takes (N, {', '.join(map(str, model.input_shape))})"
        )
    if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        problems.append(f"data {path}: y must hold one integer label per row of x")
    elif len(y) == 0 or y.min() < 0 or y.max() >= model.classes:
        problems.append(f"data {path}: labels must be 0 to {model.classes - 1}, and at least one row is needed")
    if not np.issubdtype(x.dtype, np.number) or not np.isfinite(x).all():
        problems.append(f"data {path}: x must hold finite numbers")
    if problems:
        raise ConfigError(tuple(problems))
    return Examples(np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.int32))
