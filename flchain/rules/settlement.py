"""The end of a round: the accepted updates, then pay, reputation and knowledge, payouts, elections, the next round."""

from __future__ import annotations

from dataclasses import dataclass

from flchain.base.frozen import replace
from flchain.base.types import SHARE_ALL, Address, BasisPoints, Round
from flchain.consensus.pok import compute_idle_knowledge, compute_knowledge
from flchain.incentives import REPUTATION_MAX, REWARD_RULES, compute_reputation, split_reward
from flchain.ledger.state import (
    Candidate,
    ChainState,
    Device,
    RoundState,
    find_validator,
    hash_carried,
    hash_model,
)
from flchain.rules.model_step import compute_step
from flchain.rules.orders import credit, process_election, process_matured
from flchain.rules.scores import (
    WEIGHT_SCALE,
    compute_round_scores,
    find_outlying_scorers,
    get_homes,
    get_scorer_weights,
    get_weighty_scores,
    is_round_scored,
)
from flchain.wire.messages import Phase, Settlement


def compute_settlement(state: ChainState) -> Settlement:
    """Return the accepted updates: those whose median score is at most the margin below the base model's.

    An abandoned round, which too few scored, accepts none.
    """
    if state.round.phase is not Phase.SETTLE or not is_round_scored(state):
        return Settlement(())
    scores = compute_round_scores(state)
    floor = scores.base - state.params.score_margin_bp
    return Settlement(tuple(update.sender for update in state.round.reveals if scores.updates[update.sender] >= floor))


@dataclass(frozen=True)
class _Outcome:
    """What a round has shown of all nodes."""

    accepted: frozenset[bytes]
    revealed: frozenset[Address]
    awaited: frozenset[Address]
    """Devices that should have scored: they had pledged it, or committed to scores."""
    scorers: frozenset[Address]
    outliers: frozenset[Address]
    is_scored: bool


def process_settlement(state: ChainState, settlement: Settlement) -> ChainState:
    """Return the state after the end of a round. The caller has checked the settlement."""
    outcome = _get_outcome(state, settlement)
    state = _process_model_step(state, settlement)
    state = _process_rewards(state, outcome)
    state = _process_standings(state, outcome)
    state = process_matured(state)
    if state.round.number % state.params.epoch_rounds == 0:
        state = _process_epoch(state)
    return replace(state, round=RoundState(Round(state.round.number + 1), Phase.COMMIT))


def _get_outcome(state: ChainState, settlement: Settlement) -> _Outcome:
    is_scored = is_round_scored(state)
    return _Outcome(
        accepted=frozenset(settlement.accepted),
        revealed=frozenset(update.sender for update in state.round.reveals),
        awaited=frozenset((*state.round.pledges, *(address for address, _ in state.round.score_commits))),
        scorers=frozenset(reveal.scorer for reveal in state.round.score_reveals),
        outliers=find_outlying_scorers(state) if is_scored else frozenset(),
        is_scored=is_scored,
    )


def _process_model_step(state: ChainState, settlement: Settlement) -> ChainState:
    round_, parts = state.round, (state.params, state.model, state.carried)
    step = compute_step(*parts, round_.reveals, settlement.accepted, chain=state.chain, number=round_.number)
    return replace(
        state,
        model=step.model,
        model_hash=hash_model(step.model) if step.payload else state.model_hash,
        carried=step.carried,
        carried_hash=hash_carried(step.carried) if step.payload else state.carried_hash,
        payload=step.payload,
    )


def _process_rewards(state: ChainState, outcome: _Outcome) -> ChainState:
    """Pay by the reputations that nodes had when the round began."""
    rewards = _compute_rewards(state, outcome) if outcome.is_scored else {}
    return replace(credit(state, rewards), minted=state.minted + sum(rewards.values()))


