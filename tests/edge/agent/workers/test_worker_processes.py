"""Workers as processes: forked from the agent or started as programs, and ended with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil

from agent.edge.workers.spawn import fork_worker
from tests.support.builders.workers import PARAMETERS, write_worker_spec

DEADLINE_S = 60.0
ONE_THREAD = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
"""The environment of an agent that may fork: numpy starts no threads."""


def test_a_worker_does_not_outlive_its_agent(tmp_path: Path) -> None:
    """kill -9 of an agent ends its forked worker too, even one that is stopped and could read no end of file."""
    script = (
        "import os, signal, sys\nfrom agent.edge.workers.spawn import fork_worker\n"
        "process = fork_worker()\nprint(process.pid, flush=True)\nsignal.pause()\n"
    )
    command = (sys.executable, "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ONE_THREAD) as agent:
        assert agent.stdout is not None
        worker = psutil.Process(int(agent.stdout.readline()))
        while worker.name() != "flchain-worker":
            os.sched_yield()
        worker.send_signal(signal.SIGSTOP)
        agent.kill()
    assert psutil.wait_procs([worker], timeout=DEADLINE_S)[1] == []


FORKED_SCRIPT = """
from agent.cli import _fork_spares
spare, other = _fork_spares()

import asyncio, json, os, pathlib, sys
import psutil
from agent.edge.cpu.control import CpuControl, Unlimited
from agent.edge.workers.worker import Worker
from agent.edge.workers.frames import WorkerSpec
from agent.edge.workers.workers import TRAIN, Workers
from agent.settings import CpuSettings
from flchain.base.types import Round

def read_command(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()

async def scenario(spare):
    cpu = CpuControl(Unlimited(), 2)
    trainer = Worker(TRAIN, WorkerSpec(**json.loads(sys.argv[1])), 8 * int(sys.argv[2]), cpu, start=lambda: spare)
    workers = Workers(cpu, trainer, None, CpuSettings())
    try:
        initial = await workers.start()
        for is_forked in (True, False):
            done = await workers.train(Round(1), initial)
            assert (read_command(trainer.pid) == read_command(os.getpid())) == is_forked
            print(done.delta.tobytes().hex())
            dead = psutil.Process(trainer.pid)
            dead.kill()
            while dead.status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.01)
    finally:
        workers.stop()

other.kill()
asyncio.run(scenario(spare))
"""


def test_a_forked_worker_works_as_a_started_one(tmp_path: Path) -> None:
    """The processes that an agent forks at its start are copies of it, warn of nothing, and train to the same delta
    as the programs that replace them."""
    command = (
        sys.executable,
        "-W",
        "error",
        "-c",
        FORKED_SCRIPT,
        json.dumps(asdict(write_worker_spec(tmp_path))),
        str(PARAMETERS),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    forked, started = done.stdout.split()
    assert forked == started and len(forked) == 2 * 4 * PARAMETERS
    assert "Warning" not in done.stderr


def test_a_process_with_threads_is_not_copied() -> None:
    """Where a thread runs, a worker is a program even if a fork is asked for: a copy could wait for ever."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        process = fork_worker()
        try:
            child, deadline = psutil.Process(process.pid), time.monotonic() + DEADLINE_S
            while not (words := child.cmdline()):  # the kernel shows none for a moment, as the program begins
                assert time.monotonic() < deadline
            assert "agent.edge.workers.process" in words
        finally:
            process.kill()
    finally:
        stop.set()
        thread.join()


def test_an_agent_never_loads_the_runtime() -> None:
    """Everything that a running agent imports leaves the TFLite runtime out: it is in the workers alone."""
    script = (
        "import sys\nfrom agent.cli import build_command\nbuild_command()\n"
        "kinds = ('tflite_runtime', 'ai_edge_litert', 'flchain_edge.model.tflite')\n"
        "print([name for name in sys.modules if name.startswith(kinds)])"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
