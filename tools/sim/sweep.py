"""Many seeds, spread over processes: results come in order of seed, so that nothing depends on how many processes."""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections import Counter, deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any

from tools.sim.run import Options, Summary, run

HEIGHTS_MIN = 6
"""A network of many validators gets fewer heights than a small one, but never fewer than these."""
AHEAD = 8
"""Runs that wait for a process or for the result of an earlier seed, for each process."""


def draw_validators(seed: int, among: range) -> int:
    """How many validators the network of a seed has: n with a weight of 1/n^2, since a height costs about n^2."""
    if len(among) == 1:
        return among[0]
    weights = [1_000_000 // n**2 for n in among]
    return random.Random(f"validators {seed}").choices(among, weights)[0]


def get_heights(heights: int, validators: int, among: range) -> int:
    """`heights` for the smallest network of a range, in proportion fewer for the others."""
    return max(min(heights, HEIGHTS_MIN), heights * among[0] // validators)


def count_liars_max(validators: int) -> int:
    """f: the most that the protocol bears, fewer than a third."""
    return (validators - 1) // 3


@dataclass
class Totals:
    """What the runs so far come to."""

    seeds: int = 0
    heights: int = 0
    rounds: int = 0
    events: int = 0
    messages: int = 0
    lost: int = 0
    crashes: int = 0
    partitions: int = 0
    elections: int = 0
    accused: int = 0
    views_max: int = 0
    validators: Counter[int] = field(default_factory=Counter)
    """How many networks had so many."""
    byzantine: Counter[str] = field(default_factory=Counter)
    """How many liars there were of each kind; both copies of an `equivocate` count."""

    def __post_init__(self) -> None:
        self._hash = sha256()

    def add(self, options: Options, summary: Summary) -> None:
        """One more run, in order of seed."""
        self.seeds += 1
        for name in ("heights", "rounds", "events", "messages", "lost", "crashes", "partitions", "elections"):
            setattr(self, name, getattr(self, name) + getattr(summary, name))
        self.accused += len(summary.accused)
        self.views_max = max(self.views_max, summary.views_max)
        self.validators[options.validators] += 1
        self.byzantine.update(summary.byzantine.values())
        self._hash.update(bytes.fromhex(summary.trace_hash))

    def describe(self) -> dict[str, Any]:
        """Name to number, or to numbers by name."""
        numbers = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("validators", "byzantine"):
            numbers[name] = {str(key): count for key, count in sorted(numbers[name].items())}
        return numbers

    def combine_hashes(self) -> str:
        """SHA-256 over the trace hashes in order of seed."""
        return self._hash.hexdigest()


def run_one(options: Options) -> Summary:
    """A run without its network, which cannot go from one process to another."""
    return run(options)[1]


def sweep(runs: Iterable[Options], jobs: int) -> Generator[tuple[Options, Summary], None, None]:
    """All runs, in their order, in `jobs` processes (1: in this one). Closing it ends what is under way."""
    todo = list(runs)
    if jobs == 1:
        yield from ((options, run_one(options)) for options in todo)
        return
    # spawned, not forked: a child takes nothing with it but what it is given, as on every other system
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_interrupts_to_parent)
    ahead: deque[tuple[Options, Future[Summary]]] = deque()
    try:
        # Not all at once with map: it cancels what waits at a stop, and that ends the pool's thread with a traceback.
        for options in todo:
            ahead.append((options, pool.submit(run_one, options)))
            if len(ahead) == AHEAD * jobs:
                first, future = ahead.popleft()
                yield first, future.result()
        yield from ((options, future.result()) for options, future in ahead)
    except BaseException:  # a stop must not wait for the seeds that are under way
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown()


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
