"""What the scores of a round say: the weight of each scorer, medians, and the scorers that are too far from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flchain.base.frozen import kept_with
from flchain.base.types import SHARE_ALL, Address
from flchain.consensus.pok import compute_weighted_median, find_outliers
from flchain.ledger.state import ChainState, RevealedScores, RevealedUpdate, find_validator, has_two_thirds

WEIGHT_SCALE = 1_000_000
"""A validator weighs its power times this, so that the small weights of devices are still integers."""


@dataclass(frozen=True)
class RoundScores:
    """The scores of a round as weighted medians in basis points: the base model's, and each update's by device."""

    base: int
    updates: dict[Address, int]


def get_home_of(state: ChainState) -> Callable[[Address], Address]:
    """Return the function from a device's address to the miner that it is associated with."""
    devices = state.devices_by_address
    return lambda address: devices[address].home


def group_by_home(
    updates: Sequence[RevealedUpdate], home_of: Callable[[Address], Address]
) -> dict[Address, tuple[RevealedUpdate, ...]]:
    """Return the updates of each miner's devices, in the order of `updates`; miners in order of address."""
    groups: dict[Address, list[RevealedUpdate]] = {}
    for update in updates:
        groups.setdefault(home_of(update.sender), []).append(update)
    return {home: tuple(groups[home]) for home in sorted(groups)}


@kept_with
def get_homes(state: ChainState) -> tuple[Address, ...]:
    """Return the miners whose devices revealed updates in this round, in order of address: each aggregate is scored."""
    return tuple(group_by_home(state.round.reveals, get_home_of(state)))


def get_scorer_weights(state: ChainState, judged: Address | None = None) -> dict[Address, int]:
    """Return the weight of each scorer of the round.

    A validator weighs its power. All mining devices together weigh a share of all power, split by reputation. A
    validator that is also a device counts as a validator. All other scores are ignored, including those of a validator
    that has lost its seat, and of the miner whose knowledge is `judged`.
    """
    scorers = {reveal.scorer for reveal in state.round.score_reveals} - {judged}
    weights = {v.address: v.power * WEIGHT_SCALE for v in state.validators if v.address in scorers}
    mining = [device for device in state.devices if device.address in scorers and device.address not in weights]
    reputation = sum(device.reputation for device in mining)
    total = sum(v.power for v in state.validators) * WEIGHT_SCALE
    # Where validators with a share s of all power have scored, liars with a third of the power and devices with s - 2/3
    # are together less than half. The judged miner is not among them, so less is left for devices, which anybody can
    # make at no cost.
    two_thirds = -(-2 * total // 3)  # rounded up
    room = max(0, sum(weights.values()) - two_thirds)
    share = min(total * state.params.mining_weight_bp // SHARE_ALL, room)
    weights |= {device.address: share * device.reputation // reputation for device in mining if reputation}
    return {address: weight for address, weight in weights.items() if weight}


def get_weighty_scores(state: ChainState, judged: Address | None = None) -> tuple[tuple[RevealedScores, int], ...]:
    """Return the scores that count, with their weights."""
    weights = get_scorer_weights(state, judged)
    return tuple((r, weights[r.scorer]) for r in state.round.score_reveals if r.scorer in weights)


def compute_round_scores(state: ChainState) -> RoundScores:
    """Return medians over all scorers: more than 2/3 of the power has scored, so less than 1/3 never weighs half.

    A mining device's score of its own update does not count.
    """
    said = get_weighty_scores(state)
    base = compute_weighted_median([(r.base_score, weight) for r, weight in said])
    medians = {}
    for index, update in enumerate(state.round.reveals):
        counted = [(r.scores[index], weight) for r, weight in said if not _is_own_word(state, r.scorer, update.sender)]
        medians[update.sender] = compute_weighted_median(counted)
    return RoundScores(base, medians)


def _is_own_word(state: ChainState, scorer: Address, sender: Address) -> bool:
    """Return True for a device's score of its own update.

    A validator's that is also a device counts: without its power less than a third could be half of those who scored.
    """
    return scorer == sender and find_validator(state, scorer) is None


def is_round_scored(state: ChainState) -> bool:
    """Return True if validators with more than two thirds of the power have scored: fewer decide nothing."""
    return has_two_thirds(state, frozenset(reveal.scorer for reveal in state.round.score_reveals))


def find_outlying_scorers(state: ChainState) -> frozenset[Address]:
    """Return the scorers whose gains over the base model are too far from the medians of all.

    Devices' scores of their own updates are left out.
    """
    said = get_weighty_scores(state)
    senders = tuple(update.sender for update in state.round.reveals)
    gains = [_list_gains(state, r, senders) for r, _ in said]
    if not gains or not gains[0]:
        return frozenset()
    found = find_outliers(gains, [weight for _, weight in said], state.params.score_outlier_bp)
    return frozenset(said[index][0].scorer for index in found)


def _list_gains(state: ChainState, said: RevealedScores, senders: tuple[Address, ...]) -> list[int | None]:
    """Return the gains a scorer sees in each update and each aggregate; None for a mining device's own update."""
    base, updates = said.base_score, zip(senders, said.scores, strict=True)
    of_updates = [None if _is_own_word(state, said.scorer, sender) else score - base for sender, score in updates]
    return [*of_updates, *(score - base for score in said.aggregates)]
