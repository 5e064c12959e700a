"""A few real nodes on real brokers, whose processes and brokers a test may kill: what is on disk says how it went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flchain.base.types import Address
from flchain.wire.envelope import BODY_BYTES_MAX, HEADER_BYTES_MAX, decode_struct, open_envelope
from flchain.wire.fields import Kind
from flchain.wire.messages import Body, Header, Phase
from miner.edge.ledger.file import open_ledger_file
from tools.demo.processes import Processes
from tools.demo.results import query
from tools.network.layout import Node

DEADLINE_S = 90.0
"""Longest wait for one condition: no claim about speed, only the end of patience."""
POLL_S = 0.02


def save_levels(path: Path, seed: int, count: int = 48) -> None:
    """Examples for the 1-D CNN that it learns in a moment: four levels."""
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % 4).astype(np.int32)
    x = rng.normal(0, 0.5, (count, 100, 6)) + y[:, None, None]
    np.savez(path, x=x.astype(np.float32), y=y)


@dataclass(frozen=True)
class Place:
    """Where the chain is on a miner's disk."""

    height: int
    round: int
    phase: Phase


@dataclass
class FieldNetwork:
    """Processes of nodes whose folders are laid out already."""

    out: Path
    nodes: list[Node] = field(default_factory=list)
    down: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._processes = Processes(self.out, print, lambda node: None)

    @property
    def miners(self) -> list[Node]:
        return [node for node in self.nodes if node.role == "miner"]

    @property
    def agents(self) -> list[Node]:
        return [node for node in self.nodes if node.role == "agent"]

    def start(self, *nodes: Node) -> None:
        self._processes.start(nodes)
        self.down -= {node.name for node in nodes}

    def kill(self, node: Node) -> None:
        """SIGKILL, as a power cut would."""
        process = self._processes.children[node.name].process
        process.kill()
        process.wait()
        self.down.add(node.name)

    def signal(self, node: Node, number: int) -> None:
        """As `systemctl reload` would."""
        self._processes.children[node.name].process.send_signal(number)

    def read_log(self, node: Node) -> str:
        """What this life of it has said."""
        return self._processes.children[node.name].read_log()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Fail if a process ends that the test has not killed."""
        started = time.monotonic()
        while not condition():
            for name, child in self._processes.children.items():
                assert name in self.down or child.is_running, f"{name} has ended\n{child.read_log_tail()}"
            tails = "\n".join(child.read_log_tail() for child in self._processes.children.values())
            assert time.monotonic() - started < DEADLINE_S, f"waited for {what}\n{tails}"
            time.sleep(POLL_S)

    def get_place(self) -> Place:
        """Of the furthest miner."""
        places = [Place(0, 1, Phase.OPEN)]
        for miner in self.miners:
            for (raw,) in query(miner.database, "SELECT header FROM blocks ORDER BY height DESC LIMIT 1"):
                header = decode_struct(raw, Header, HEADER_BYTES_MAX)
                places.append(Place(header.height, header.next_round, header.next_phase))
        return max(places, key=lambda place: place.height)

    def get_rounds(self, agent: Node) -> dict[int, bool]:
        """Rounds whose model an agent has computed itself, and whether its own update was in it."""
        rows = query(agent.database, "SELECT round, is_accepted FROM rounds")
        return {number: bool(accepted) for number, accepted in rows}

    def until_settled(self, number: int) -> None:
        """Until every agent has this round's model."""
        self.until(lambda: all(number in self.get_rounds(agent) for agent in self.agents), f"round {number}")

    def list_updates(self, agent: Node) -> list[tuple[int, bytes]]:
        """Every update of an agent in the furthest ledger: (round, the message's bytes)."""
        miner = max(self.miners, key=lambda node: len(query(node.database, "SELECT 1 FROM blocks")))
        found = []
        with open_ledger_file(miner.database) as ledger:
            for row in ledger.iterate_blocks():
                header = decode_struct(row.header, Header, HEADER_BYTES_MAX)
                for raw in decode_struct(row.body, Body, BODY_BYTES_MAX).transactions:
                    envelope = open_envelope(raw, header.chain)
                    if envelope.kind is Kind.REVEAL and envelope.sender == agent.address:
                        found.append((envelope.number, raw))
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[FieldNetwork]:
        """All processes are ended at the end of the block."""
        try:
            yield self
        finally:
            self._processes.stop()


def make_node(out: Path, role: str, index: int, address: Address) -> Node:
    """A node whose folder is there."""
    name = f"{role}-{index}"
    return Node(name, role, out / name, address)
