"""Training on the device's own data: SGD in a TFLite interpreter, in one thread beside the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from agent.edge.dataset import NoWindows
from agent.values import TrainingDone
from flchain.fixedpoint import to_float
from flchain.params import ChainParams
from flchain.types import ModelVector, Round
from flchain_edge.model_files import Examples
from flchain_edge.tflite import TfliteModel

log = logging.getLogger("agent.trainer")

LOAD_AGAIN_S = 2.0
"""While the sensors have given too few windows, they are looked at so often until the round is over."""


class Trainer:
    """Trains one round at a time; a newer round stops the older one at its next step."""

    def __init__(self, model: TfliteModel, load: Callable[[], Examples], params: ChainParams) -> None:
        """`load` is called at the start of every round, in the training thread: sensors may have given more."""
        self._model = model
        self._load = load
        self._params = params
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trainer")
        self._stop = threading.Event()

    async def train(self, round_number: Round, vector: ModelVector) -> TrainingDone | None:
        """Local epochs of SGD from the model vector, shape (P,); None if a newer round took over."""
        self._stop.set()
        stop = self._stop = threading.Event()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._train, round_number, vector, stop)

    def _train(self, round_number: Round, vector: ModelVector, stop: threading.Event) -> TrainingDone | None:
        started = time.monotonic()
        if (examples := self._wait_for_examples(stop)) is None:
            return None
        base = to_float(vector)
        self._model.set_weights(base)
        # From the data and the round alone, so that a run can be repeated; the noise below must be nobody's to repeat.
        rng = np.random.default_rng((round_number, zlib.crc32(examples.x.tobytes())))
        size, losses = self._params.batch_size, [0.0]
        for _ in range(self._params.local_epochs):
            order = rng.permutation(len(examples))
            losses = []
            for start in range(0, len(order), size):
                if stop.is_set():
                    return None
                rows = order[start : start + size]
                x, y = examples.x[rows], examples.y[rows]
                losses.append(self._model.train_step(x, y, self._params.learning_rate_millionths / 1e6))
        needs_noise = self._params.noise_multiplier_thousandths > 0
        return TrainingDone(
            round=round_number,
            delta=self._model.get_weights() - base,
            samples=len(examples),
            training_ms=round((time.monotonic() - started) * 1000),
            loss=float(np.mean(losses)),
            standard_normals=np.random.default_rng().standard_normal(len(base), np.float32) if needs_noise else None,
        )

    def _wait_for_examples(self, stop: threading.Event) -> Examples | None:
        """What to train on; None if a newer round took over before the sensors had given enough."""
        said = False
        while not stop.is_set():
            try:
                return self._load()
            except NoWindows as error:
                if not said:
                    log.warning("nothing to train on yet", extra={"why": str(error)})
                said = True
            stop.wait(LOAD_AGAIN_S)
        return None

    def stop(self) -> None:
        """End at the next step."""
        self._stop.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
