"""How a round ends: medians of scores, the accepted updates, the new model, rewards, reputation and knowledge."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flchain.aggregation import AGGREGATION_RULES, WeightedUpdate
from flchain.codecs import CODECS
from flchain.fixedpoint import add
from flchain.incentives import REWARD_RULES, compute_reputation
from flchain.messages import Phase, Settlement
from flchain.params import ChainParams
from flchain.state import (
    ChainState,
    Device,
    RevealedUpdate,
    RoundState,
    Validator,
    find_device,
    has_two_thirds,
    hash_model,
)
from flchain.types import Address, BasisPoints, ModelVector, Round

KNOWLEDGE_MIN = 1
KNOWLEDGE_MAX = 10_000


@dataclass(frozen=True)
class RoundScores:
    """What the scorers said, as weighted medians in basis points: the base model's, and each update's by device."""

    base: int
    updates: dict[Address, int]


def compute_weighted_median(values: tuple[tuple[int, int], ...]) -> int:
    """The lower weighted median of (value, weight) pairs: the least value with half the weight at or below it.

    Less than half of the weight cannot move it outside the range of the other values. ValueError for no pairs.
    """
    if not values:
        raise ValueError("the median of nothing")
    total = sum(weight for _, weight in values)
    below = 0
    for value, weight in sorted(values):
        below += weight
        if 2 * below >= total:
            return value
    raise ValueError("weights must be positive")


def compute_round_scores(state: ChainState) -> RoundScores:
    """Medians over the scorers by power. A miner does not score the updates of its own devices, unless it is alone."""
    powers = {validator.address: validator.power for validator in state.validators}
    reveals = state.round.score_reveals
    base = compute_weighted_median(tuple((r.base_score, powers[r.scorer]) for r in reveals))
    medians: dict[Address, int] = {}
    for index, update in enumerate(state.round.reveals):
        device = find_device(state, update.sender)
        home = device.home if device else None
        scores = [(r.scores[index], powers[r.scorer]) for r in reveals if r.scorer != home]
        scores = scores or [(r.scores[index], powers[r.scorer]) for r in reveals]
        medians[update.sender] = compute_weighted_median(tuple(scores))
    return RoundScores(base, medians)


def is_round_scored(state: ChainState) -> bool:
    """True if scorers with more than two thirds of the power have spoken: fewer decide nothing, whatever they say."""
    return has_two_thirds(state, frozenset(reveal.scorer for reveal in state.round.score_reveals))


def compute_settlement(state: ChainState) -> Settlement:
    """Which updates are accepted: those whose median score is at most the margin below the base model's.

    None in an abandoned round, which too few scored.
    """
    if state.round.phase is not Phase.SETTLE or not is_round_scored(state):
        return Settlement(())
    scores = compute_round_scores(state)
    floor = scores.base - state.params.score_margin_bp
    return Settlement(tuple(update.sender for update in state.round.reveals if scores.updates[update.sender] >= floor))


def compute_next_model(
    params: ChainParams, base: ModelVector, reveals: tuple[RevealedUpdate, ...], accepted: tuple[bytes, ...]
) -> ModelVector:
    """The new global model, shape (P,): what every device computes for itself. Unchanged if nothing was accepted."""
    codec, wanted = CODECS[params.codec], frozenset(accepted)
    updates = tuple(
        WeightedUpdate(reveal.sender, reveal.samples, codec.decode(reveal.update, len(base), params.codec_level))
        for reveal in reveals
        if reveal.sender in wanted
    )
    return add(base, AGGREGATION_RULES[params.aggregation](updates)) if updates else base


def process_settlement(state: ChainState, settlement: Settlement) -> ChainState:
    """Pay, judge and open the next round. The settlement was checked by the caller."""
    accepted = frozenset(settlement.accepted)
    model = compute_next_model(state.params, state.model, state.round.reveals, settlement.accepted)
    rewarded = tuple((u.sender, u.samples) for u in state.round.reveals if u.sender in accepted)
    rewards = REWARD_RULES[state.params.reward_rule](rewarded, state.params.reward_per_update)
    is_scored = is_round_scored(state)
    revealed = frozenset(update.sender for update in state.round.reveals)
    return replace(
        state,
        devices=tuple(
            _settle_device(d, revealed, accepted, rewards.get(d.address, 0), is_scored) for d in state.devices
        ),
        validators=tuple(_settle_validator(state, validator, is_scored) for validator in state.validators),
        round=RoundState(Round(state.round.number + 1), Phase.COMMIT),
        model=model,
        model_hash=hash_model(model) if accepted else state.model_hash,
        minted=state.minted + sum(rewards.values()),
    )


def _settle_device(
    device: Device, revealed: frozenset[Address], accepted: frozenset[bytes], reward: int, is_scored: bool
) -> Device:
    if device.address not in revealed:
        return replace(device, absent=device.absent + 1)
    if not is_scored:
        return replace(device, absent=0)
    reputation = compute_reputation(device.reputation, device.address in accepted)
    return replace(device, absent=0, balance=device.balance + reward, reputation=reputation)


def _settle_validator(state: ChainState, validator: Validator, is_scored: bool) -> Validator:
    if not is_scored:
        return validator
    scored = any(reveal.scorer == validator.address for reveal in state.round.score_reveals)
    knowledge = _compute_knowledge(state, validator)
    return replace(validator, absent=0 if scored else validator.absent + 1, knowledge=knowledge)


def _compute_knowledge(state: ChainState, miner: Validator) -> BasisPoints:
    """Proof of Knowledge: the median over the other scorers of their mean score for this miner's devices.

    A miner without a revealed update in the round keeps half of its standing, so that it is not heard on old merit.
    """
    homes = {device.address: device.home for device in state.devices}
    own = [i for i, update in enumerate(state.round.reveals) if homes.get(update.sender) == miner.address]
    powers = {validator.address: validator.power for validator in state.validators}
    means = tuple(
        (sum(reveal.scores[i] for i in own) // len(own), powers[reveal.scorer])
        for reveal in state.round.score_reveals
        if own and reveal.scorer != miner.address
    )
    value = compute_weighted_median(means) if means else miner.knowledge // 2
    return BasisPoints(max(KNOWLEDGE_MIN, min(KNOWLEDGE_MAX, value)))
