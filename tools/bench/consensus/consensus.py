"""`flchain bench consensus`: BFT with each proposer rule, and proof of work, on the same rounds, seeds and links."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flchain.base.crypto import Identity, verify
from flchain.base.errors import FlchainError
from flchain.base.frozen import replace
from flchain.base.types import Address
from tools.bench.chain import SIGNED_BYTES
from tools.bench.machine import describe_machine, read_commit
from tools.sim.pow.network import RoundNetwork
from tools.sim.pow.values import LINKS, Setting

PROPOSER_RULES = ("pok", "pos", "poq")
FINAL_DEPTH = 6
HASHES_PER_S = 5_000_000
"""Assumed of a miner of average power: SHA-256 on one core of an edge server."""
WATTS = 15.0
"""Assumed: what one busy core of an edge server draws."""
JOULES_PER_HASH = WATTS / HASHES_PER_S
"""Assumed, from the two above. A machine made for hashing takes a hundred thousand times less a hash, and then makes as
many more: what a network spends follows its hashrate times this."""
SIGNING_SPAN_S = 0.2
METHOD = (
    "Virtual time: one process, miners' own machines, real keys and signatures, simulated links (20 to 120 ms one way, "
    "2% up to 600 ms, 2% of QoS 0 lost; the length of a message plays no part) and as many devices as miners, which "
    "train 100 to 300 ms. Powers are 5, 10 and 15 in turn; under pow hashrate is in their proportion, and the wait for "
    "a seal is drawn, not searched. Final: a certificate under bft, so many blocks on top under pow. Messages and "
    "bytes are those that miners send to miners, one for each listener."
)


class BenchFault(FlchainError):
    """A network did not get through its rounds, or BFT made two blocks final at one height."""


@dataclass(frozen=True)
class Plan:
    """One size: every rule runs the same rounds once a seed, proof of work at each of the intervals."""

    validators: int
    rounds: int
    seeds: tuple[int, ...]
    intervals_ms: tuple[int, ...] = (250, 1_000, 4_000)


@dataclass(frozen=True)
class Energy:
    """Seconds are CPU seconds measured on this machine; watts and joules a hash are assumptions of the user."""

    watts: float
    joules_per_hash: float
    sign_s: float
    check_s: float


FULL = (Plan(4, 8, (1, 2, 3)), Plan(7, 8, (1, 2, 3)), Plan(13, 8, (1, 2)), Plan(21, 8, (1,)))
QUICK = (Plan(4, 3, (1, 2), (250, 1_000)), Plan(7, 3, (1,), (250, 1_000)))


def list_settings(plan: Plan) -> tuple[tuple[Setting, ...], ...]:
    """One tuple a rule, in it one setting a seed."""
    rules = [Setting(0, "bft", plan.validators, plan.rounds, rule) for rule in PROPOSER_RULES]
    rules += [
        Setting(0, "pow", plan.validators, plan.rounds, "pok", interval_ms, FINAL_DEPTH, HASHES_PER_S)
        for interval_ms in plan.intervals_ms
    ]
    return tuple(tuple(replace(setting, seed=seed) for seed in plan.seeds) for setting in rules)


def run_bench(
    plans: Sequence[Plan], joules_per_hash: float, watts: float, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run everything in turn, `tell` of each rule when it is done. Raises BenchFault."""
    energy = Energy(watts, joules_per_hash, *measure_signatures(SIGNING_SPAN_S))
    results = []
    for plan in plans:
        for settings in list_settings(plan):
            results.append(measure(settings, energy))
            tell(results[-1])
    return {
        "benchmark": "consensus",
        "method": METHOD,
        "machine": describe_machine(),
        "commit": read_commit(),
        "links": {"delay_ms": LINKS.delay_ms, "slow_share": LINKS.slow_share, "lost_share": LINKS.lost_share},
        "assumed": {"watts": watts, "joules_per_hash": joules_per_hash, "hashes_per_s_and_miner": HASHES_PER_S},
        "measured": {"cpu_s_per_signature": energy.sign_s, "cpu_s_per_check": energy.check_s},
        "results": results,
    }


def measure_signatures(span_s: float) -> tuple[float, float]:
    """CPU seconds for one signature and for one check of it, each over `span_s`."""
    identity, message = Identity.from_seed(bytes(32)), bytes(SIGNED_BYTES)
    signature = identity.sign(message)

    def measure_one(do: Callable[[], object]) -> float:
        do()
        count, started_s = 0, time.process_time()
        while (spent_s := time.process_time() - started_s) < span_s:
            do()
            count += 1
        return spent_s / count

    return measure_one(lambda: identity.sign(message)), measure_one(
        lambda: verify(identity.public_key, message, signature)
    )


def measure(settings: tuple[Setting, ...], energy: Energy) -> dict[str, Any]:
    """One rule over its seeds, as a JSON object. All but the joules of signatures is the same on every machine."""
    networks = []
    for setting in settings:
        network = RoundNetwork(setting).run()
        refuse_faulty(network)
        networks.append(network)
    return describe(networks, energy)


