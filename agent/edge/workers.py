"""Training, and scoring where the device mines, in processes of their own; what the runner needs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from agent.edge.cpu import CpuControl, count_cores, open_cpu_control
from agent.edge.cpu_values import CpuBoard
from agent.edge.dataset import build_source, encode_source
from agent.edge.worker import Worker, WorkerFailed
from agent.edge.worker_frames import Frame, FrameKind, WorkerSpec
from agent.edge.worker_spawn import WorkerProcess, spawn_worker
from agent.readings import Shares
from agent.settings import AgentSettings, CpuSettings
from agent.values import TrainingDone
from flchain.params import ChainParams
from flchain.types import ModelVector, Round

TRAIN, MINE = "train", "mine"
"""The jobs, and the names of their control groups."""
FLOAT_BYTES = 4
MEGABYTE = 1_000_000


class Workers:
    """The trainer, the scorer if this device mines, and their shares of the CPU."""

    def __init__(self, cpu: CpuControl, trainer: Worker, scorer: Worker | None, settings: CpuSettings) -> None:
        self._cpu = cpu
        self._trainer = trainer
        self._scorer = scorer
        self._caps = {TRAIN: settings.train_percent / 100, MINE: settings.mine_percent / 100}
        self._wanted = dict(self._caps)
        """Without a scheduler each has its cap, and the kernel shares out what both want."""
        self._is_paused = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that run now."""
        workers = (self._trainer, *((self._scorer,) if self._scorer else ()))
        return tuple(worker.pid for worker in workers if worker.pid is not None)

    async def start(self) -> ModelVector:
        """Wait until each has tried the model; the file's initial model (P,). Raises ConfigError, WorkerFailed."""
        ready = await self._trainer.start()
        if self._scorer is not None:
            await self._scorer.start()
        self._apply()
        return np.frombuffer(ready.payload, np.int32)

    def announce(self) -> None:
        """Say once how shares are enforced here."""
        self._cpu.announce()

    def apply_shares(self, shares: Shares) -> None:
        """What the scheduler has decided, within the caps of the settings. Raises OSError."""
        self._wanted = {TRAIN: shares.train, MINE: shares.mine}
        self._apply()

    def pause(self) -> None:
        """Stop all work where it stands."""
        self._is_paused = True
        self._apply()

    def resume(self) -> None:
        """Go on from there."""
        self._is_paused = False
        self._apply()

    def _apply(self) -> None:
        for job, cap in self._caps.items():
            self._cpu.set_share(job, 0.0 if self._is_paused else min(cap, self._wanted[job]))

    async def train(self, round_number: Round, vector: ModelVector) -> TrainingDone | None:
        """Local epochs of SGD from the model vector, shape (P,); None if a newer round took over.

        Raises WorkerFailed.
        """
        job = Frame(FrameKind.TRAIN, round_number, payload=vector.tobytes())
        answer = await self._trainer.run(job, replaces_others=True)
        if answer is None:
            return None
        vectors, meta = np.frombuffer(answer.payload, np.float32), answer.meta
        return TrainingDone(
            round=round_number,
            delta=vectors[: len(vector)],
            samples=int(meta["samples"]),
            training_ms=int(meta["training_ms"]),
            loss=float(meta["loss"]),
            standard_normals=vectors[len(vector) :] if len(vectors) > len(vector) else None,
        )

    async def score(self, vector: ModelVector) -> int:
        """Accuracy of the model vector, shape (P,), on the held-out rows, in basis points. Raises WorkerFailed."""
        if self._scorer is None:
            raise WorkerFailed("this device does not mine")
        answer = await self._scorer.run(Frame(FrameKind.SCORE, payload=vector.tobytes()), replaces_others=False)
        assert answer is not None, "nothing replaces a score"
        return int(answer.meta["score_bp"])

    def stop(self) -> None:
        """End the processes and remove their groups."""
        self._trainer.stop()
        if self._scorer is not None:
            self._scorer.stop()
        self._cpu.close()


def build_workers(
    settings: AgentSettings, params: ChainParams, spares: Sequence[WorkerProcess] = (), *, is_mining: bool
) -> Workers:
    """Made, not started. `spares` are processes that were forked early. Raises ConfigError."""
    own = settings.cpu
    board = CpuBoard(count_cores(), own.memory_max_mb * MEGABYTE, own_pids=frozenset(process.pid for process in spares))
    cpu = open_cpu_control(own.mechanism, board)
    spec = WorkerSpec(
        model=str(settings.model.resolve()),
        model_digest=params.model_digest.hex(),
        examples=str(settings.examples.resolve()),
        sensed=encode_source(build_source(settings)) if settings.dataset.channels else {},
        holdout_percent=settings.holdout_percent,
        local_epochs=params.local_epochs,
        batch_size=params.batch_size,
        learning_rate=params.learning_rate_millionths / 1e6,
        needs_noise=params.noise_multiplier_thousandths > 0,
        threads=own.threads,
        niceness=own.niceness,
        memory_bytes_max=0 if cpu.mechanism.limits_memory else board.memory_bytes_max,
    )
    vectors_bytes_max = 2 * FLOAT_BYTES * params.parameters_count
    starts = _iterate_starts(spares)
    trainer = Worker(TRAIN, spec, vectors_bytes_max, cpu, start=next(starts))
    scorer = None
    if is_mining:
        scorer = Worker(MINE, replace(spec, is_scorer=True), vectors_bytes_max, cpu, start=next(starts))
    for process in spares[1 + is_mining :]:
        process.kill()
    return Workers(cpu, trainer, scorer, own)


def _iterate_starts(spares: Sequence[WorkerProcess]) -> Iterator[Callable[[], WorkerProcess]]:
    for process in spares:
        yield lambda process=process: process  # type: ignore[misc]
    while True:
        yield spawn_worker
