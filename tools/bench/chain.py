"""`flchain bench chain`: what agreement costs at 4, 7, 13 and 21 validators, beside what its signatures alone cost."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flchain.base.crypto import Identity, verify
from flchain.base.types import EARLIEST
from flchain.light.follow import build_light_state, process_head
from flchain.light.trust import CertifiedHeader
from flchain.wire.envelope import BODY_BYTES_MAX, CERTIFICATE_BYTES_MAX, decode_struct
from flchain.wire.messages import Body, Certificate
from miner.edge.ledger.ledger import StoredBlock
from tools.bench.host import describe_machine, read_commit
from tools.bench.network import BenchChain, Clock, Measured, Plan, run_network

SIGNED_BYTES = 200
"""Length of what is signed when the floor is measured; a vote is 150 bytes, a commitment 180."""
DEVICES = 32
FULL = (
    Plan(4, DEVICES, 6, 300),
    Plan(7, DEVICES, 5, 300),
    Plan(13, DEVICES, 3, 600),
    Plan(21, DEVICES, 2, 600),
)
QUICK = (Plan(4, DEVICES, 2, 60), Plan(7, DEVICES, 1, 60))
SPAN_S, QUICK_SPAN_S = 0.5, 0.2
METHOD = (
    "All validators are asyncio tasks of one process (so one core): the miner's own machine, runner, MQTT link and "
    "SQLite ledger on disk, over a real broker on loopback. Devices only sign and send; scores are constant. One round "
    "goes before what is measured. Latency: from the first word at a height (its proposal) until the block is on a "
    "validator's disk, over all blocks and validators. Floor: the final blocks' transactions and certificates, each "
    "signature checked once by every validator and nothing else done; in seconds and in CPU seconds."
)


def run_bench(plans: tuple[Plan, ...], span_s: float, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure each plan in turn, `tell` of each when it is there. Raises BenchError and BrokerError."""
    machine, sizes = describe_machine(), []
    for plan in plans:
        with tempfile.TemporaryDirectory(prefix="flchain-bench-") as folder:
            sizes.append(measure(plan, Path(folder), span_s))
        tell(sizes[-1])
    machine["load_1min_after"] = describe_machine()["load_1min"]
    return {"benchmark": "chain", "method": METHOD, "machine": machine, "commit": read_commit(), "sizes": sizes}


def measure(plan: Plan, folder: Path, span_s: float) -> dict[str, Any]:
    """One size, as a JSON object. The floor is measured right before and right after, under the same load."""
    before = _measure_rates(_build_checks(), span_s)
    measured = asyncio.run(run_network(plan, folder))
    between = _measure_rates(_build_checks(), span_s)
    checks = Rates((before.per_s + between.per_s) / 2, (before.per_cpu_s + between.per_cpu_s) / 2)
    return {
        "validators": plan.validators,
        "devices": plan.devices,
        **_describe_agreement(plan.validators, measured, checks),
        **_describe_light_client(measured, between.per_s, span_s),
    }


def _describe_agreement(validators: int, measured: Measured, checks: Rates) -> dict[str, Any]:
    signed = [_count_signatures(block) for block in measured.blocks]
    transactions = sum(of_transactions for of_transactions, _ in signed)
    needed = validators * (transactions + sum(of_certificate for _, of_certificate in signed))
    floor_s, floor_cpu_s = needed / checks.per_s, needed / checks.per_cpu_s
    latencies_ms = tuple(get_latencies_ms(measured.clock, (block.height for block in measured.blocks)))
    return {
        "blocks": len(measured.blocks),
        "transactions": transactions,
        "seconds": measured.seconds,
        "cpu_seconds": measured.cpu_seconds,
        "transactions_per_s": transactions / measured.seconds,
        "blocks_per_s": len(measured.blocks) / measured.seconds,
        "latency_ms": {
            "p50": float(np.percentile(latencies_ms, 50)),
            "p99": float(np.percentile(latencies_ms, 99)),
            "samples": len(latencies_ms),
        },
        "messages_heard_per_block": measured.messages_heard / validators / len(measured.history),
        "signature_checks_per_s": checks.per_s,
        "signature_checks_per_cpu_s": checks.per_cpu_s,
        "floor_seconds": floor_s,
        "floor_cpu_seconds": floor_cpu_s,
        "seconds_to_floor": measured.seconds / floor_s,
        "cpu_to_floor": measured.cpu_seconds / floor_cpu_s,
    }


def _describe_light_client(measured: Measured, checks_before_per_s: float, span_s: float) -> dict[str, Any]:
    headers_per_s = measure_headers(measured, span_s)
    checks_per_s = (checks_before_per_s + _measure_rates(_build_checks(), span_s).per_s) / 2
    per_certificate = float(np.mean([_count_signatures(block)[1] for block in measured.history]))
    header_bytes = float(np.mean([len(block.header) for block in measured.blocks]))
    certificate_bytes = float(np.mean([len(block.certificate) for block in measured.blocks]))
    return {
        "light_headers_per_s": headers_per_s,
        "light_floor_headers_per_s": checks_per_s / per_certificate,
        "light_to_floor": checks_per_s / per_certificate / headers_per_s,
        "header_bytes": header_bytes,
        "certificate_bytes": certificate_bytes,
        "header_and_certificate_bytes": header_bytes + certificate_bytes,
    }


def _count_signatures(block: StoredBlock) -> tuple[int, int]:
    """Signatures in the block's transactions, and in its certificate."""
    body = decode_struct(block.body, Body, BODY_BYTES_MAX)
    certificate = decode_struct(block.certificate, Certificate, CERTIFICATE_BYTES_MAX)
    return len(body.transactions), len(certificate.signatures)


def get_latencies_ms(clock: Clock, heights: Iterable[int]) -> Iterator[float]:
    """For each height and validator: from the height's first word to that validator's disk, in milliseconds."""
    for height in heights:
        for durable in clock.durable[height].values():
            yield 1_000 * (durable - clock.begun[height])


class Rates(NamedTuple):
    """How often something was done, by the wall clock and by this thread's CPU time: others may want the core, too."""

    per_s: float
    per_cpu_s: float


def _build_checks() -> Callable[[], int]:
    """Signature checks and nothing else: 21 keys in turn, as validators are."""
    keys = [Identity.from_seed(bytes((number,)) * 32) for number in range(21)]
    message = bytes(SIGNED_BYTES)
    signed = [(key.public_key, message, key.sign(message)) for key in keys]

    def check_all() -> int:
        assert all(verify(*one) for one in signed)
        return len(signed)

    return check_all


def measure_headers(measured: Measured, span_s: float) -> float:
    """Headers a second that a device follows, certificate included: the whole chain from genesis, again and again."""
    chain: BenchChain = measured.chain
    genesis = build_light_state(chain.genesis, chain.model)

    def follow_all() -> int:
        light = genesis
        for block in measured.history:
            light = process_head(light, CertifiedHeader(block.header, block.certificate), EARLIEST)
        return len(measured.history)

    return _measure_rates(follow_all, span_s).per_s


def _measure_rates(work: Callable[[], int], span_s: float) -> Rates:
    work()  # caches are filled, as they are in a node that runs
    done, started_at, cpu_started_at = 0, time.perf_counter(), time.thread_time()
    while (elapsed_s := time.perf_counter() - started_at) < span_s or not done:
        done += work()
    return Rates(done / elapsed_s, done / (time.thread_time() - cpu_started_at))
