"""One worker as the agent sees it: jobs in, answers out. A worker that hangs or dies loses only its job."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.edge.cpu.control import CpuControl
from agent.edge.workers.frames import (
    HEADER,
    Frame,
    FrameKind,
    WorkerSpec,
    decode_header,
    decode_meta,
    encode_frame,
    encode_spec,
)
from agent.edge.workers.spawn import END_GRACE_S, WorkerProcess, spawn_worker
from flchain.base.errors import ConfigError, FlchainError

log = logging.getLogger("agent.worker")

START_TIMEOUT_S = 300.0
"""From nothing to a tried model: numpy's import alone takes 22 s on an emulated board, the trial up to 120 s. Counts as
the next one does."""
HEARTBEAT_TIMEOUT_S = 60.0
"""Longest silence during a job. It is counted in time that the worker may run: at a tenth of a core ten times
longer, and not at all while the worker is held."""
WATCH_S = 5.0
JOBS_WAITING_MAX = 256
"""Scores that may wait, each with its vector. When full, the newest is refused, and the device gives no scores."""


class WorkerFailed(FlchainError):
    """A job has no result: the worker died or hung, or the interpreter refused. The next job finds a new worker."""


@dataclass(eq=False)
class _Job:
    frame: Frame
    answer: asyncio.Future[Frame | None]


class Worker:
    """One process that is started again when it is needed. `job` is its name for the CPU's control and in the log."""

    def __init__(
        self,
        job: str,
        spec: WorkerSpec,
        payload_bytes_max: int,
        cpu: CpuControl,
        *,
        start: Callable[[], WorkerProcess] = spawn_worker,
        heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S,
    ) -> None:
        self._job = job
        self._spec = spec
        self._payload_bytes_max = payload_bytes_max
        self._cpu = cpu
        self._start_process = start
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._process: WorkerProcess | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._is_cancelling = False
        self.steps_done = self.steps = 0
        """How far the running job is, as last reported; 0 of 0 before the first report."""
        self._serving: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the present process."""
        return None if self._process is None else self._process.pid

    async def start(self) -> Frame:
        """Start the process and wait until it has tried the model: its READY. Raises ConfigError, WorkerFailed."""
        self._process = process = self._start_process()
        self._start_process = spawn_worker
        try:
            self._cpu.attach(self._job, process.pid)
            self._reader, self._writer = await asyncio.open_unix_connection(sock=process.sock)
            self._write(encode_spec(self._spec))
            frame = await self._read_in_time(START_TIMEOUT_S, "not ready")
            if frame.kind is FrameKind.REFUSED:
                raise ConfigError(tuple(map(str, frame.meta["problems"])))
            return frame
        except OSError as error:
            raise WorkerFailed(self._end(f"cannot be started: {error}")) from error
        except (ConfigError, WorkerFailed):
            self._end("refused")
            raise

    async def run(self, frame: Frame, *, replaces_others: bool) -> Frame | None:
        """Return the answer to a job, or None if a newer one has replaced it. Raises WorkerFailed."""
        if replaces_others:
            self._drop_all()
        elif len(self._waiting) >= JOBS_WAITING_MAX:
            raise WorkerFailed(f"{JOBS_WAITING_MAX} jobs are waiting already")
        job = _Job(frame, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve(), name=f"worker-{self._job}")
        return await job.answer

    def stop(self) -> None:
        """End the process, and cancel whatever waits for an answer."""
        if self._serving is not None:
            self._serving.cancel()
        for job in (*self._waiting, *([self._running] if self._running else ())):
            job.answer.cancel()
        self._waiting.clear()
        self._end("stopped")

    def _drop_all(self) -> None:
        for job in self._waiting:
            if not job.answer.done():
                job.answer.set_result(None)
        self._waiting.clear()
        if self._running is not None and not self._running.answer.done():
            self._running.answer.set_result(None)
            if not self._is_cancelling and self._writer is not None:
                self._is_cancelling = True
                self._write(Frame(FrameKind.CANCEL, self._running.frame.number))

    async def _serve(self) -> None:
        while self._waiting:
            job = self._running = self._waiting.popleft()
            try:
                answer = await self._exchange(job)
                if not job.answer.done():
                    job.answer.set_result(answer)
            except WorkerFailed as error:
                if not job.answer.done():
                    job.answer.set_exception(error)
            finally:
                self._running, self._is_cancelling = None, False
                self.steps_done = self.steps = 0
                self._cpu.set_busy(self._job, False)

    async def _exchange(self, job: _Job) -> Frame | None:
        await self._ensure_started()
        if job.answer.done():  # replaced while a new process came up
            return None
        self._cpu.set_busy(self._job, True)
        self._write(job.frame)
        while True:
            frame = await self._read_in_time(self._heartbeat_timeout_s, "no sign of life")
            if frame.kind is FrameKind.BEAT:
                self.steps_done, self.steps = int(frame.meta["steps_done"]), int(frame.meta["steps"])
            if frame.kind is FrameKind.NOTE:
                log.warning(str(frame.meta["text"]), extra={"job": self._job, "why": frame.meta["why"]})
            if frame.kind is FrameKind.FAILED:
                raise WorkerFailed(str(frame.meta.get("cause")))
            if frame.kind in (FrameKind.DONE, FrameKind.DROPPED):
                return frame if frame.kind is FrameKind.DONE else None

    async def _ensure_started(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            log.warning("a worker has ended while it was idle", extra={"job": self._job, "cause": self._end("")})
        if self._process is not None:
            return
        try:
            await self.start()
        except ConfigError as error:  # the files were in order when the agent started
            raise WorkerFailed("; ".join(error.problems)) from error
        log.info("a worker was started again", extra={"job": self._job, "pid": self.pid})

    async def _read_in_time(self, timeout_s: float, cause: str) -> Frame:
        """Wait for the answer. Raises WorkerFailed, also after `timeout_s` in which the worker was allowed to run."""
        reading = asyncio.ensure_future(self._read())
        silence_s = 0.0
        watch_s = min(WATCH_S, timeout_s)
        try:
            while not (await asyncio.wait({reading}, timeout=watch_s))[0]:
                silence_s += watch_s * min(1.0, self._cpu.get_cores(self._job))
                if silence_s >= timeout_s:
                    raise WorkerFailed(self._end(f"{cause} for {silence_s:.0f} s, killed"))
            return reading.result()
        finally:
            reading.cancel()

    async def _read(self) -> Frame:
        """Return the next frame. Raises WorkerFailed, with the cause of the process's death, if there is none."""
        assert self._reader is not None
        try:
            header = decode_header(await self._reader.readexactly(HEADER.size), self._payload_bytes_max)
            kind, number, meta_bytes, payload_bytes = header
            meta = decode_meta(await self._reader.readexactly(meta_bytes))
            return Frame(kind, number, meta, await self._reader.readexactly(payload_bytes))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise WorkerFailed(self._end("")) from error
        except ValueError as error:
            raise WorkerFailed(self._end(f"sent a malformed frame: {error}")) from error

    def _write(self, frame: Frame) -> None:
        assert self._writer is not None
        self._writer.write(encode_frame(frame))
        if frame.payload:
            self._writer.write(frame.payload)

    def _end(self, cause: str) -> str:
        """Kill what is left of the process. Return why the worker ended, from its exit code if `cause` is empty."""
        process, self._process = self._process, None
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
        if process is None:
            return cause or "the worker has ended"
        oom_kills = self._cpu.mechanism.count_oom_kills(self._job)
        end = process.kill(0.0 if cause else END_GRACE_S)
        self._cpu.detach(self._job)
        if cause:
            return cause
        if end is None:
            return "the worker does not end"
        if end.code == -signal.SIGKILL and oom_kills:
            return "the worker ran out of memory, killed by the kernel"
        if end.code >= 0:
            return f"the worker ended with {end}"
        limit = self._spec.memory_bytes_max
        hint = "; is [cpu] memory_max_mb too small?" if limit and end.may_lack_memory(limit) else ""
        return f"the worker was ended by {end}{hint}"
