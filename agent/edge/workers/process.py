"""A worker: the process that holds the TFLite interpreter and trains, or scores, one job after the other.

It imports no chain, no keys, no network and no event loop. All it has is a socket to the agent, and it ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.edge.workers.allocator import keep_heap_small, return_memory
from agent.edge.workers.frames import HEADER, Frame, FrameKind, WorkerSpec, decode_header, decode_meta, encode_frame
from flchain.base.errors import ConfigError, FlchainError
from flchain.base.fixedpoint import to_float
from flchain.base.frozen import replace
from flchain_edge.model.model_files import (
    MODEL_BYTES_MAX,
    Examples,
    NoWindows,
    compute_initial_model,
    compute_score_bp,
    load_part,
    read_model_file,
)

if TYPE_CHECKING:
    from flchain.base.types import ModelVector
    from flchain_edge.model.tflite import TfliteModel

BEAT_S = 1.0
LOAD_AGAIN_S = 2.0
"""While there are too few windows, the samples are read again this often until the round is over."""
PULSE_S = 0.25
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
IOPRIO_WHO_PROCESS, IOPRIO_CLASS_IDLE, IOPRIO_CLASS_SHIFT = 1, 3, 13
IOPRIO_SET_CALLS = {"x86_64": 251, "aarch64": 30, "armv7l": 314, "armv6l": 314, "riscv64": 30}
"""The number of the system call; the C library has no function for it."""


class AgentGone(Exception):
    """The other end of the socket is closed: the agent has ended."""


class Channel:
    """The worker's end of the socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def receive(self) -> Frame:
        """Wait for a frame and return it. Raises AgentGone."""
        kind, number, meta_bytes, payload_bytes = decode_header(self._read(HEADER.size), MODEL_BYTES_MAX)
        meta = decode_meta(self._read(meta_bytes))
        return Frame(kind, number, meta, self._read(payload_bytes))

    def send(self, frame: Frame) -> None:
        """Wait until all is written. Raises AgentGone."""
        try:
            self._sock.sendall(encode_frame(frame))
            self._sock.sendall(frame.payload)
        except OSError as error:
            raise AgentGone from error

    def is_cancelled(self) -> bool:
        """Return True if the agent has sent something (only CANCEL is allowed now) or is gone."""
        if not select.select((self._sock,), (), (), 0.0)[0]:
            return False
        self.receive()
        return True

    def _read(self, count: int) -> bytes:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                read = self._sock.recv_into(view)
            except OSError as error:
                raise AgentGone from error
            if not read:
                raise AgentGone
            view = view[read:]
        return bytes(data)


class Pulse:
    """Called between two steps of a job: reports progress to the agent, and learns whether to go on."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number
        self._said_at = time.monotonic()
        self.steps_done = self.steps = 0
        """Report how far the job is, for jobs that know it."""

    def __call__(self) -> bool:
        """True if the job is cancelled. Raises AgentGone."""
        now = time.monotonic()
        if now - self._said_at >= BEAT_S:
            self._said_at = now
            meta = {"steps_done": self.steps_done, "steps": self.steps}
            self._channel.send(Frame(FrameKind.BEAT, self._number, meta))
        return self._channel.is_cancelled()


@dataclass(frozen=True, eq=False)
class Tools:
    """What every job works with."""

    spec: WorkerSpec
    channel: Channel
    model: TfliteModel
    load: Callable[[], Examples]


def run_worker(sock: socket.socket, agent_pid: int) -> None:
    """Work until the agent closes the socket. `agent_pid` is the parent: the worker dies with it, even if stopped."""
    channel = Channel(sock)
    with contextlib.suppress(AgentGone):
        _bind_to_agent(agent_pid)
        spec = WorkerSpec(**channel.receive().meta)
        try:
            _lower_priority(spec)
            tools = _open_files(spec, channel)
            vector = compute_initial_model(tools.model)
        except ConfigError as error:
            channel.send(Frame(FrameKind.REFUSED, meta={"problems": error.problems}))
            return
        except MemoryError:
            problem = "[cpu] memory_max_mb: too little for the runtime, the model and the data"
            channel.send(Frame(FrameKind.REFUSED, meta={"problems": [problem]}))
            return
        return_memory()
        channel.send(Frame(FrameKind.READY, payload=vector.tobytes()))
        while True:
            _process_job(channel, tools, channel.receive())


def _bind_to_agent(agent_pid: int) -> None:
    """Let the kernel end this process with its parent: a stopped one reads no end of file. Ignore Ctrl-C."""
    call = ctypes.CDLL(None).prctl
    call(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call(PR_SET_NAME, b"flchain-worker", 0, 0, 0)
    if os.getppid() != agent_pid:
        raise AgentGone
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _lower_priority(spec: WorkerSpec) -> None:
    with contextlib.suppress(OSError):
        os.nice(spec.niceness)
    if number := IOPRIO_SET_CALLS.get(platform.machine()):
        ctypes.CDLL(None).syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT)
    if spec.memory_bytes_max:
        limit = _read_inherited_bytes() + spec.memory_bytes_max
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _read_inherited_bytes() -> int:
    """The data of the process that this one was forked from: shared with it, and counted by the kernel all the same."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _open_files(spec: WorkerSpec, channel: Channel) -> Tools:
    """Load model and data. Raises ConfigError with every problem, also for a model that aborts its process."""
    # Imported only here, so that nothing but a worker ever holds the runtime.
    from flchain_edge.model.tflite import ModelRefused, TfliteModel, probe_model

    model_file = read_model_file(Path(spec.model), bytes.fromhex(spec.model_digest))
    try:
        probe_model(model_file, memory_bytes_max=spec.memory_bytes_max)
    except ModelRefused as error:
        if not (spec.memory_bytes_max and error.may_lack_memory):
            raise
        hint = f"[cpu] memory_max_mb: it was tried with {spec.memory_bytes_max // 1_000_000}; is that too little?"
        raise ConfigError((*error.problems, hint)) from error
    model = TfliteModel(model_file, spec.threads)
    return Tools(spec, channel, model, _build_loader(spec, model))


