"""kill -9 in the middle of writing: work in a process of its own that says what it believes to be durable."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

Told = TypeVar("Told")


def kill_after(
    count: int, work: Callable[[Callable[[Told], None]], None], before_kill: Callable[[], None] = lambda: None
) -> Told | None:
    """Run `work(acknowledge)` in a fork and kill it after `count` acknowledgements, or let it end before.

    Gives the last thing acknowledged, those on their way when the kill came included; None for none.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_run, args=(work, sender))
    with warnings.catch_warnings():
        # The work is a closure, so it cannot be a program's. The threads here are numpy's, which provides for forks,
        # and those of the test runner, of which the child calls nothing.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    sender.close()
    last: Told | None = None
    try:
        for _ in range(count):
            last = receiver.recv()
        before_kill()
        process.kill()
        while True:
            last = receiver.recv()
    except EOFError:
        return last
    finally:
        process.kill()
        process.join()
        receiver.close()


def _run(work: Callable[[Callable[[Told], None]], None], sender: Connection) -> None:
    work(sender.send)
