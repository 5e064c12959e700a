"""Nodes set up as an operator does it: by the commands, a folder each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import tools
from tools.network.broker import Broker

MODEL = Path(tools.__file__).parent / "models" / "mlp.tflite"


def run(*command: str) -> str:
    """Run a module's command to its end and return what it printed. Fails if it does."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_node(folder: Path, role: str, broker: Broker, seed: int, options: str = "") -> str:
    """Write configuration, data and key of one node; return its public key as `key` prints it.

    `options` are further lines of the configuration file, above its first section.
    """
    folder.mkdir()
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, 64)
    x = rng.random((64, 784), np.float32) * 0.2
    x[np.arange(64), y * 50] += 0.8
    np.savez(folder / "examples.npz", x=x, y=y.astype(np.int32))
    (folder / f"{role}.toml").write_text(
        f'genesis = "../genesis.cbor"\nmodel = "../model.tflite"\nexamples = "examples.npz"\ndata_dir = "data"\n'
        f'{options}[key]\nfile = "key.pem"\n[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\n'
    )
    printed = run(f"{role}.cli", "key", "--config", str(folder / f"{role}.toml"))
    return next(word for word in printed.split() if len(word) == 64)
