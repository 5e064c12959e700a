"""Run something that may kill its process in a child process; return what it answered and how it ended.

The child is forked while this process has one thread: it starts at once and shares what is imported. A fork of more
threads copies locks that others hold, and may wait for them for ever (Python 3.12 warns about it): then the child is a
program. Threads that OpenBLAS starts count, too.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from flchain_edge.children.ends import ProcessEnd, build_end

WORDS_BYTES_MAX: Final = 4096
TASKS: Final = Path("/proc/self/task")


@dataclass(frozen=True)
class Outcome:
    """How a child's work ended."""

    answer: bytes | None
    """All that it answered; None if it took too long."""
    end: ProcessEnd
    words: str
    """The last of what it wrote to stderr, which goes nowhere else."""


def is_one_thread() -> bool:
    """Return whether this process may fork: no other thread runs, neither Python's nor a library's."""
    try:
        return len(os.listdir(TASKS)) == 1
    except OSError:
        return False


def run_apart(work: Callable[[bytes], bytes], program: str, content: bytes, timeout_s: float) -> Outcome:
    """Run `work(content)` in a child process.

    `program` is Python that does the same by `answer_as_program`. Raise OSError if no process can be started.
    """
    stderr = os.memfd_create("stderr")
    try:
        pid, reader = _start(work, program, content, stderr)
        answer = _read_answer(reader, timeout_s)
        if answer is None:
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        size = os.fstat(stderr).st_size
        words = os.pread(stderr, WORDS_BYTES_MAX, max(0, size - WORDS_BYTES_MAX))
        return Outcome(answer, build_end(status, usage), words.decode(errors="replace").strip())
    finally:
        os.close(stderr)


def answer_as_program(work: Callable[[bytes], bytes]) -> None:
    """Do the work in the program: the content is on stdin, the answer goes to stdout."""
    with os.fdopen(0, "rb", closefd=False) as stream:
        _write(1, work(stream.read()))


def _start(work: Callable[[bytes], bytes], program: str, content: bytes, stderr: int) -> tuple[int, int]:
    """Start the child; return its process id, and the descriptor with its answer."""
    reader, writer = os.pipe()
    try:
        if is_one_thread():
            return _fork(work, content, (writer, stderr)), reader
        return _spawn(program, content, (writer, stderr)), reader
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)


def _fork(work: Callable[[bytes], bytes], content: bytes, outputs: tuple[int, int]) -> int:
    pid = os.fork()
    if pid == 0:
        _answer_as_copy(work, content, outputs)
    return pid


def _answer_as_copy(work: Callable[[bytes], bytes], content: bytes, outputs: tuple[int, int]) -> NoReturn:
    """Do the work in the fork, which ends here whatever happens: it is a copy of the caller's process."""
    try:
        os.dup2(outputs[1], 2)
        _write(outputs[0], work(content))
    finally:
        os._exit(0)


def _spawn(program: str, content: bytes, outputs: tuple[int, int]) -> int:
    stdin = os.memfd_create("content")
    try:
        _write(stdin, content)
        os.lseek(stdin, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, own, number) for number, own in enumerate((stdin, *outputs))]
        environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # threads that it would start and never use
        return os.posix_spawn(
            sys.executable, (sys.executable, "-c", program), environ, file_actions=actions, setsigmask=()
        )
    finally:
        os.close(stdin)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_answer(reader: int, timeout_s: float) -> bytes | None:
    """Return all that the child writes until it ends; None if it takes too long."""
    answer, deadline = b"", time.monotonic() + timeout_s
    with os.fdopen(reader, "rb", buffering=0) as stream:
        while select.select((stream,), (), (), max(0.0, deadline - time.monotonic()))[0]:
            if not (part := stream.read(65_536)):
                return answer
            answer += part
    return None
