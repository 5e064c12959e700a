"""The results of a run, read from every node's own database afterwards and never from the live display."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.edge.store.view import read_position
from flchain.base.types import Height, ModelVector
from flchain.ledger.block import hash_header
from flchain.ledger.genesis import Genesis
from flchain.ledger.state import build_genesis_state, hash_model
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from miner.edge.ledger.ledger import StoredBlock, replay_block
from tools.demo.measures import Measures
from tools.network.layout import Network, Node, Plan

RESULTS_FILE = "results.json"
ROUNDS_FILE = "rounds.csv"
PLOT_FILE = "accuracy.png"
PLAN_NAMES = (
    *("devices", "miners", "dataset", "model", "codec", "codec_level", "downstream_codec", "downstream_level"),
    *("follow", "aggregation", "mining", "seed"),
)
"""Fields of the plan that the results repeat."""
VALUE_BYTES = 4  # a float32: the cost of one parameter in an uncompressed update


@dataclass(frozen=True)
class NodeEnd:
    """The newest state in a node's database: the last settled round, the hash of its model, and the last block."""

    name: str
    role: str
    round: int
    model_hash: str
    head: str
    height: int


@dataclass(frozen=True)
class Cost:
    """The cost of one round for one device: training in ms, bytes of MQTT payloads and topics."""

    training_ms: int
    bytes_up: int
    bytes_down: int


def query(database: Path, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a read-only query; none if the database does not exist yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database.resolve()}?mode=ro", uri=True, timeout=10.0)) as db:
        try:
            return db.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def read_end(node: Node, genesis: Genesis) -> NodeEnd:
    """Read a node's last state. A device's hash is computed from its model, a miner's is in its newest block."""
    header_bytes: bytes | None = None
    model_hash: bytes | None = None
    if node.role == "agent":
        found = read_position(node.database, genesis.params.parameters_count)
        if found is not None:
            header_bytes, model_hash = found[0].header, hash_model(found[1])
    else:
        rows = query(node.database, "SELECT header FROM blocks ORDER BY height DESC LIMIT 1")
        header_bytes = rows[0][0] if rows else None
    if header_bytes is None:
        return NodeEnd(
            node.name, node.role, 0, genesis.params.initial_model_hash.hex(), genesis.compute_id().hex(), height=0
        )
    header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
    model_hash = model_hash or header.model_hash
    head = hash_header(header_bytes).hex()
    return NodeEnd(node.name, node.role, header.next_round - 1, model_hash.hex(), head, header.height)


def read_last_round(node: Node) -> int:
    """Return the newest round in a device's history, 0 if there is none."""
    rows = query(node.database, "SELECT max(round) FROM rounds") if node.role == "agent" else []
    return int(rows[0][0] or 0) if rows else 0


def read_costs(node: Node, starts: list[int]) -> dict[int, Cost]:
    """Return the cost of each round of a device.

    Its byte counters start at 0 with its process; `starts` has the newest round at each of these starts.
    """
    costs, before, last = {}, (0, 0), 0
    for number, training_ms, up, down in query(
        node.database, "SELECT round, training_ms, bytes_up, bytes_down FROM rounds ORDER BY round"
    ):
        if any(last <= start < number for start in starts) or up < before[0] or down < before[1]:
            before = (0, 0)
        costs[number] = Cost(training_ms, up - before[0], down - before[1])
        before, last = (up, down), number
    return costs


def iterate_models(ledger: Path, genesis: Genesis, initial_model: ModelVector) -> Iterator[tuple[int, ModelVector]]:
    """Yield (round, model) of every settled round by replaying a miner's ledger. Raises LedgerCorrupt."""
    state = build_genesis_state(genesis, initial_model)
    for row in query(ledger, "SELECT height, hash, header, certificate, body FROM blocks ORDER BY height"):
        after = replay_block(state, StoredBlock(Height(row[0]), *row[1:]))
        if after.round.number > state.round.number:
            yield state.round.number, after.model
        state = after


