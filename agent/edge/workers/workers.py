"""Training, and scoring on a device that mines, in processes of their own, as the runner uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from agent.core.values import TrainingDone
from agent.edge.cpu.control import CpuControl, count_cores, open_cpu_control
from agent.edge.cpu.duty import read_cpu_s
from agent.edge.cpu.settings import CpuSettings
from agent.edge.cpu.values import CpuBoard
from agent.edge.data.dataset import DataSettings, build_source, encode_source
from agent.edge.workers.frames import Frame, FrameKind, WorkerSpec
from agent.edge.workers.spawn import WorkerProcess, spawn_worker
from agent.edge.workers.worker import Worker, WorkerFailed
from agent.scheduling.readings import Shares
from flchain.base.frozen import replace
from flchain.base.types import ModelVector, Round
from flchain.ledger.params import ChainParams

TRAIN, MINE = "train", "mine"
"""The jobs, and the names of their control groups."""
FLOAT_BYTES = 4
MEGABYTE = 1_000_000


class WorkerSettings(DataSettings, Protocol):
    """What is needed of the agent's settings, which themselves are made of the edge's."""

    @property
    def model(self) -> Path: ...
    @property
    def cpu(self) -> CpuSettings: ...


class Workers:
    """The trainer, the scorer if this device mines, and their shares of the CPU."""

    def __init__(self, cpu: CpuControl, trainer: Worker, scorer: Worker | None, settings: CpuSettings) -> None:
        self._cpu = cpu
        self._trainer = trainer
        self._scorer = scorer
        self._caps = {TRAIN: settings.train_percent / 100, MINE: settings.mine_percent / 100}
        self._threads = settings.threads
        self._cpu_s = dict.fromkeys(self._caps, 0.0)
        self._seen: dict[str, tuple[int, float]] = {}
        """Process and CPU seconds of each job at the last reading."""
        self._wanted = dict(self._caps)
        """Until the scheduler has decided, each has its cap, and the kernel divides what both want."""
        self._is_applied = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the running workers."""
        workers = (self._trainer, *((self._scorer,) if self._scorer else ()))
        return tuple(worker.pid for worker in workers if worker.pid is not None)

    async def start(self) -> ModelVector:
        """Wait until each has tried the model; return the initial model (P,). Raises ConfigError, WorkerFailed."""
        ready = await self._trainer.start()
        if self._scorer is not None:
            await self._scorer.start()
        self._apply()
        return np.frombuffer(ready.payload, np.int32)

    def announce(self) -> None:
        """Log once how shares are enforced here."""
        self._cpu.announce()

    def apply_shares(self, shares: Shares) -> None:
        """Apply the scheduler's decision, within the caps of the settings. With a share of 0 work stops where it is.

        Raises OSError, and then tries again with the next decision, even an equal one. A worker that may use all that
                its threads can is not limited at all: a quota of one core for one thread only costs time.
        """
        useful = self.get_cores_max(TRAIN) / self._cpu.cores - 1e-9, self.get_cores_max(MINE) / self._cpu.cores - 1e-9
        wanted = {
            TRAIN: 1.0 if shares.train >= useful[0] else shares.train,
            MINE: 1.0 if shares.mine >= useful[1] else shares.mine,
        }
        if wanted != self._wanted or not self._is_applied:
            self._wanted, self._is_applied = wanted, False
            self._apply()

    @property
    def cores(self) -> int:
        """The board's cores that this process may use."""
        return self._cpu.cores

    def get_cores_max(self, job: str) -> float:
        """Return how many cores the job can use: one a thread, under its cap."""
        return min(float(self._threads), self._caps[job] * self._cpu.cores)

    @property
    def mechanism(self) -> str:
        """The name of what enforces shares here."""
        return self._cpu.mechanism.name

    def read_cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each job since the start.

        What a process took between the last reading and its end is not counted.
        """
        for job, worker in ((TRAIN, self._trainer), (MINE, self._scorer)):
            if worker is None or worker.pid is None:
                continue
            now_s = read_cpu_s(worker.pid)
            pid, before_s = self._seen.get(job, (0, 0.0))
            self._cpu_s[job] += max(0.0, now_s - before_s) if pid == worker.pid else now_s
            self._seen[job] = worker.pid, max(now_s, before_s) if pid == worker.pid else now_s
        return dict(self._cpu_s)

    @property
    def training_steps(self) -> tuple[int, int]:
        """How far the running training is: steps done, of how many; 0 of 0 before the first report."""
        return self._trainer.steps_done, self._trainer.steps

    def _apply(self) -> None:
        for job, cap in self._caps.items():
            self._cpu.set_share(job, min(cap, self._wanted[job]))
        self._is_applied = True

    async def train(self, round_number: Round, vector: ModelVector) -> TrainingDone | None:
        """Train local epochs of SGD from the model vector, shape (P,); return None if a newer round took over.

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
        """Return the accuracy of the model, shape (P,), on the held-out rows, in basis points. Raises WorkerFailed."""
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
    settings: WorkerSettings, params: ChainParams, spares: Sequence[WorkerProcess] = (), *, is_mining: bool
) -> Workers:
    """Return the workers, not started yet. `spares` are processes that were forked early. Raises ConfigError."""
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
