"""BFT with each proposer rule, and proof of work, on the same rounds, seeds and links."""

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
from tools.bench.host import describe_machine, read_commit
from tools.sim.pow.network import RoundNetwork
from tools.sim.pow.values import LINKS, Setting

PROPOSER_RULES = ("pok", "pos", "poq")
FINAL_DEPTH = 6
HASHES_PER_S = 5_000_000
"""Assumed for a miner of average power: SHA-256 on one core of an edge server."""
WATTS = 15.0
"""Assumed power of one busy core of an edge server."""
JOULES_PER_HASH = WATTS / HASHES_PER_S
"""Assumed, from the two above. Hashing hardware needs a hundred thousand times less per hash, but then computes that
many more: a network's consumption is its hashrate times this."""
SIGNING_SPAN_S = 0.2
METHOD = (
    "Virtual time: one process, the miners' own machines, real keys and signatures, simulated links (20 to 120 ms one "
    "way, 2% up to 600 ms, 2% of QoS 0 lost; the length of a message does not matter) and as many devices as miners, "
    "which train for 100 to 300 ms. Powers are 5, 10 and 15 in turn; under pow the hashrate is in proportion to them, "
    "and the wait for a seal is random, not a search. Final means a certificate under bft, and a number of blocks on "
    "top under pow. Messages and bytes are those between miners, counted once per listener."
)


class BenchFault(FlchainError):
    """A network did not finish its rounds, or BFT made two blocks of one height final."""


@dataclass(frozen=True)
class Plan:
    """One size: every rule runs the same rounds once per seed, proof of work with each of the intervals."""

    validators: int
    rounds: int
    seeds: tuple[int, ...]
    intervals_ms: tuple[int, ...] = (250, 1_000, 4_000)


@dataclass(frozen=True)
class Energy:
    """Seconds are CPU seconds measured on this machine; watts and joules per hash are the user's assumptions."""

    watts: float
    joules_per_hash: float
    sign_s: float
    check_s: float


FULL = (Plan(4, 8, (1, 2, 3)), Plan(7, 8, (1, 2, 3)), Plan(13, 8, (1, 2)), Plan(21, 8, (1,)))
QUICK = (Plan(4, 3, (1, 2), (250, 1_000)), Plan(7, 3, (1,), (250, 1_000)))


def list_settings(plan: Plan) -> tuple[tuple[Setting, ...], ...]:
    """Return one tuple for each rule, with one setting for each seed."""
    rules = [Setting(0, "bft", plan.validators, plan.rounds, rule) for rule in PROPOSER_RULES]
    rules += [
        Setting(0, "pow", plan.validators, plan.rounds, "pok", interval_ms, FINAL_DEPTH, HASHES_PER_S)
        for interval_ms in plan.intervals_ms
    ]
    return tuple(tuple(replace(setting, seed=seed) for seed in plan.seeds) for setting in rules)