def refuse_faulty(network: RoundNetwork) -> None:
    """Raise BenchFault if there can be no figures. What is final under pow is only likely to stay: how often it did
    not is a figure and no fault."""
    record = network.record
    if record.is_stalled or (network.setting.consensus == "bft" and record.violations):
        raise BenchFault(f"{network.setting}: {'; '.join(record.violations)}")


def describe(networks: Sequence[RoundNetwork], energy: Energy) -> dict[str, Any]:
    """The figures of networks that differ in their seed only."""
    setting, is_pow = networks[0].setting, networks[0].setting.consensus == "pow"
    heights = sum(network.get_height() for network in networks)
    rounds = sum(setting.rounds for _ in networks)
    virtual_ms = sum(network.now for network in networks)
    counts = sum((network.record.counts for network in networks), Counter[str]())
    told, forked = (sum(values) for values in zip(*map(count_blocks, networks), strict=True))
    proposed, powers = _count_proposers(networks)
    # They search without a pause, and each for all of the time.
    hashes = virtual_ms / 1_000 * setting.hashes_per_s * setting.validators if is_pow else 0.0
    signing_j = energy.watts * (energy.sign_s * counts["signatures"] + energy.check_s * counts["checks"])
    return {
        "validators": setting.validators,
        "consensus": setting.consensus,
        "proposer_rule": None if is_pow else setting.proposer_rule,
        "interval_ms": setting.interval_ms if is_pow else None,
        "final_depth": setting.final_depth if is_pow else 0,
        "seeds": [network.setting.seed for network in networks],
        "rounds": rounds,
        "heights": heights,
        "virtual_ms": virtual_ms,
        "forks_per_100_heights": 100 * forked / heights if is_pow else 0.0,
        "stale_share": (told - heights) / told if is_pow else 0.0,
        "undecided_share": 0.0 if is_pow else (told - heights) / told,
        "reorg_depth_max": max(network.record.reorg_depth_max for network in networks),
        "violations": sum(len(network.record.violations) for network in networks),
        "finality_ms": _describe_times(list_finality_ms(networks)),
        "transaction_ms": _describe_times(ms for n in networks for all_ms in n.record.spoken.values() for ms in all_ms),
        "round_ms": virtual_ms / rounds,
        "messages_per_height": counts["messages"] / heights,
        "bytes_per_height": counts["bytes"] / heights,
        "messages_per_round": counts["messages"] / rounds,
        "bytes_per_round": counts["bytes"] / rounds,
        "proposed": proposed,
        "powers": powers,
        "gini": compute_gini(proposed, powers),
        "hashes_per_round": hashes / rounds,
        "signatures_per_round": counts["signatures"] / rounds,
        "checks_per_round": counts["checks"] / rounds,
        "hashing_joules_per_round": hashes * energy.joules_per_hash / rounds,
        "signing_joules_per_round": signing_j / rounds,
    }


def name_rule(result: Mapping[str, Any]) -> str:
    """Return what a column or a line of the plot is called."""
    if result["consensus"] == "pow":
        return f"pow {result['interval_ms'] / 1_000:g} s"
    return f"{result['consensus']} {result['proposer_rule']}"


def count_blocks(network: RoundNetwork) -> tuple[int, int]:
    """Up to the height that is final everywhere: blocks told (sealed, or proposed under bft), and heights with more
    than one of them."""
    told = Counter(header.height for _, header in network.record.created.values())
    heights = range(1, network.get_height() + 1)
    return sum(told[height] for height in heights), sum(told[height] > 1 for height in heights)


def list_finality_ms(networks: Iterable[RoundNetwork]) -> Iterable[int]:
    """For each final block and miner: from the block's first word until it was final there."""
    for network in networks:
        for (block_hash, _), final_ms in network.record.final_ms.items():
            yield final_ms - network.record.created[block_hash][0]


def _describe_times(times_ms: Iterable[int]) -> dict[str, float]:
    listed = list(times_ms)
    p50, p99 = np.percentile(listed, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "samples": len(listed)}


def _count_proposers(networks: Sequence[RoundNetwork]) -> tuple[list[int], list[int]]:
    """Final blocks by miner, and the miners' powers; by place, since every seed has keys of its own."""
    proposed = [0] * networks[0].setting.validators
    for network in networks:
        places = {node.identity.address: node.number for node in network.nodes}
        for block in network.nodes[0].finals[: network.get_height()]:
            proposed[places[Address(block.header.proposer)]] += 1
    return proposed, [node.power for node in networks[0].nodes]


def compute_gini(counts: Sequence[int], powers: Sequence[int]) -> float:
    """Gini coefficient of blocks per unit of power, units weighing alike: 0 if each has its share, near 1 if one has
    all."""
    shares = [(count / power, power) for count, power in zip(counts, powers, strict=True)]
    total_power, total = sum(powers), sum(counts)
    if not total:
        return 0.0
    apart = sum(p * q * abs(x - y) for x, p in shares for y, q in shares)
    return apart / (2 * total_power * total)
