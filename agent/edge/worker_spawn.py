"""How worker processes come into being: forked before the agent has imported anything, or started as a program.

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

from agent.edge import worker_process
from flchain_edge.process_ends import ProcessEnd, build_end

KILL_TIMEOUT_S = 5.0
SPAWNED_SOCKET = 3
"""The descriptor that a started worker finds its socket at."""


@dataclass
class WorkerProcess:
    """A worker as the agent sees it: a process id and the agent's end of the socket."""

    pid: int
    sock: socket.socket
    _end: ProcessEnd | None = None

    def poll(self) -> ProcessEnd | None:
        """How it ended, once it has."""
        if self._end is None:
            with contextlib.suppress(ChildProcessError):
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
                if pid:
                    self._end = build_end(status, usage)
        return self._end

    def kill(self) -> ProcessEnd | None:
        """End it and let go of the socket; how it ended, which is its own doing if it had ended before."""
        with contextlib.suppress(OSError):
            self.sock.close()
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while self.poll() is None and time.monotonic() < deadline:  # a moment, unless it hangs in a device
            time.sleep(0.001)
        return self._end


def fork_worker() -> WorkerProcess:
    """A copy of this process as it is now. Only before threads, event loop, files and keys."""
    gc.collect()
    gc.freeze()  # else the collector writes to every object, and both sides pay for all pages
    ours, theirs = socket.socketpair()
    agent_pid = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return WorkerProcess(pid, ours)
    code = 1
    try:
        ours.close()
        worker_process.run_worker(theirs, agent_pid)
        code = 0
    except BaseException:  # nothing of the agent may run on in this copy of it
        traceback.print_exc()
    finally:
        os._exit(code)


def spawn_worker() -> WorkerProcess:
    """A program of its own: safe at any time, some megabytes larger."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", worker_process.__name__, str(SPAWNED_SOCKET), str(os.getpid())]
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), SPAWNED_SOCKET)]
    try:
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsigmask=())
    finally:
        theirs.close()
    return WorkerProcess(pid, ours)