def run_bench(
    plans: Sequence[Plan], joules_per_hash: float, watts: float, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run all rules in turn, and `tell` the result of each. Raises BenchFault."""
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
    """Return the CPU seconds of one signature and of one check, each measured over `span_s`."""
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
    """Return one rule's figures over its seeds; all except the joules of signatures are the same on every machine."""
    networks = []
    for setting in settings:
        network = RoundNetwork(setting).run()
        refuse_faulty(network)
        networks.append(network)
    return describe(networks, energy)


def refuse_faulty(network: RoundNetwork) -> None:
    """Raise BenchFault if there are no valid figures. Under pow a final block may be undone: that is a figure, not a
    fault."""
    record = network.record
    if record.is_stalled or (network.setting.consensus == "bft" and record.violations):
        raise BenchFault(f"{network.setting}: {'; '.join(record.violations)}")


def describe(networks: Sequence[RoundNetwork], energy: Energy) -> dict[str, Any]:
    """Return the figures of networks that differ only in their seed."""
    setting, is_pow = networks[0].setting, networks[0].setting.consensus == "pow"
    rounds = setting.rounds * len(networks)
    virtual_ms = sum(network.now for network in networks)
    proposed, powers = _count_proposers(networks)
    return {
        "validators": setting.validators,
        "consensus": setting.consensus,
        "proposer_rule": None if is_pow else setting.proposer_rule,
        "interval_ms": setting.interval_ms if is_pow else None,
        "final_depth": setting.final_depth if is_pow else 0,
        "seeds": [network.setting.seed for network in networks],
        "rounds": rounds,
        "virtual_ms": virtual_ms,
        "round_ms": virtual_ms / rounds,
        **_describe_blocks(networks, is_pow),
        "finality_ms": _describe_times(list_finality_ms(networks)),
        "transaction_ms": _describe_times(ms for n in networks for all_ms in n.record.spoken.values() for ms in all_ms),
        "proposed": proposed,
        "powers": powers,
        "gini": compute_gini(proposed, powers),
        **_describe_work(networks, energy),
    }


def _describe_blocks(networks: Sequence[RoundNetwork], is_pow: bool) -> dict[str, Any]:
    heights = sum(network.get_height() for network in networks)
    published, forked = (sum(values) for values in zip(*map(count_blocks, networks), strict=True))
    return {
        "heights": heights,
        "forks_per_100_heights": 100 * forked / heights if is_pow else 0.0,
        "stale_share": (published - heights) / published if is_pow else 0.0,
        "undecided_share": 0.0 if is_pow else (published - heights) / published,
        "reorg_depth_max": max(network.record.reorg_depth_max for network in networks),
        "violations": sum(len(network.record.violations) for network in networks),
    }


def _describe_work(networks: Sequence[RoundNetwork], energy: Energy) -> dict[str, Any]:
    """Messages, signatures, hashes, and the energy of the latter two."""
    setting, counts = networks[0].setting, Counter[str]()
    for network in networks:
        counts.update(network.record.counts)
    heights, rounds = sum(network.get_height() for network in networks), setting.rounds * len(networks)
    # Under pow every miner searches all the time.
    searched_s = sum(network.now for network in networks) / 1_000 if setting.consensus == "pow" else 0.0
    hashes = searched_s * setting.hashes_per_s * setting.validators
    signing_j = energy.watts * (energy.sign_s * counts["signatures"] + energy.check_s * counts["checks"])
    return {
        "messages_per_height": counts["messages"] / heights,
        "bytes_per_height": counts["bytes"] / heights,
        "messages_per_round": counts["messages"] / rounds,
        "bytes_per_round": counts["bytes"] / rounds,
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
    """Return the number of blocks published (sealed, or proposed under bft), and of heights with more than one, up to
    the height that is final everywhere."""
    published = Counter(header.height for _, header in network.record.created.values())
    heights = range(1, network.get_height() + 1)
    return sum(published[height] for height in heights), sum(published[height] > 1 for height in heights)


def list_finality_ms(networks: Iterable[RoundNetwork]) -> Iterable[int]:
    """Yield for each final block and miner the time from the block's creation until it was final there."""
    for network in networks:
        for (block_hash, _), final_ms in network.record.final_ms.items():
            yield final_ms - network.record.created[block_hash][0]


def _describe_times(times_ms: Iterable[int]) -> dict[str, float]:
    listed = list(times_ms)
    p50, p99 = np.percentile(listed, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "samples": len(listed)}


def _count_proposers(networks: Sequence[RoundNetwork]) -> tuple[list[int], list[int]]:
    """Return final blocks by miner, and the miners' powers; by place, since every seed has its own keys."""
    proposed = [0] * networks[0].setting.validators
    for network in networks:
        places = {node.identity.address: node.number for node in network.nodes}
        for block in network.nodes[0].finals[: network.get_height()]:
            proposed[places[Address(block.header.proposer)]] += 1
    return proposed, [node.power for node in networks[0].nodes]


def compute_gini(counts: Sequence[int], powers: Sequence[int]) -> float:
    """Return the Gini coefficient of blocks per unit of power: 0 if each miner has its share, near 1 if one has all."""
    shares = [(count / power, power) for count, power in zip(counts, powers, strict=True)]
    total_power, total = sum(powers), sum(counts)
    if not total:
        return 0.0
    apart = sum(p * q * abs(x - y) for x, p in shares for y, q in shares)
    return apart / (2 * total_power * total)
