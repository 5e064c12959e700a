"""Read the genesis file and the model that it names."""

from __future__ import annotations

from pathlib import Path

from flchain.base.errors import ConfigError
from flchain.consensus import CONSENSUS_RULES
from flchain.ledger.genesis import GENESIS_BYTES_MAX, Genesis, decode_genesis
from flchain_edge.model.model_files import MODEL_BYTES_MAX, read_file, read_model_file


def load_genesis(path: Path) -> Genesis:
    """Read and check a genesis file. Raise ConfigError."""
    try:
        genesis = decode_genesis(read_file(path, "genesis", GENESIS_BYTES_MAX))
    except ConfigError as error:
        raise ConfigError(tuple(p if str(path) in p else f"{path}: {p}" for p in error.problems)) from error
    if not CONSENSUS_RULES[genesis.params.consensus].is_final_at_once:
        hint = "nodes need final blocks; compare the rules with: flchain bench consensus"
        raise ConfigError(
            (f"{path}: genesis: consensus: {genesis.params.consensus!r} only runs in simulations: {hint}",)
        )
    return genesis


def load_trainable(path: Path, what: str) -> bytes:
    """Read a .tflite file that nobody has vouched for, and try it in a child process. Raise ConfigError; `what` and
    the path say which file it is about."""
    from flchain_edge.model.tflite import probe_model  # a running agent never loads the runtime (docs/decisions/0011)

    data = read_file(path, what, MODEL_BYTES_MAX)
    try:
        probe_model(data)
    except ConfigError as error:
        problems = (problem.removeprefix("model: ") for problem in error.problems)
        raise ConfigError(tuple(f"{what} {path}: {problem}" for problem in problems)) from error
    return data


def load_model_file(path: Path, genesis: Genesis) -> bytes:
    """Read the .tflite file that the genesis names by its SHA-256. Raise ConfigError for another file."""
    return read_model_file(path, genesis.params.model_digest)
