"""What a worker works on: a small model that comes with the project, and examples whose class shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from agent.edge.workers.frames import WorkerSpec

MODEL = Path(__file__).resolve().parents[3] / "tools" / "models" / "cnn1d.tflite"
PARAMETERS, ROWS = 12_519, 200


def write_worker_spec(folder: Path) -> WorkerSpec:
    """Write examples into a folder; return what a worker is told of them and of the model."""
    rng = np.random.default_rng(5)
    y = np.arange(ROWS) % 4
    x = rng.normal(0, 0.5, (ROWS, 100, 6)) + y[:, None, None]
    np.savez(folder / "examples.npz", x=x.astype(np.float32), y=y)
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    return WorkerSpec(str(MODEL), digest, str(folder / "examples.npz"), learning_rate=0.05)
