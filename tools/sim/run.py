"""One simulation: what is asked for, the run, and what came out."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tools.sim.attacks.byzantine import BEHAVIOURS, make_byzantine
from tools.sim.attacks.lying_devices import DEVICE_BEHAVIOURS
from tools.sim.chain import build_chain
from tools.sim.faults import FAULTS, build_links, schedule_all
from tools.sim.network import Network
from tools.sim.stake import build_stake_chain

KINDS = (*BEHAVIOURS, *DEVICE_BEHAVIOURS)
MINING = 2
REWARD_FOR_SCORES = 1_000
PHASE_HEIGHTS = (2, 2, 2, 3, 6)
"""How many heights a phase has, by the seed: as on `edge` chains mostly, as on `field` chains now and then."""
NEW_HEIGHTS = 3
BOUND_MS = 120_000
"""Once it is calm every honest miner has NEW_HEIGHTS more heights within this."""


@dataclass(frozen=True)
class Options:
    """One run is a function of these."""

    seed: int
    validators: int = 4
    devices: int = 3
    byzantine: int = 0
    faults: frozenset[str] = frozenset(FAULTS)
    heights: int = 50
    kinds: tuple[str, ...] = KINDS
    """What the Byzantine ones may be."""
    mining: int = MINING
    """So many devices mine, or all; if validators lie, half of these lie as well."""

    def format_command(self) -> str:
        """The command that repeats this run."""
        faults = ",".join(name for name in FAULTS if name in self.faults) or "none"
        command = f"flchain sim --seed {self.seed} --validators {self.validators} --devices {self.devices}"
        command += f" --byzantine {self.byzantine} --faults {'all' if len(self.faults) == len(FAULTS) else faults}"
        command += f" --heights {self.heights} --mining {self.mining}"
        return command if self.kinds == KINDS else f"{command} --kinds {','.join(self.kinds)}"


@dataclass(frozen=True)
class Summary:
    """What a run comes to. `trace_hash` is the SHA-256 over every event in order."""

    command: str
    violations: list[str]
    heights: int
    rounds: int
    views_max: int
    virtual_ms: int
    events: int
    messages: int
    lost: int
    crashes: int
    partitions: int
    elections: int
    """How often the validators of the next block were others."""
    refusals: dict[str, int]
    byzantine: dict[str, str]
    accused: list[str]
    trace_hash: str


def build_network(options: Options) -> Network:
    """The network of a run before its first event."""
    build = build_stake_chain if "stake" in options.faults else build_chain
    rules: dict[str, Any] = {"score_margin_bp": 2_000, "absent_rounds_max": 9, "reward_for_scores": REWARD_FOR_SCORES}
    heights = PHASE_HEIGHTS[options.seed % len(PHASE_HEIGHTS)]
    chain = build(options.validators, options.devices, phase_heights_max=heights, **rules)
    mining = sorted(f"d{number}" for number in range(min(options.mining, options.devices)))
    links = build_links(options.faults)
    network = Network(options.seed, 0, chain=chain, links=links, mining=frozenset(mining))
    _draw_liars(network, options, mining)
    schedule_all(network, options.faults, get_calm_ms(options))
    return network


def _draw_liars(network: Network, options: Options, mining: list[str]) -> None:
    """Validators of the kinds that are named, and mining devices of theirs."""
    miners = sorted(f"m{number}" for number in range(options.validators))
    for known, names, count in (
        (BEHAVIOURS, miners, options.byzantine),
        (DEVICE_BEHAVIOURS, mining, len(mining) // 2 if options.byzantine else 0),
    ):
        kinds = [kind for kind in options.kinds if kind in known]
        for name in network.rng.sample(names, count if kinds else 0):
            make_byzantine(network, name, known[network.rng.choice(kinds)])


def get_calm_ms(options: Options) -> int:
    """When the faults end: at about half of the heights, if nothing were slow."""
    return max(2_000, 150 * options.heights) if options.faults else 0


def run(options: Options) -> tuple[Network, Summary]:
    """Run until all honest miners have the heights, and NEW_HEIGHTS beyond what there was when faults stopped."""
    network = build_network(options)
    try:
        _run_phases(network, options)
    except Exception as error:  # whatever a machine dies of is what a seed is to find
        place = traceback.extract_tb(error.__traceback__)[-1]
        network.violations.append(f"a machine dies of {error!r} in {place.name}, line {place.lineno}")
    return network, summarise(options, network)


def _run_phases(network: Network, options: Options) -> None:
    calm_ms = get_calm_ms(options)
    network.run(lambda n: n.now >= calm_ms and has_heights(n, 0), end_ms=calm_ms + BOUND_MS)
    if not network.violations:
        wanted = max(options.heights, max(network.checker.final, default=0) + NEW_HEIGHTS)
        bound_ms = BOUND_MS + 2_000 * options.heights
        network.run(lambda n: has_heights(n, wanted), end_ms=network.now + bound_ms)
    settled = max((node.state.chain.round.number - 1 for node in network.miners()), default=0)
    if not network.violations:
        network.run(lambda n: has_models(n, settled), end_ms=network.now + BOUND_MS)


def has_models(network: Network, number: int) -> bool:
    """True if every honest device is up and has the model of this round, or of a later one."""
    devices = [node for node in network.nodes.values() if not node.is_miner and node.name not in network.gone]
    return all(node.is_up and node.state.light.model_round >= number for node in devices)


def has_heights(network: Network, heights: int) -> bool:
    """True if every honest miner is up and has so many."""
    for node in network.nodes.values():  # asked after every event: ends at the first that is behind
        is_awaited = node.is_miner and node.name not in network.gone
        if is_awaited and (not node.is_up or node.state.chain.height < heights):
            return False
    return True


def summarise(options: Options, network: Network) -> Summary:
    """What came out."""
    honest = [n for n in network.nodes.values() if n.is_miner and n.behaviour is None and n.state is not None]
    refusals: Counter[str] = Counter()
    for counts in network.refusals.values():
        refusals.update(counts)
    return Summary(
        command=options.format_command(),
        violations=list(network.violations),
        heights=max(network.checker.final, default=0),
        rounds=max((node.state.chain.round.number - 1 for node in honest), default=0),
        views_max=network.checker.views_max,
        virtual_ms=network.now,
        events=network.timeline.events,
        messages=network.counts["messages"],
        lost=network.counts["lost"] + network.counts["cut off"],
        crashes=network.counts["crashes"],
        partitions=network.counts["partitions"],
        elections=network.checker.elections,
        refusals=dict(sorted(refusals.items())),
        byzantine={n.name: n.behaviour.kind for n in network.nodes.values() if n.behaviour is not None},
        accused=sorted(address.hex() for address in network.checker.accused),
        trace_hash=network.trace.hash,
    )
