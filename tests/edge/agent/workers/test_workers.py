"""Training and scoring in processes of their own: what they give, and what happens when they hang or die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tracemalloc
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.edge.cpu.control import CpuControl, Unlimited
from agent.edge.cpu.settings import CpuSettings
from agent.edge.workers.frames import WorkerSpec
from agent.edge.workers.process import Channel, _open_files
from agent.edge.workers.spawn import WorkerProcess
from agent.edge.workers.worker import Worker, WorkerFailed
from agent.edge.workers.workers import MEGABYTE, MINE, TRAIN, Workers
from agent.scheduling.readings import Shares
from flchain.base.errors import ConfigError
from flchain.base.fixedpoint import to_fixed
from flchain.base.types import Round
from flchain_edge.model.model_files import MODEL_BYTES_MAX, Examples, compute_score_bp, hold_out, read_file
from flchain_edge.model.tflite import ModelRefused, TfliteModel
from flchain_edge.newer_python import timeout
from tests.support.builders.workers import MODEL, PARAMETERS, ROWS, write_worker_spec

ENDLESS = 100_000
"""Epochs of a training that no test waits for."""
DEADLINE_S = 60.0


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    return write_worker_spec(tmp_path)


def load(spec: WorkerSpec) -> Examples:
    with np.load(spec.examples) as arrays:
        return Examples(arrays["x"], arrays["y"].astype(np.int32))


class Scene:
    """Workers in a loop, ended at the end."""

    def __init__(self, spec: WorkerSpec, *, is_mining: bool = False, heartbeat_timeout_s: float = DEADLINE_S) -> None:
        self.cpu = CpuControl(Unlimited(), 2)
        bytes_max = 8 * PARAMETERS
        self.trainer = Worker(TRAIN, spec, bytes_max, self.cpu, heartbeat_timeout_s=heartbeat_timeout_s)
        scorer = Worker(MINE, replace(spec, is_scorer=True), bytes_max, self.cpu) if is_mining else None
        self.workers = Workers(self.cpu, self.trainer, scorer, CpuSettings())

    @property
    def process(self) -> psutil.Process:
        assert self.trainer.pid is not None
        return psutil.Process(self.trainer.pid)

    def run(self, steps: Callable[[Scene, np.ndarray], Coroutine[None, None, None]]) -> None:
        async def scenario() -> None:
            try:
                async with timeout(DEADLINE_S):
                    await steps(self, await self.workers.start())
            finally:
                self.workers.stop()

        asyncio.run(scenario())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def read_cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def until_working(process: psutil.Process) -> None:
    started = read_cpu_s(process)
    await until(lambda: read_cpu_s(process) > started + 0.1)


def test_training_is_what_the_model_does_here(spec: WorkerSpec) -> None:
    """A worker's delta is, bit for bit, that of the same steps on the same rows in this process."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        model, examples = TfliteModel(MODEL.read_bytes()), load(spec)
        np.testing.assert_array_equal(initial, to_fixed(model.get_weights()))
        first = await scene.workers.train(Round(3), initial)
        second = await scene.workers.train(Round(3), initial)
        assert first is not None and second is not None
        assert first.delta.tobytes() == second.delta.tobytes()
        assert (first.samples, first.round, first.standard_normals) == (ROWS, 3, None)
        base = (initial / np.float32(1 << 20)).astype(np.float32)
        assert compute_score_bp(model, examples, to_fixed(base + first.delta)) > compute_score_bp(
            model, examples, initial
        )

    Scene(replace(spec, local_epochs=3)).run(steps)


def test_noise_is_drawn_in_the_worker_and_never_the_same(spec: WorkerSpec) -> None:
    """Two trainings of one round have the same delta and different normals, as many as there are parameters."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        done = [await scene.workers.train(Round(1), initial) for _ in range(2)]
        normals = [one.standard_normals for one in done if one is not None and one.standard_normals is not None]
        assert [len(one) for one in normals] == [PARAMETERS, PARAMETERS]
        assert normals[0].tobytes() != normals[1].tobytes()
        assert abs(float(normals[0].std()) - 1.0) < 0.05

    Scene(replace(spec, needs_noise=True)).run(steps)


def test_a_newer_round_stops_the_older_one(spec: WorkerSpec) -> None:
    """Of three rounds asked for in a row the first two answer None, although they would never have ended."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        process = scene.process
        older = [asyncio.create_task(scene.workers.train(Round(number), initial)) for number in (1, 2)]
        await until_working(process)
        third = asyncio.create_task(scene.workers.train(Round(3), initial))
        assert await asyncio.gather(*older) == [None, None]
        await until_working(process)
        assert not third.done() and scene.process.pid == process.pid
        third.cancel()

    Scene(replace(spec, local_epochs=ENDLESS)).run(steps)


