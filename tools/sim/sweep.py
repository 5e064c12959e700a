"""Many seeds, spread over processes. Results come in order of seed, whatever the number of processes."""

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
"""A network with many validators gets fewer heights than a small one, but at least these."""
AHEAD = 8
"""Per process: runs that wait for it, or for the result of an earlier seed."""


def draw_validators(seed: int, among: range) -> int:
    """Return how many validators the network of a seed has: n with weight 1/n^2, since a height costs about n^2."""
    if len(among) == 1:
        return among[0]
    weights = [1_000_000 // n**2 for n in among]
    return random.Random(f"validators {seed}").choices(among, weights)[0]


def get_heights(heights: int, validators: int, among: range) -> int:
    """Return `heights` for the smallest network of a range, and proportionally fewer for larger ones."""
    return max(min(heights, HEIGHTS_MIN), heights * among[0] // validators)


def count_liars_max(validators: int) -> int:
    """Return f, the most liars that the protocol tolerates: fewer than a third."""
    return (validators - 1) // 3


@dataclass
class Totals:
    """The totals of the runs so far."""

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
    """How many networks had each number of validators."""
    byzantine: Counter[str] = field(default_factory=Counter)
    """How many liars of each kind there were; both copies of an `equivocate` count."""

    def __post_init__(self) -> None:
        self._hash = sha256()

    def add(self, options: Options, summary: Summary) -> None:
        """Add a run, in order of seed."""
        self.seeds += 1
        for name in ("heights", "rounds", "events", "messages", "lost", "crashes", "partitions", "elections"):
            setattr(self, name, getattr(self, name) + getattr(summary, name))
        self.accused += len(summary.accused)
        self.views_max = max(self.views_max, summary.views_max)
        self.validators[options.validators] += 1
        self.byzantine.update(summary.byzantine.values())
        self._hash.update(bytes.fromhex(summary.trace_hash))

    def describe(self) -> dict[str, Any]:
        """Return the totals by name: numbers, or numbers by name."""
        numbers = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("validators", "byzantine"):
            numbers[name] = {str(key): count for key, count in sorted(numbers[name].items())}
        return numbers

    def combine_hashes(self) -> str:
        """Return the SHA-256 over the trace hashes in order of seed."""
        return self._hash.hexdigest()


def run_one(options: Options) -> Summary:
    """Return a run's summary without its network, which cannot be passed between processes."""
    return run(options)[1]


def sweep(runs: Iterable[Options], jobs: int) -> Generator[tuple[Options, Summary], None, None]:
    """Yield the summaries of all runs in order, computed in `jobs` processes (1: in this one).

    Closing the generator ends the runs under way.
    """
    todo = list(runs)
    if jobs == 1:
        yield from ((options, run_one(options)) for options in todo)
        return
    # spawned, not forked: a child then inherits nothing, on every system alike
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_interrupts_to_parent)
    ahead: deque[tuple[Options, Future[Summary]]] = deque()
    try:
        # Not all at once with map: a stop then cancels waiting runs, and the pool's thread ends with a traceback.
        for options in todo:
            ahead.append((options, pool.submit(run_one, options)))
            if len(ahead) == AHEAD * jobs:
                first, future = ahead.popleft()
                yield first, future.result()
        yield from ((options, future.result()) for options, future in ahead)
    except BaseException:  # a stop must not wait for the runs under way
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown()


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
