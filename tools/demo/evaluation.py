"""Accuracy on held-out examples, measured while the network runs; its time is counted separately."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np

from flchain.base.fixedpoint import to_float
from flchain.base.types import ModelVector
from flchain_edge.model.model_files import compute_initial_model, load_examples
from flchain_edge.model.tflite import TfliteModel


class Evaluator:
    """Evaluates models on the held-out examples of a network's folder, one at a time."""

    def __init__(self, out: Path) -> None:
        self._model = TfliteModel((out / "model.tflite").read_bytes())
        self._examples = load_examples(out / "test.npz", self._model)
        self.initial_model = compute_initial_model(self._model)
        self._lock = asyncio.Lock()

    async def evaluate(self, model: ModelVector) -> tuple[float, float]:
        """Return the accuracy, 0 to 1, and the seconds taken. Runs in a thread, so that the observer is not held up."""
        async with self._lock:
            return await asyncio.to_thread(self._evaluate, model)

    def _evaluate(self, model: ModelVector) -> tuple[float, float]:
        start = time.monotonic()
        self._model.set_weights(np.ascontiguousarray(to_float(model), np.float32))
        correct, _ = self._model.evaluate(self._examples.x, self._examples.y)
        return correct / len(self._examples), time.monotonic() - start
