"""The cost of an agent for its board: CPU shares that it keeps to, memory in a round, CPU when it is idle."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.edge.cpu.control import MECHANISMS
from flchain.base.errors import FlchainError
from tools.bench.agent.cpu_shares import QUICK_SPLITS, SPLITS, open_mechanisms, sweep
from tools.bench.agent.process_tree import Memory, list_tree, read_cpu_s, read_memory
from tools.bench.host import describe_machine, read_commit
from tools.demo.processes import Processes
from tools.demo.results import read_last_round
from tools.network.broker import start_broker
from tools.network.datasets import load_dataset
from tools.network.layout import Network, Node, Plan, build_network, write_configs

METHOD = (
    "(a) Two processes that each want all cores, under every mechanism that works here, next to idle-priority load on "
    "all cores: requested and actual share of the whole CPU. (b) The agent with its workers, one person's watch data "
    "and the 1-D CNN, over a real broker and a real miner on loopback: the largest sums over its processes while "
    "rounds run. (c) The same processes when all rounds are over and the link is up."
)
MEMORY_MB_GOAL, IDLE_PERCENT_GOAL = 90.0, 1.0
SAMPLE_S = 0.05
SETTLE_S = 2.0
PATIENCE_S = 240.0
PLAN = Plan(
    dataset="watch",
    devices=1,
    miners=1,
    seed=1,
    model="cnn1d",
    codec="sparse-ternary",
    codec_level=20,
    downstream_codec="sparse-ternary",
    downstream_level=20,
    follow="full",
    aggregation="weighted-sum",
    preset="edge",
    local_epochs=5,
    batch_size=32,
    learning_rate=0.1,
)


@dataclass(frozen=True)
class Size:
    """How long each part is measured."""

    share_s: float
    rounds: int
    idle_s: float
    is_quick: bool = False


FULL, QUICK = Size(30.0, 8, 60.0), Size(3.0, 3, 10.0, is_quick=True)


class BenchFault(FlchainError):
    """The network failed, so there is nothing to measure; the text says how far it got."""


def plan_for(model: str) -> Plan:
    """Return the plan that trains another model, of flattened digits: memory and idle CPU by the size of a model."""
    return replace(PLAN, dataset="mnist", model=model)


def run_bench(size: Size, tell: Callable[[str], None], model: str | None = None) -> dict[str, Any]:
    """Measure all three parts; of `model` (a name or a file) only the agent's own two. Raises BenchFault."""
    machine = describe_machine()
    shares = measure_shares(size, tell) if model is None else []
    agent = measure_agent(size, tell, PLAN if model is None else plan_for(model))
    return {
        "benchmark": "agent",
        "method": METHOD,
        "is_quick": size.is_quick,
        "machine": machine | {"load_1min_after": describe_machine()["load_1min"]},
        "commit": read_commit(),
        "shares": shares,
        **agent,
    }


def measure_shares(size: Size, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return one entry for each mechanism: the shares that it gave, or why it cannot be used here."""
    results: list[dict[str, Any]] = []
    names = tuple(name for name in MECHANISMS if name != "none")
    for name, control in open_mechanisms(names).items():
        if isinstance(control, str):
            tell(f"{name}: not available: {control}")
            results.append({"mechanism": name, "is_usable": False, "cause": control, "splits": []})
            continue
        splits = QUICK_SPLITS if size.is_quick else SPLITS
        given = asyncio.run(sweep(control, splits, size.share_s))
        worst = max(one.gap_points for one in given)
        tell(f"{name}: {len(given)} splits of {size.share_s:g} s, largest gap {worst:.2f} points")
        rows = [asdict(one) | {"gap_points": one.gap_points} for one in given]
        results.append({"mechanism": name, "is_usable": True, "splits": rows, "largest_gap_points": worst})
    return results


def measure_agent(size: Size, tell: Callable[[str], None], plan: Plan = PLAN) -> dict[str, Any]:
    """Measure memory while rounds run, then CPU when they are over. Raises BenchFault."""
    with (
        tempfile.TemporaryDirectory(prefix="flchain-bench-") as name,
        _running(Path(name), plan, size.rounds, tell) as started,
    ):
        network, pid = started
        network_agent = network.agents[0]
        memory, samples = _watch_rounds(network_agent, pid, size.rounds)
        tell(f"{size.rounds} rounds: PSS up to {memory.pss_bytes / 1e6:.1f} MB, RSS {memory.rss_bytes / 1e6:.1f} MB")
        time.sleep(SETTLE_S)
        idle = _measure_idle(pid, size.idle_s)
        tell(f"idle for {size.idle_s:g} s: {idle['cpu_percent_of_a_core']:.2f}% of a core")
    return {
        "model": plan.model,
        "parameters": network.genesis.params.parameters_count,
        "memory": {
            "pss_mb": memory.pss_bytes / 1e6,
            "rss_mb": memory.rss_bytes / 1e6,
            "processes": memory.processes,
            "samples": samples,
            "rounds": size.rounds,
        },
        "idle": idle,
    }


@contextlib.contextmanager
def _running(folder: Path, plan: Plan, rounds: int, tell: Callable[[str], None]) -> Iterator[tuple[Network, int]]:
    network = build_network(folder / "network", plan, load_dataset(plan.dataset, plan.model))
    processes = Processes(network.out, tell, lambda node: None)
    with start_broker("nats", folder / "broker") as broker:
        write_configs(network, broker.host, broker.port, rounds)
        try:
            _start(processes, network)
            yield network, processes.children[network.agents[0].name].process.pid
        finally:
            processes.stop()


def _start(processes: Processes, network: Network) -> None:
    for nodes in (network.agents, network.miners):
        processes.start(nodes)
        deadline = time.monotonic() + PATIENCE_S
        while not processes.are_connected(nodes):
            if time.monotonic() > deadline:
                raise BenchFault(f"no connection within {PATIENCE_S:g} s")
            time.sleep(SAMPLE_S)


def _watch_rounds(node: Node, pid: int, rounds: int) -> tuple[Memory, int]:
    """Return the largest value of each sum until the last round is settled, and the number of samples."""
    rss = pss = processes = samples = 0
    deadline = time.monotonic() + PATIENCE_S
    while read_last_round(node) < rounds:
        now = read_memory(pid)
        rss, pss = max(rss, now.rss_bytes), max(pss, now.pss_bytes)
        processes, samples = max(processes, now.processes), samples + 1
        if time.monotonic() > deadline or not now.processes:
            raise BenchFault(f"round {read_last_round(node)} of {rounds}\n{node.log.read_text()[-2000:]}")
        time.sleep(SAMPLE_S)
    return Memory(rss, pss, processes), samples


def _measure_idle(pid: int, seconds: float) -> dict[str, Any]:
    pids = list_tree(pid)
    started, before = time.monotonic(), read_cpu_s(pid)
    time.sleep(seconds)
    took, used = time.monotonic() - started, read_cpu_s(pid) - before
    if list_tree(pid) != pids:
        raise BenchFault("the agent's processes changed while it was idle")
    return {"seconds": took, "cpu_seconds": used, "cpu_percent_of_a_core": 100 * used / took, "processes": len(pids)}