def test_pausing_keeps_the_work(spec: WorkerSpec) -> None:
    """A training paused in its midst is stopped, and then ends with the very delta of one that was not paused."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        process = scene.process
        whole = await scene.workers.train(Round(1), initial)
        paused = asyncio.create_task(scene.workers.train(Round(1), initial))
        await until_working(process)
        scene.workers.apply_shares(Shares(0.0, 0.0))
        await until(lambda: process.status() == psutil.STATUS_STOPPED)
        assert not paused.done()
        scene.workers.apply_shares(Shares(1.0, 0.0))
        done = await paused
        assert whole is not None and done is not None
        assert done.delta.tobytes() == whole.delta.tobytes()
        assert done.training_ms > 0

    Scene(replace(spec, local_epochs=20)).run(steps)


def test_a_dead_worker_costs_its_round_only(spec: WorkerSpec) -> None:
    """SIGKILL in mid-training: the round fails and says what happened; the next finds a new worker."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        process = scene.process
        training = asyncio.create_task(scene.workers.train(Round(1), initial))
        await until_working(process)
        process.send_signal(signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="ended by SIGKILL"):
            await training
        again = asyncio.create_task(scene.workers.train(Round(2), initial))
        await until(lambda: scene.trainer.pid not in (None, process.pid))
        await until_working(scene.process)
        again.cancel()

    Scene(replace(spec, local_epochs=ENDLESS)).run(steps)


def test_a_worker_that_ends_by_itself_is_not_called_killed(spec: WorkerSpec) -> None:
    """One whose socket closes well before it is gone is told by the status that it ends with."""
    busy = "import os; os.close(3); sum(range(3_000_000)); os._exit(7)"

    def start() -> WorkerProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
            command = (sys.executable, "-c", busy)
            return WorkerProcess(os.posix_spawn(sys.executable, command, os.environ, file_actions=actions), ours)

    worker = Worker(TRAIN, spec, 8 * PARAMETERS, CpuControl(Unlimited(), 2), start=start)
    with pytest.raises(WorkerFailed, match="ended with status 7"):
        asyncio.run(worker.start())


@pytest.mark.parametrize(("number", "is_blamed"), [(signal.SIGKILL, True), (signal.SIGSEGV, False)])
def test_a_fault_in_a_worker_is_not_called_want_of_memory(
    spec: WorkerSpec, number: signal.Signals, is_blamed: bool
) -> None:
    """A worker that dies far below its limit has its signal named; the setting is asked for after SIGKILL alone."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        process = scene.process
        training = asyncio.create_task(scene.workers.train(Round(1), initial))
        await until_working(process)
        process.send_signal(number)
        with pytest.raises(WorkerFailed, match=f"ended by {number.name}") as failed:
            await training
        assert ("memory_max_mb" in str(failed.value)) == is_blamed

    # its peak counts what it shared with its parent, and the process of all tests may have held a gigabyte
    Scene(replace(spec, local_epochs=ENDLESS, memory_bytes_max=20_000 * MEGABYTE)).run(steps)


def test_a_worker_that_died_without_work_is_replaced_unseen(spec: WorkerSpec) -> None:
    """If it dies between two rounds, no round is lost."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        process = scene.process
        process.kill()
        await until(lambda: process.status() == psutil.STATUS_ZOMBIE)
        assert await scene.workers.train(Round(1), initial) is not None

    Scene(spec).run(steps)


