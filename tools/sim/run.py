"""One simulation: its options, the run, and its summary."""

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
"""The heights of a phase, chosen by the seed: mostly as on `edge` chains, sometimes as on `field` chains."""
NEW_HEIGHTS = 3
BOUND_MS = 120_000
"""Once faults have ended, every honest miner gets NEW_HEIGHTS more heights within this time."""


@dataclass(frozen=True)
class Options:
    """The options of one run, which decide everything in it."""

    seed: int
    validators: int = 4
    devices: int = 3
    byzantine: int = 0
    faults: frozenset[str] = frozenset(FAULTS)
    heights: int = 50
    kinds: tuple[str, ...] = KINDS
    """The kinds of liars to choose from."""
    mining: int = MINING
    """How many devices mine; if validators lie, half of these lie as well."""

    def format_command(self) -> str:
        """Return the command that repeats this run."""
        faults = ",".join(name for name in FAULTS if name in self.faults) or "none"
        command = f"flchain sim --seed {self.seed} --validators {self.validators} --devices {self.devices}"
        command += f" --byzantine {self.byzantine} --faults {'all' if len(self.faults) == len(FAULTS) else faults}"
        command += f" --heights {self.heights} --mining {self.mining}"
        return command if self.kinds == KINDS else f"{command} --kinds {','.join(self.kinds)}"


@dataclass(frozen=True)
class Summary:
    """The outcome of a run. `trace_hash` is the SHA-256 over every event in order."""

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
    """How often the validators changed."""
    refusals: dict[str, int]
    byzantine: dict[str, str]
    accused: list[str]
    trace_hash: str


def build_network(options: Options) -> Network:
    """Return the network of a run before its first event."""
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
    """Choose at random which validators and mining devices lie, and how."""
    miners = sorted(f"m{number}" for number in range(options.validators))
    for known, names, count in (
        (BEHAVIOURS, miners, options.byzantine),
        (DEVICE_BEHAVIOURS, mining, len(mining) // 2 if options.byzantine else 0),
    ):
        kinds = [kind for kind in options.kinds if kind in known]
        for name in network.rng.sample(names, count if kinds else 0):
            make_byzantine(network, name, known[network.rng.choice(kinds)])


def get_calm_ms(options: Options) -> int:
    """Return when the faults end: at about half of the heights, if nothing were slow."""
    return max(2_000, 150 * options.heights) if options.faults else 0


def run(options: Options) -> tuple[Network, Summary]:
    """Run until all honest miners have the heights asked for, and NEW_HEIGHTS more than when the faults ended."""
    network = build_network(options)
    try:
        _run_phases(network, options)
    except Exception as error:  # any exception of a machine is a finding
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
    """Return True if every honest device is up and has the model of this round or a later one."""
    devices = [node for node in network.nodes.values() if not node.is_miner and node.name not in network.gone]
    return all(node.is_up and node.state.light.model_round >= number for node in devices)


def has_heights(network: Network, heights: int) -> bool:
    """Return True if every honest miner is up and has this many blocks."""
    for node in network.nodes.values():  # called after every event, so it stops at the first miner that is behind
        is_awaited = node.is_miner and node.name not in network.gone
        if is_awaited and (not node.is_up or node.state.chain.height < heights):
            return False
    return True


def summarise(options: Options, network: Network) -> Summary:
    """Return the outcome of a run."""
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
