"""Read the files that training and scoring need: model and examples. Import nothing of chain, keys or network.

So a process that only computes on them stays small.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from flchain.base.errors import ConfigError, FlchainError
from flchain.base.fixedpoint import to_fixed, to_float
from flchain.base.types import SHARE_ALL

if TYPE_CHECKING:
    from flchain.base.types import ModelVector
    from flchain_edge.model.tflite import TfliteModel

MODEL_BYTES_MAX = 64_000_000
ZIP_MAGIC = b"PK\x03\x04"
SCORE_BATCH = 64
"""Rows between two calls of `on_batch`. Larger batches need more memory and are not faster."""


class NoWindows(FlchainError):
    """There are too few usable windows; the text says why. Not an error: samples and labels may still come."""


class ModelShape(Protocol):
    """What examples have to fit."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one example, without the batch."""

    @property
    def classes(self) -> int:
        """Return the number of classes; labels are 0 to one less."""


@dataclass(frozen=True, eq=False)
class Examples:
    """A node's own data: x float32 (N, *input shape), y int32 (N,)."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.y)


def read_file(path: Path, what: str, bytes_max: int) -> bytes:
    """Return the whole file. Raise ConfigError, also if it is longer than `bytes_max`."""
    try:
        with path.open("rb") as stream:
            # Reading allocates as many bytes as it is asked for: 64 MB for any model, which a board may not have.
            data = stream.read(min(os.fstat(stream.fileno()).st_size, bytes_max) + 1)
    except OSError as error:
        raise ConfigError((f"{what} {path}: {error.strerror or error}",)) from error
    if len(data) > bytes_max:
        raise ConfigError((f"{what} {path}: more than {bytes_max} bytes",))
    return data


def read_model_file(path: Path, digest: bytes) -> bytes:
    """Read the .tflite file with this SHA-256, the genesis's. Raise ConfigError for another file."""
    data = read_file(path, "model", MODEL_BYTES_MAX)
    found = hashlib.sha256(data).digest()
    if found != digest:
        raise ConfigError((f"model {path}: SHA-256 is {found.hex()}, the genesis wants {digest.hex()}",))
    return data


def compute_initial_model(model: TfliteModel) -> ModelVector:
    """Return the model of round 0: the file's own initial weights at the chain's fixed scale, shape (P,)."""
    model.init()
    return to_fixed(model.get_weights())


def compute_score_bp(
    model: TfliteModel, examples: Examples, vector: ModelVector, on_batch: Callable[[], object] = lambda: None
) -> int:
    """Return the accuracy of the model vector, shape (P,), in basis points: floor(10,000 * correct / examples).

    `on_batch` is called before each batch, for a caller that has to show progress.
    """
    model.set_weights(to_float(vector))
    correct = 0
    for start in range(0, len(examples), SCORE_BATCH):
        on_batch()
        rows = slice(start, start + SCORE_BATCH)
        correct += model.evaluate(examples.x[rows], examples.y[rows])[0]
    return SHARE_ALL * correct // len(examples)


def hold_out(examples: Examples, percent: int) -> tuple[Examples, Examples]:
    """Return the examples to train on and those to score on: `percent` (1 to 50) of the rows, spread evenly.

    Raise ConfigError if that is not even one row.
    """
    held_before = np.arange(len(examples) + 1) * percent // 100
    is_held = np.diff(held_before) > 0
    if not is_held.any():
        what = f"{percent}% of {len(examples)} examples leaves none to score on"
        raise ConfigError((f"[mining] holdout_percent: {what}",))
    train, held = (Examples(examples.x[rows], examples.y[rows]) for rows in (~is_held, is_held))
    return train, held


def load_part(path: Path, model: ModelShape, holdout_percent: int, *, is_held_out: bool) -> Examples:
    """Return the rows of a file that are held out, or the others: all rows if none are held out. Raise ConfigError."""
    examples = load_examples(path, model)
    return hold_out(examples, holdout_percent)[is_held_out] if holdout_percent else examples


def load_examples(path: Path, model: ModelShape) -> Examples:
    """Read arrays x and y of a .npz file and check that they fit the model. Raise ConfigError with all problems."""
    import zipfile  # np.load needs it, and only it

    try:
        with path.open("rb") as stream:
            if stream.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
                raise ConfigError((f"data {path}: is not an .npz file (numpy.savez)",))
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:
                if missing := [name for name in ("x", "y") if name not in arrays]:
                    raise ConfigError((f"data {path}: no array {' and no array '.join(missing)}",))
                x, y = arrays["x"], arrays["y"]
    except OSError as error:
        raise ConfigError((f"data {path}: {error.strerror or error}",)) from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ConfigError((f"data {path}: is damaged or incomplete: {error}",)) from error
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
