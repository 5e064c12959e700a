"""A network of real processes that a test may kill, start again and cut off, and what must be true of it at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flchain.base.types import Address
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from miner.edge.ledger.file import open_ledger_file
from tests.support.chain_watch import ChainWatch
from tools.demo.processes import Processes
from tools.demo.results import query
from tools.inspect.audit import Audit, audit_file, compare
from tools.network.datasets import load_npz
from tools.network.layout import Network, Node, Plan, build_network, write_configs

DEADLINE_S = 90.0
"""Longest wait for one condition: no claim about speed, only the end of patience."""
POLL_S = 0.02
MINERS = 7
AGENTS = 3
TROUBLE = ("Traceback", "CRITICAL", "signed twice")
"""What no process may say, however often its peers die."""


@dataclass(frozen=True)
class Ends:
    """What all ledgers hold: `common` blocks in every one."""

    common: int
    height: int
    rounds: int
    certificate_signatures: int


def lay_out(out: Path) -> Network:
    """Keys, genesis and little data: a 1-D CNN that learns four levels in a moment."""
    rng = np.random.default_rng(3)
    count, people = 200, AGENTS + 2
    y = np.arange(count) % 4
    x = rng.normal(0, 0.5, (count, 100, 6)) + y[:, None, None]
    file = out.with_suffix(".npz")
    np.savez(file, x=x.astype(np.float32), y=y, client=np.arange(count) // (count // people))
    plan = Plan(
        dataset="levels",
        devices=AGENTS,
        miners=MINERS,
        seed=1,
        model="cnn1d",
        codec="sparse-ternary",
        codec_level=20,
        downstream_codec="sparse-ternary",
        downstream_level=20,
        follow="full",
        aggregation="weighted-sum",
        preset="minimal",
        local_epochs=1,
        batch_size=32,
        learning_rate=0.05,
    )
    return build_network(out, plan, load_npz(file, "cnn1d"))


class RealNetwork:
    """The processes of a laid-out network. `down` are those that the test has killed."""

    def __init__(self, network: Network, watch: ChainWatch) -> None:
        self.network = network
        self.watch = watch
        self.down: set[str] = set()
        self._processes = Processes(network.out, print, lambda node: None)

    def write_configs(self, host: str, ports: Mapping[str, int], keepalives_s: Mapping[str, int] | None = None) -> None:
        """Each node's configuration, with the port of the broker or of the proxy that is its own; by name."""
        write_configs(self.network, host, 0, 0)
        for node in self.network.nodes:
            own = f"port = {ports[node.name]}\nkeepalive_s = {(keepalives_s or {}).get(node.name, 30)}\n"
            node.config.write_text(node.config.read_text().replace("port = 0\n", own))

    async def start(self, nodes: Iterable[Node]) -> None:
        """Start processes, or start them again."""
        nodes = tuple(nodes)
        self._processes.start(nodes)
        self.down -= {node.name for node in nodes}

    def kill(self, node: Node) -> None:
        """SIGKILL, as a power cut would."""
        process = self._processes.children[node.name].process
        process.kill()
        process.wait()
        self.down.add(node.name)
        self.note_own_words(node)

    def stop(self) -> None:
        """Let every process end in its own way."""
        self._processes.stop()

    def note_own_words(self, node: Node) -> None:
        """Add to the record what a miner has signed about the open height, said aloud or only written down."""
        if node.role != "miner" or not node.database.is_file():
            return
        with open_ledger_file(node.database) as ledger:
            for _, raw in ledger.get_own_record().messages:
                self.watch.words.add(raw)

    def count_lines(self, node: Node, text: str) -> int:
        """How many lines of a node's log hold `text`."""
        return sum(text in line for line in node.log.read_text(errors="replace").splitlines())

    def get_ledger_height(self, node: Node) -> int:
        """Return how many blocks a miner has on disk, whether or not it can publish."""
        if not node.database.is_file():
            return 0
        with open_ledger_file(node.database) as ledger:
            return ledger.get_height()

    def get_ledger_heights(self) -> dict[str, int]:
        """The same of all, by name."""
        return {node.name: self.get_ledger_height(node) for node in self.network.miners}

    async def until(self, condition: Callable[[], bool], what: str) -> float:
        """Return the seconds until the condition held. Fail at a fork, or if a process ends that the test has not
        killed."""
        started = time.monotonic()
        while not condition():
            self._check_processes()
            self._check_watch()
            if time.monotonic() - started > DEADLINE_S:
                raise AssertionError(f"waited for {DEADLINE_S:g} s: {what}\n{self._describe()}")
            await asyncio.sleep(POLL_S)
        return time.monotonic() - started

    async def until_caught_up(self, nodes: Iterable[Node], height: int) -> float:
        """Seconds until these miners have told headers of this height or later."""
        nodes = tuple(nodes)
        names = ", ".join(node.name for node in nodes)
        heights = self.watch.heights
        return await self.until(
            lambda: all(heights[node.address] >= height for node in nodes), f"{names} to reach height {height}"
        )

    async def until_height(self, height: int) -> float:
        """Seconds until some miner has told a header of this height."""
        return await self.until(lambda: self.watch.height >= height, f"height {height}")

    async def until_round(self, number: int) -> float:
        """Seconds until this round is settled."""
        return await self.until(lambda: self.watch.round >= number, f"the end of round {number}")

    def _check_processes(self) -> None:
        for name, child in self._processes.children.items():
            if name not in self.down and not child.is_running:
                status = child.process.returncode
                raise AssertionError(f"{name} ended with status {status}\n{child.read_log_tail()}")

    def _check_watch(self) -> None:
        assert not self.watch.faults, f"{self.watch.faults[:3]}\n{self._describe()}"

    def _describe(self) -> str:
        names: dict[Address, str] = {node.address: node.name for node in self.network.miners}
        told = {names[address]: height for address, height in self.watch.heights.items()}
        lines = [f"headers told: {told}", f"on disk: {self.get_ledger_heights()}", f"round {self.watch.round}"]
        return "\n".join([*lines, *(child.read_log_tail() for child in self._processes.children.values())])

    def check_ends(self) -> Ends:
        """Check that nothing is lost, no fork, one model per round, no contradictions. Only after `stop`."""
        self._check_watch()
        audits = [audit_file(miner.database, self.network.genesis) for miner in self.network.miners]
        common = compare(audits)
        blocks = [_read_blocks(miner) for miner in self.network.miners]
        furthest = max(blocks, key=len)
        for miner, own in zip(self.network.miners, blocks, strict=True):
            assert own == furthest[: len(own)], f"{miner.name} holds other blocks"
            assert len(own) >= self.watch.heights[miner.address], f"{miner.name} has lost a block that it had told"
        for height, hashes in self.watch.headers.items():
            assert height <= len(furthest), f"height {height} was final and is nowhere"
            assert hashes == {furthest[height - 1][0]}, f"another block of height {height} was final once"
        self._check_words()
        self._check_models(furthest)
        for node in self.network.nodes:
            said = [
                line for line in node.log.read_text(errors="replace").splitlines() if any(t in line for t in TROUBLE)
            ]
            assert not said, f"{node.name}: {said[:3]}"
        return _summarise(audits, common)

    def _check_words(self) -> None:
        for miner in self.network.miners:
            self.note_own_words(miner)
        contradictions = self.watch.words.find_contradictions()
        assert not contradictions, f"signed twice: {contradictions[:3]}"

    def _check_models(self, blocks: list[tuple[bytes, bytes, bytes]]) -> None:
        """Every device has computed, for each round it has followed, the model that the chain says."""
        headers = [decode_struct(header, Header, HEADER_BYTES_MAX) for _, header, _ in blocks]
        settled = {header.round: header.model_hash for header in headers if header.next_round > header.round}
        for agent in self.network.agents:
            rounds = query(agent.database, "SELECT round, model_hash FROM rounds")
            assert rounds, f"{agent.name} has followed no round"
            assert all(settled[number] == model_hash for number, model_hash in rounds), f"{agent.name}: another model"


def _read_blocks(miner: Node) -> list[tuple[bytes, bytes, bytes]]:
    with open_ledger_file(miner.database) as ledger:
        return [(bytes(row.hash), bytes(row.header), bytes(row.body)) for row in ledger.iterate_blocks()]


def _summarise(audits: list[Audit], common: int) -> Ends:
    furthest = max(audits, key=lambda audit: audit.state.height)
    signatures = sum(audit.counts.certificate_signatures for audit in audits)
    return Ends(common, furthest.state.height, furthest.counts.rounds, signatures)


@contextlib.asynccontextmanager
async def started_network(network: RealNetwork) -> AsyncIterator[RealNetwork]:
    """Run all processes, agents first as in the demo, and end them in any case."""
    try:
        await network.until(lambda: network.watch.is_ready, "the onlooker's subscriptions")
        await network.start((*network.network.agents, *network.network.miners))
        yield network
    finally:
        network.stop()
        await network.watch.stop()