def test_a_hanging_worker_is_killed_and_reported(spec: WorkerSpec) -> None:
    """One that gives no sign of life, here because somebody stopped it, is ended; one that is paused is let be."""

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        process = scene.process
        training = asyncio.create_task(scene.workers.train(Round(1), initial))
        await until_working(process)
        scene.workers.apply_shares(Shares(0.0, 0.0))
        await asyncio.wait({training}, timeout=2.5)
        assert process.is_running() and not training.done()
        scene.workers.apply_shares(Shares(1.0, 0.0))
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(WorkerFailed, match="no sign of life"):
            await training
        assert not process.is_running()

    Scene(replace(spec, local_epochs=ENDLESS), heartbeat_timeout_s=2.0).run(steps)


def test_scores_are_of_rows_that_are_not_trained_on(spec: WorkerSpec) -> None:
    """With mining on, training and scoring share out the rows; a score is the model's accuracy on the held-out ones."""
    spec = replace(spec, holdout_percent=30)
    kept, held_out = hold_out(load(spec), 30)
    assert not {x.tobytes() for x in kept.x} & {x.tobytes() for x in held_out.x}

    async def steps(scene: Scene, initial: np.ndarray) -> None:
        done = await scene.workers.train(Round(1), initial)
        assert done is not None and done.samples == len(kept)
        model = TfliteModel(MODEL.read_bytes())
        vectors = [initial, to_fixed(initial / np.float32(1 << 20) + done.delta)]
        scores = await asyncio.gather(*(scene.workers.score(vector) for vector in vectors))
        assert list(scores) == [compute_score_bp(model, held_out, vector) for vector in vectors]

    Scene(spec, is_mining=True).run(steps)


def test_bad_files_are_the_operators_to_mend(spec: WorkerSpec, tmp_path: Path) -> None:
    """Another model, rows that do not fit, a split that leaves no row: ConfigError from the start, with the reason."""
    np.savez(tmp_path / "flat.npz", x=np.zeros((3, 784), np.float32), y=np.zeros(3, int))
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 100, 6), np.float32), y=np.zeros(1, int))
    bad = {
        "SHA-256": replace(spec, model_digest="00" * 32),
        "x has shape": replace(spec, examples=str(tmp_path / "flat.npz")),
        "none to score on": replace(spec, examples=str(tmp_path / "one.npz"), holdout_percent=1, is_scorer=True),
    }

    async def steps(scene: Scene, initial: np.ndarray) -> None: ...

    for cause, changed in bad.items():
        with pytest.raises(ConfigError, match=cause):
            Scene(changed).run(steps)


def test_too_little_memory_is_told_as_that(spec: WorkerSpec) -> None:
    """Where Python gets no memory, or the runtime falls over for want of it, the start is refused by the setting."""
    with pytest.raises(ConfigError, match="memory_max_mb"):
        Scene(replace(spec, memory_bytes_max=MEGABYTE)).run(nothing)


@pytest.mark.parametrize("may_lack_memory", [True, False])
@pytest.mark.parametrize("limit_mb", [0, 256])
def test_memory_is_blamed_for_what_it_can_explain(
    spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch, limit_mb: int, may_lack_memory: bool
) -> None:
    """The setting is named beside the runtime's death if there is a limit, and want of memory can be the cause."""

    def fall_over(model: bytes, memory_bytes_max: int) -> None:
        assert memory_bytes_max == limit_mb * MEGABYTE
        raise ModelRefused(("model: it kills the process",), may_lack_memory=may_lack_memory)

    monkeypatch.setattr("flchain_edge.model.tflite.probe_model", fall_over)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ConfigError) as refused:
        _open_files(replace(spec, memory_bytes_max=limit_mb * MEGABYTE), Channel(ours))
    is_blamed = any("memory_max_mb: it was tried with 256" in problem for problem in refused.value.problems)
    assert is_blamed == (limit_mb == 256 and may_lack_memory)
    assert refused.value.problems[0] == "model: it kills the process"


def test_a_file_takes_the_memory_of_its_size(spec: WorkerSpec) -> None:
    """Reading a small model makes no room for the largest one that there may be."""
    tracemalloc.start()
    try:
        read_file(Path(spec.model), "model", MODEL_BYTES_MAX)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * MODEL.stat().st_size < MODEL_BYTES_MAX / 10


async def nothing(scene: Scene, initial: np.ndarray) -> None:
    """Started, and that is all."""
