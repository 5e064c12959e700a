"""Create worker processes: forked before the agent has imported anything, or started as a program.

Forked, a worker shares the pages of Python and numpy with the agent (decision 11). That is safe only while the agent is
one thread with nothing open. A worker that replaces a dead one is a program.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass

from agent.edge.workers import process
from flchain_edge.children.apart import is_one_thread
from flchain_edge.children.ends import ProcessEnd, build_end

KILL_TIMEOUT_S = 5.0
END_GRACE_S = 1.0
"""A process that has closed its socket may take this long to end: an earlier kill would hide the cause."""
NUMPY_THREADS = "OPENBLAS_NUM_THREADS"
SPAWNED_SOCKET = 3
"""The descriptor that a started worker finds its socket at."""


@dataclass
class WorkerProcess:
    """A worker as the agent sees it: a process id and the agent's end of the socket."""

    pid: int
    sock: socket.socket
    _end: ProcessEnd | None = None

    def poll(self) -> ProcessEnd | None:
        """Return how it ended, or None while it runs."""
        if self._end is None:
            with contextlib.suppress(ChildProcessError):
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
                if pid:
                    self._end = build_end(status, usage)
        return self._end

    def kill(self, grace_s: float = 0.0) -> ProcessEnd | None:
        """Close the socket, and kill the process unless it ends within `grace_s`. Return how it ended."""
        with contextlib.suppress(OSError):
            self.sock.close()
        if self._wait(grace_s) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        return self._wait(KILL_TIMEOUT_S)  # a moment, unless it hangs in a device

    def _wait(self, timeout_s: float) -> ProcessEnd | None:
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        return self._end


def fork_worker() -> WorkerProcess:
    """Fork this process as it is now. Only before threads, event loop, files and keys.

    If a thread runs nevertheless, start a program: a fork of a process with threads may wait forever for a lock.
    """
    if not is_one_thread():
        return spawn_worker()
    gc.collect()
    gc.freeze()  # otherwise the collector would write to every object, and all pages would be copied
    ours, theirs = socket.socketpair()
    agent_pid = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return WorkerProcess(pid, ours)
    code = 1
    try:
        ours.close()
        process.run_worker(theirs, agent_pid)
        code = 0
    except BaseException:  # no code of the agent may go on running in this copy
        traceback.print_exc()
    finally:
        os._exit(code)


def spawn_worker() -> WorkerProcess:
    """Start a program of its own: safe at any time, some megabytes larger."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", process.__name__, str(SPAWNED_SOCKET), str(os.getpid())]
    environ = {NUMPY_THREADS: "1", **os.environ}  # numpy would start a thread for each core
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), SPAWNED_SOCKET)]
    try:
        pid = os.posix_spawn(sys.executable, command, environ, file_actions=actions, setsigmask=())
    finally:
        theirs.close()
    return WorkerProcess(pid, ours)