def _compute_rewards(state: ChainState, outcome: _Outcome) -> dict[Address, int]:
    """Return what every account earns: devices by updates, scorers by scores, and delegators with them."""
    updates = tuple((u.sender, u.samples) for u in state.round.reveals if u.sender in outcome.accepted)
    rewards = dict(REWARD_RULES[state.params.reward_rule](updates, state.params.reward_per_update))
    for scorer, part in _split_scoring_reward(state, outcome.outliers).items():
        validator = find_validator(state, scorer)
        backers = [(d.delegator, d.amount) for d in state.delegations if d.candidate == scorer]
        parts = {scorer: part}
        if validator is not None and backers:
            parts = split_reward(part, scorer, validator.commission_bp, backers)
        for address, amount in parts.items():
            rewards[address] = rewards.get(address, 0) + amount
    return rewards


def _split_scoring_reward(state: ChainState, outliers: frozenset[Address]) -> dict[Address, int]:
    """Split the scorers' purse by weight; of its part, a scorer gets the share that its reputation is.

    The rest is not minted: an outlier's part, and those of validators or mining devices that kept silent or were kept
    out. So nobody ever gains by another's loss.
    """
    reputations = {device.address: device.reputation for device in state.devices}
    reputations |= {candidate.address: candidate.reputation for candidate in state.candidates}
    weights = get_scorer_weights(state)
    of_validators = sum(v.power for v in state.validators) * WEIGHT_SCALE
    of_devices = of_validators * state.params.mining_weight_bp // SHARE_ALL
    whole = (of_validators + of_devices) * REPUTATION_MAX
    purse = state.params.reward_for_scores
    return {
        address: purse * weight * reputations[address] // whole
        for address, weight in weights.items()
        if address not in outliers
    }


def _process_standings(state: ChainState, outcome: _Outcome) -> ChainState:
    """Change absences, reputations and knowledge, all of them by the weights from before the change."""
    return replace(
        state,
        devices=tuple(_judge_device(device, outcome) for device in state.devices),
        candidates=tuple(_judge_candidate(state, candidate, outcome) for candidate in state.candidates),
    )


def _judge_device(device: Device, outcome: _Outcome) -> Device:
    has_revealed = device.address in outcome.revealed
    device = replace(device, absent=0 if has_revealed else device.absent + 1)
    if outcome.is_scored and has_revealed:
        is_accepted = device.address in outcome.accepted
        device = replace(device, reputation=compute_reputation(device.reputation, is_accepted))
    if outcome.is_scored and device.address in outcome.awaited - outcome.scorers:
        device = replace(device, unscored=device.unscored + 1)
    if device.address in outcome.outliers:
        device = replace(device, reputation=compute_reputation(device.reputation, False))
    return device


def _judge_candidate(state: ChainState, candidate: Candidate, outcome: _Outcome) -> Candidate:
    if not outcome.is_scored or not candidate.power:
        return candidate
    has_scored = candidate.address in outcome.scorers
    reputation = candidate.reputation
    if has_scored:
        reputation = compute_reputation(reputation, candidate.address not in outcome.outliers)
    return replace(
        candidate,
        absent=0 if has_scored else candidate.absent + 1,
        reputation=reputation,
        knowledge=_compute_knowledge_of(state, candidate),
    )


def _compute_knowledge_of(state: ChainState, miner: Candidate) -> BasisPoints:
    """Return a miner's Proof of Knowledge: the median of the other scorers' scores for its devices' aggregate."""
    homes = get_homes(state)
    if miner.address not in homes:
        return compute_idle_knowledge(miner.knowledge)
    place = homes.index(miner.address)
    said = get_weighty_scores(state, judged=miner.address)
    spoken = {reveal.scorer for reveal, _ in said}
    silent = sum(v.power for v in state.validators if v.address not in spoken | {miner.address}) * WEIGHT_SCALE
    return compute_knowledge(miner.knowledge, [(r.aggregates[place], weight) for r, weight in said], silent)


def _process_epoch(state: ChainState) -> ChainState:
    """Hold an election, from which on the rounds that devices failed to score are counted anew."""
    state = process_election(state)
    return replace(state, devices=tuple(replace(device, unscored=0) for device in state.devices))
