"""Scoring on a miner's own data: accuracy of a model in basis points, in one thread beside the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from flchain.base.types import ModelVector
from flchain_edge.model.model_files import Examples, compute_score_bp
from flchain_edge.model.tflite import TfliteModel


class TfliteScorer:
    """Evaluates models one after the other; the examples are never sent anywhere."""

    def __init__(self, model: TfliteModel, examples: Examples) -> None:
        self._model = model
        self._examples = examples
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")

    async def score(self, vector: ModelVector) -> int:
        """Return the accuracy of the model vector, shape (P,), in basis points: floor(10,000 * correct / examples)."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._score, vector)

    def _score(self, vector: ModelVector) -> int:
        return compute_score_bp(self._model, self._examples, vector)

    def stop(self) -> None:
        """Drop what waits, and do not wait for the score that is being computed."""
        self._thread.shutdown(wait=False, cancel_futures=True)
