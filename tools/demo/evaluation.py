"""Accuracy on examples nobody trained on, measured beside the running network and told apart from its time."""

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
    """The held-out part of a network's folder, and the model that judges it. One evaluation at a time."""

    def __init__(self, out: Path) -> None:
        self._model = TfliteModel((out / "model.tflite").read_bytes())
        self._examples = load_examples(out / "test.npz", self._model)
        self.initial_model = compute_initial_model(self._model)
        self._lock = asyncio.Lock()

    async def evaluate(self, model: ModelVector) -> tuple[float, float]:
        """Accuracy 0..1 and the seconds it took, in a thread: the observer goes on meanwhile."""
        async with self._lock:
            return await asyncio.to_thread(self._evaluate, model)

    def _evaluate(self, model: ModelVector) -> tuple[float, float]:
        start = time.monotonic()
        self._model.set_weights(np.ascontiguousarray(to_float(model), np.float32))
        correct, _ = self._model.evaluate(self._examples.x, self._examples.y)
        return correct / len(self._examples), time.monotonic() - start