def _build_loader(spec: WorkerSpec, model: TfliteModel) -> Callable[[], Examples]:
    """Return a function that loads a job's examples: the sensors' each time, a file's once. Raises ConfigError."""
    if not spec.sensed:
        examples = load_part(Path(spec.examples), model, spec.holdout_percent, is_held_out=spec.is_scorer)
        return lambda: examples
    # The ring's reader takes some megabytes, which only a device with sensors should spend.
    from agent.edge.data.dataset import decode_source, find_model_problems, load_dataset

    source = decode_source(spec.sensed)
    if problems := find_model_problems(source.dataset, model.input_shape, model.classes):
        raise ConfigError(problems)
    part = "holdout" if spec.is_scorer else "train"
    return lambda: load_dataset(source, model.input_shape, model.classes, part=part)


def _process_job(channel: Channel, tools: Tools, job: Frame) -> None:
    run = JOBS.get(job.kind)
    if run is None:
        return  # a CANCEL that crossed the answer
    pulse = Pulse(channel, job.number)
    try:
        vector = np.frombuffer(job.payload, np.int32)
        answer = run(tools, job.number, vector, pulse)
    except (ValueError, RuntimeError, MemoryError, FlchainError) as error:  # of interpreter, numpy or data
        text = "out of memory" if isinstance(error, MemoryError) else str(error)
        answer = Frame(FrameKind.FAILED, meta={"cause": text[:1000]})
    channel.send(replace(answer, number=job.number))
    return_memory()


def _train(tools: Tools, number: int, vector: ModelVector, pulse: Pulse) -> Frame:
    """Train local epochs of SGD from the vector; return the float32 delta (P,), and standard normals (P,) for noise."""
    spec, model = tools.spec, tools.model
    if (examples := _wait_for_examples(tools, pulse)) is None:
        return Frame(FrameKind.DROPPED)
    started = time.monotonic()
    base = to_float(vector)
    model.set_weights(base)
    # From data and round alone, so that a run can be repeated; the noise below must not be repeatable by anybody.
    rng = np.random.default_rng((number, zlib.crc32(examples.x.data)))
    losses = [0.0]
    pulse.steps = spec.local_epochs * -(-len(examples) // spec.batch_size)
    for _ in range(spec.local_epochs):
        order = rng.permutation(len(examples))
        losses = []
        for start in range(0, len(order), spec.batch_size):
            if pulse():
                return Frame(FrameKind.DROPPED)
            rows = order[start : start + spec.batch_size]
            losses.append(model.train_step(examples.x[rows], examples.y[rows], spec.learning_rate))
            pulse.steps_done += 1
    delta = model.get_weights() - base
    normals = np.random.default_rng().standard_normal(len(base), np.float32) if spec.needs_noise else base[:0]
    meta = {
        "samples": len(examples),
        "training_ms": round((time.monotonic() - started) * 1000),
        "loss": float(np.mean(losses)),
    }
    return Frame(FrameKind.DONE, 0, meta, delta.tobytes() + normals.tobytes())


def _wait_for_examples(tools: Tools, pulse: Pulse) -> Examples | None:
    """Return the examples; None if the job is cancelled before the sensors have delivered enough."""
    said, look_at = False, time.monotonic()
    while not pulse():
        if time.monotonic() >= look_at:
            try:
                return tools.load()
            except NoWindows as error:
                if not said:
                    meta = {"text": "nothing to train on yet", "why": str(error)[:1000]}
                    tools.channel.send(Frame(FrameKind.NOTE, meta=meta))
                said, look_at = True, time.monotonic() + LOAD_AGAIN_S
        time.sleep(PULSE_S)
    return None


def _score(tools: Tools, number: int, vector: ModelVector, pulse: Pulse) -> Frame:
    """Return the accuracy on the held-out rows, in basis points."""
    return Frame(FrameKind.DONE, 0, {"score_bp": compute_score_bp(tools.model, tools.load(), vector, pulse)})


JOBS: dict[FrameKind, Callable[[Tools, int, ModelVector, Pulse], Frame]] = {
    FrameKind.TRAIN: _train,
    FrameKind.SCORE: _score,
}


def main() -> int:
    """Entry point of a worker that was started as a program of its own: the socket is descriptor ARGV[1]."""
    keep_heap_small()
    try:
        run_worker(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    except Exception:  # the agent sees that it ended; a person needs to see why
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