def find_problems(ends: tuple[NodeEnd, ...], rounds_wanted: int) -> tuple[str, ...]:
    """Return why the run did not end well: nodes that are behind, and nodes that disagree, which must never happen."""
    problems = []
    settled = max(end.round for end in ends)
    if settled < rounds_wanted:
        problems.append(f"{settled} of {rounds_wanted} rounds are final")
    models = [end for end in ends if end.round == settled]
    if len({end.model_hash for end in models}) > 1:
        listed = "; ".join(f"{end.name} {end.model_hash[:16]}" for end in models)
        problems.append(f"DIFFERENT MODELS of round {settled}: {listed}")
    for height in sorted({end.height for end in ends}):
        at_height = [end for end in ends if end.height == height]
        if len({end.head for end in at_height}) > 1:
            listed = "; ".join(f"{end.name} {end.head[:16]}" for end in at_height)
            problems.append(f"DIFFERENT BLOCKS at height {height}: {listed}")
    behind = [f"{end.name} at round {end.round}" for end in ends if end.round < settled]
    if behind:
        problems.append(f"behind round {settled}: {', '.join(behind)}")
    return tuple(problems)


def build_results(network: Network, plan: Plan, measures: Measures, mined: dict[str, int]) -> dict[str, Any]:
    """Return the JSON object. Lists are by round, from round 1 on, with null for what was not measured."""
    ends = tuple(read_end(node, network.genesis) for node in network.nodes)
    problems = find_problems(ends, measures.rounds_wanted)
    settled = max(end.round for end in ends)
    costs = [read_costs(node, measures.agent_starts.get(node.name, [])) for node in network.agents]
    costs_by_round = [[cost[number] for cost in costs if number in cost] for number in range(1, settled + 1)]
    return {
        "rounds": settled,
        "rounds_wanted": measures.rounds_wanted,
        "is_complete": not problems,
        "problems": list(problems),
        "height": max(end.height for end in ends),
        **_describe_plan(network, plan),
        "mined": mined,
        "model_hash": {end.name: end.model_hash for end in ends},
        "head": {end.name: end.head for end in ends},
        "round_by_node": {end.name: end.round for end in ends},
        **_describe_bytes(costs_by_round),
        **_describe_times(measures, costs_by_round),
        "peak_memory_mb": {role: round(peak / 1e6, 1) for role, peak in sorted(measures.peak_bytes.items())},
        "restarts": measures.restarts,
        "chain_dir": str((network.miners[0].folder / "data").resolve()),
        "out": str(network.out.resolve()),
    }


def _describe_plan(network: Network, plan: Plan) -> dict[str, Any]:
    parameters = network.genesis.params.parameters_count
    return {name: getattr(plan, name) for name in PLAN_NAMES} | {
        "parameters": parameters,
        "bytes_float32": VALUE_BYTES * parameters,
    }


def _describe_bytes(costs_by_round: list[list[Cost]]) -> dict[str, Any]:
    return {
        "bytes_up_per_device_round": _mean([cost.bytes_up for row in costs_by_round for cost in row]),
        "bytes_down_per_device_round": _mean([cost.bytes_down for row in costs_by_round for cost in row]),
        "bytes_up_by_round": [_mean([cost.bytes_up for cost in row]) for row in costs_by_round],
        "bytes_down_by_round": [_mean([cost.bytes_down for cost in row]) for row in costs_by_round],
    }


def _describe_times(measures: Measures, costs_by_round: list[list[Cost]]) -> dict[str, Any]:
    """Times in seconds, and accuracies: all that is known of a round by the demo alone."""
    entries = [measures.get(number) for number in range(1, len(costs_by_round) + 1)]
    slowest = [max((cost.training_ms for cost in row), default=0) / 1000 or None for row in costs_by_round]
    overhead = [
        None if entry.seconds is None or train is None else round(entry.seconds - train, 3)
        for entry, train in zip(entries, slowest, strict=True)
    ]
    return {
        "initial_accuracy": measures.initial_accuracy,
        "test_accuracy": [entry.accuracy for entry in entries],
        "seconds": round(measures.seconds, 3),
        "seconds_startup": round(measures.startup_seconds, 3),
        "seconds_training": round(sum(seconds for seconds in slowest if seconds), 3),
        "round_seconds": [_rounded(entry.seconds) for entry in entries],
        "slowest_training_seconds": slowest,
        "overhead_seconds": overhead,
        "evaluation_seconds": [_rounded(entry.evaluation_seconds) for entry in entries],
    }


def write_results(out: Path, results: dict[str, Any]) -> None:
    """Write results.json and rounds.csv."""
    (out / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n")
    columns = (
        "test_accuracy",
        "round_seconds",
        "slowest_training_seconds",
        "overhead_seconds",
        "evaluation_seconds",
        "bytes_up_by_round",
        "bytes_down_by_round",
    )
    with (out / ROUNDS_FILE).open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["round", *columns])
        for index in range(results["rounds"]):
            table.writerow([index + 1, *(results[column][index] for column in columns)])


def _mean(values: list[int]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
