"""Fault schedules for a simulated network: random by its seed, and over when it is to be calm."""

from __future__ import annotations

from collections.abc import Callable

from flchain.base.frozen import replace
from tools.sim.network import Links, Network
from tools.sim.stake import schedule_orders


def schedule_outage(network: Network, name: str, start_ms: int, length_ms: int, effects: int | None) -> None:
    """Plan a crash with a restart: at an instant, or after `effects` more effects of the node."""
    if effects is None:
        network.at(start_ms, network.crash, name)
    else:
        network.at(start_ms, network.crash_between_effects, name, effects)
        network.at(start_ms + length_ms - 1, network.crash, name)  # at the latest now
    network.at(start_ms + length_ms, network.start, name)


def draw_effects(network: Network) -> int | None:
    """Return at random after how many effects a node crashes; None for a crash between steps."""
    return network.rng.randint(0, 12) if network.rng.random() < 0.6 else None


# --- faults by name ---------------------------------------------------------------------------------------------------


def schedule_crashes(network: Network, calm_ms: int) -> None:
    """Plan crashes and restarts of miners and devices, between any two effects, sometimes of several at once."""
    rng = network.rng
    for _ in range(rng.randint(2, 8)):
        start_ms, length_ms = _draw_span(network, calm_ms)
        schedule_outage(network, rng.choice(sorted(network.nodes)), start_ms, length_ms, draw_effects(network))


def schedule_power_cuts(network: Network, calm_ms: int) -> None:
    """Plan crashes in the middle of a write: what was not synced is not on the disk."""
    rng = network.rng
    for _ in range(rng.randint(2, 6)):
        name = rng.choice(sorted(network.nodes))
        start_ms, length_ms = _draw_span(network, calm_ms)
        network.at(start_ms, network.crash_in_save, name, rng.randint(0, 6))
        network.at(start_ms + length_ms - 1, network.crash, name)
        network.at(start_ms + length_ms, network.start, name)


def schedule_partitions(network: Network, calm_ms: int) -> None:
    """Plan partitions into two sides, one way or both; each ends before the next begins."""
    rng = network.rng
    start_ms = rng.randint(100, 1_000)
    while start_ms < calm_ms - 500:
        names = sorted(network.nodes)
        side = set(rng.sample(names, rng.randint(1, len(names) - 1)))
        pairs = {(a, b) for a in names for b in names if a in side and b not in side}
        if rng.random() < 0.6:
            pairs |= {(b, a) for a, b in pairs}
        network.at(start_ms, network.broker.cut, pairs)
        end_ms = min(calm_ms, start_ms + rng.choice((200, 1_000, 3_000)))
        network.at(end_ms, network.broker.heal)
        start_ms = end_ms + rng.randint(200, 3_000)


def schedule_slowness(network: Network, calm_ms: int) -> None:
    """Plan times in which some nodes are slow."""
    rng = network.rng
    for name in rng.sample(sorted(network.nodes), max(1, len(network.nodes) // 4)):
        start_ms, length_ms = _draw_span(network, calm_ms)
        network.at(start_ms, setattr, network.nodes[name], "slow_ms", rng.choice((50, 300, 900)))
        network.at(start_ms + length_ms, setattr, network.nodes[name], "slow_ms", 0)


def schedule_wrong_clocks(network: Network, calm_ms: int) -> None:
    """Let clocks run up to a quarter too fast or slow from the start, and plan jumps. They stay wrong."""
    rng = network.rng
    for name in sorted(network.nodes):
        clock = network.nodes[name].clock
        clock.rate_percent = rng.randint(80, 125)
        network.at(rng.randint(0, calm_ms), setattr, clock, "offset_ms", rng.randint(-5_000, 60_000))


SCHEDULES: dict[str, Callable[[Network, int], None]] = {
    "partition": schedule_partitions,
    "crash": schedule_crashes,
    "disk": schedule_power_cuts,
    "slow": schedule_slowness,
    "clock": schedule_wrong_clocks,
    "stake": schedule_orders,
}
LINK_FAULTS = ("delay", "loss", "duplicate", "reorder")
FAULTS = (*LINK_FAULTS, *SCHEDULES)
"""The name of every fault on the command line."""


def build_links(faults: frozenset[str]) -> Links:
    """Return links with these of LINK_FAULTS."""
    return replace(
        Links(),
        slow_ms=(30, 600),
        slow_share=0.1 if "delay" in faults else 0.0,
        lost_share=0.05 if "loss" in faults else 0.0,
        twice_share=0.1 if "duplicate" in faults else 0.0,
        is_ordered="reorder" not in faults,
    )


def schedule_all(network: Network, faults: frozenset[str], calm_ms: int) -> None:
    """Plan these faults until `calm_ms`. Then all nodes are up and all links work; only clocks are still wrong."""
    for name, schedule in SCHEDULES.items():
        if name in faults:
            schedule(network, calm_ms)
    network.at(calm_ms, calm_down, network)


def calm_down(network: Network) -> None:
    """End all faults except wrong clocks."""
    network.broker.heal()
    network.broker.links = replace(network.broker.links, slow_share=0.0, lost_share=0.0)
    for name, node in network.nodes.items():
        node.crash_after_effects = node.crash_at_save = None
        if node.behaviour is None:
            node.slow_ms = 0
        network.start(name)
        network.connect(name)


def _draw_span(network: Network, calm_ms: int) -> tuple[int, int]:
    start_ms = network.rng.randint(60, max(61, calm_ms - 1_500))
    return start_ms, min(network.rng.choice((20, 300, 1_500, 4_000)), max(2, calm_ms - start_ms))
