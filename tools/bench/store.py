"""`flchain bench store`: the bytes that a device's database writes to its card per round, and those that must be
durable."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agent.core.values import DropOutbox, Report, SaveOutbox, SavePosition, SaveWork, Work
from agent.edge.store.disk_writes import read_disk_bytes
from agent.edge.store.packing import pack
from agent.edge.store.store import STORE_FILE, Change, RoundLine, Store
from flchain.base.fixedpoint import VALUE_BYTES, add, to_fixed
from flchain.base.frozen import replace
from flchain.base.types import Hash, ModelVector, Round
from flchain.codecs import CODECS, DOWNSTREAM_RULES
from flchain.light.follow import LightState, build_light_state
from flchain.light.trust import CertifiedHeader
from flchain.wire.envelope import hash_message, seal
from flchain.wire.fields import SALT_BYTES
from flchain.wire.messages import Commit, Reveal, compute_update_commitment
from tools.bench.host import describe_machine, read_commit
from tools.bench.output import write_output
from tools.sim.chain import BuiltChain, build_chain

NAME = "store"
RESULT_FILE = "store.json"
ROUNDS_A_DAY = 24 * 60
HEADER_BYTES, CERTIFICATE_BYTES, SETS_BYTES = 266, 343, 600
"""For a chain with 7 validators (docs/benchmarks.md)."""
METHOD = (
    "The device's own store on disk, written as the agent writes it: work and commitment, receipts, update, settled "
    "model and a line of history, five events per round. Updates are random (normal), the codec is sparse-ternary with "
    "error feedback in both directions, and the model moves by the mean of all devices' compressed updates. Written: "
    "this process's write_bytes in /proc/self/io, including closing the database at the end, which copies its log. "
    "Must be durable: update, commitment, header, certificate, and, packed, the device's residual, what the chain "
    "carries over (full devices only) and the step of the model."
)
DEVICES = 8
CODEC = "sparse-ternary"


@dataclass(frozen=True)
class Plan:
    """One model, and how many rounds are measured with it."""

    name: str
    parameters: int
    codec_level: int
    rounds: int


FULL = (Plan("1-D CNN", 12_519, 20, 1_000), Plan("1 M parameters", 1_000_000, 100, 40))
QUICK = (Plan("1-D CNN", 12_519, 20, 200), Plan("1 M parameters", 1_000_000, 100, 8))


class Rounds:
    """Builds what one device writes in each round, with the sizes and the entropy of real rounds."""

    def __init__(self, plan: Plan, seed: int = 1) -> None:
        self._plan = plan
        self._rng = np.random.default_rng(seed)
        self.chain: BuiltChain = build_chain(codec=CODEC, codec_level=plan.codec_level)
        self._light: LightState = build_light_state(self.chain.genesis, self.chain.model)
        self._model = to_fixed(self._rng.normal(0, 0.05, plan.parameters).astype(np.float32))
        self._residual: ModelVector = np.zeros(plan.parameters, np.int32)
        self._carried = DOWNSTREAM_RULES[CODEC].start(plan.parameters, plan.codec_level)
        self.durable_bytes = 0
        """The bytes that must be on disk for all rounds so far."""

    def build_round(self, number: int) -> list[list[Change]]:
        """Return the changes of a round's five events."""
        codec, level = CODECS[CODEC], self._plan.codec_level
        me, chain = self.chain.devices[0], self.chain.id
        mine = codec.encode(self._draw(), self._residual, level)
        total = np.zeros(self._plan.parameters, np.int64)
        for payload in [mine.payload, *(self._draw_payload() for _ in range(DEVICES - 1))]:
            total += codec.decode(payload, self._plan.parameters, level)
        mean = (total // DEVICES).astype(np.int32)
        compressed = DOWNSTREAM_RULES[CODEC].compress(mean, self._carried, self._plan.parameters, level)
        reveal = Reveal(number, bytes(SALT_BYTES), 100, mine.payload)
        reveal_raw = seal(reveal, chain, me)
        commitment = compute_update_commitment(chain, me.address, reveal)
        commit_raw = seal(Commit(number, commitment, False), chain, me)
        self._model = add(self._model, compressed.delta)
        self._residual, self._carried = mine.residual, compressed.carried
        work = Work(Round(number), commit_raw, reveal_raw, mine.residual, 100, 1_000)
        head = CertifiedHeader(*(self._rng.bytes(size) for size in (HEADER_BYTES, CERTIFICATE_BYTES, SETS_BYTES)))
        self.durable_bytes += len(commit_raw) + len(reveal_raw) + HEADER_BYTES + CERTIFICATE_BYTES + SETS_BYTES
        self.durable_bytes += sum(len(pack(part)) for part in (mine.residual, compressed.delta, *compressed.carried))
        report = Report(Round(number), Hash(self._rng.bytes(32)), False, True, work)
        return [
            [SaveWork(work), SaveOutbox(hash_message(commit_raw), work.round, commit_raw)],
            [DropOutbox(hash_message(commit_raw), "ok")],
            [SaveOutbox(hash_message(reveal_raw), work.round, reveal_raw)],
            [DropOutbox(hash_message(reveal_raw), "ok")],
            [
                SavePosition(replace(self._light, model=self._model, carried=self._carried), head, mine.residual),
                RoundLine(report, 1_000 * number, 2_000 * number),
            ],
        ]

    def _draw(self) -> ModelVector:
        return to_fixed(self._rng.normal(0, 1e-3, self._plan.parameters).astype(np.float32))

    def _draw_payload(self) -> bytes:
        nothing = np.zeros(self._plan.parameters, np.int32)
        return CODECS[CODEC].encode(self._draw(), nothing, self._plan.codec_level).payload


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure one model; `written_bytes_per_round` is None where the file system does not count writes."""
    rounds = Rounds(plan)
    latencies_ms: list[float] = []

    async def run() -> None:
        store = await Store.open(folder / STORE_FILE, rounds.chain.id)
        for number in range(1, plan.rounds + 1):
            for changes in rounds.build_round(number):
                started_at = time.perf_counter()
                await store.save(*changes)
                latencies_ms.append(1_000 * (time.perf_counter() - started_at))
        await store.close()

    before = read_disk_bytes()
    asyncio.run(run())
    after = read_disk_bytes()
    written = (after - before) / plan.rounds if before is not None and after is not None and after > before else None
    durable = rounds.durable_bytes / plan.rounds
    return {
        "model": plan.name,
        "parameters": plan.parameters,
        "codec_level": plan.codec_level,
        "rounds": plan.rounds,
        "devices": DEVICES,
        "raw_model_bytes": plan.parameters * VALUE_BYTES,
        "durable_bytes_per_round": durable,
        "written_bytes_per_round": written,
        "written_to_durable": None if written is None else written / durable,
        "written_bytes_per_day": None if written is None else written * ROUNDS_A_DAY,
        "database_bytes": (folder / STORE_FILE).stat().st_size,
        "save_ms": {
            "p50": float(np.percentile(latencies_ms, 50)),
            "p99": float(np.percentile(latencies_ms, 99)),
            "max": max(latencies_ms),
        },
    }


def run_bench(plans: Sequence[Plan], tell: Callable[[dict[str, Any]], None], folder: Path | None) -> dict[str, Any]:
    """Measure each plan in turn on the disk that holds `folder`, and `tell` each result."""
    machine, models = describe_machine(), []
    for plan in plans:
        with tempfile.TemporaryDirectory(prefix="flchain-bench-", dir=folder) as made:
            models.append(measure(plan, Path(made)))
        tell(models[-1])
    machine["load_1min_after"] = describe_machine()["load_1min"]
    return {"benchmark": NAME, "method": METHOD, "machine": machine, "commit": read_commit(), "models": models}


def run(arguments: Any, console: Console, plans: Sequence[Plan] | None = None) -> int:
    """Measure, print the table, write the file; the databases are made in --out if it is given."""
    console.print(METHOD, style="dim")
    chosen = plans or (QUICK if arguments.quick else FULL)
    told = run_bench(chosen, lambda model: console.print(f"{model['model']}: {model['rounds']} rounds"), arguments.out)
    results = {"is_quick": arguments.quick, **told}
    _print_table(console, results)
    return write_output(arguments, results, RESULT_FILE)


def _print_table(console: Console, results: dict[str, Any]) -> None:
    table = Table("model", title="flchain bench store", title_justify="left")
    for model in results["models"]:
        table.add_column(model["model"], justify="right")

    def add_row(name: str, show: Callable[[dict[str, Any]], str]) -> None:
        table.add_row(name, *(show(model) for model in results["models"]))

    add_row("parameters", lambda model: f"{model['parameters']:,}")
    add_row("rounds", lambda model: f"{model['rounds']:,}")
    add_row("must be durable, kB per round", lambda model: _show(model["durable_bytes_per_round"], 1e3))
    add_row("written, kB per round", lambda model: _show(model["written_bytes_per_round"], 1e3))
    add_row("written : must be durable", lambda model: _show(model["written_to_durable"], 1))
    add_row("written, MB per day at one round per minute", lambda model: _show(model["written_bytes_per_day"], 1e6))
    add_row("database at the end, kB", lambda model: _show(model["database_bytes"], 1e3))
    add_row("one write p50, ms", lambda model: f"{model['save_ms']['p50']:.1f}")
    add_row("one write p99, ms", lambda model: f"{model['save_ms']['p99']:.1f}")
    console.print(table)
    machine = results["machine"]
    console.print(f"{machine['cpu']}, {machine['cores']} cores, commit {results['commit']}", markup=False)


def _show(value: float | None, unit: float) -> str:
    return "not measured" if value is None else f"{value / unit:,.1f}"
