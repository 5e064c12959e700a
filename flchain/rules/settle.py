"""The end of a round: medians of scores, the accepted updates, the new model, rewards, reputation and knowledge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flchain.aggregation import AGGREGATION_RULES, WeightedUpdate
from flchain.base.fixedpoint import add
from flchain.base.frozen import kept_with, replace
from flchain.base.types import SHARE_ALL, Address, BasisPoints, Hash, ModelVector, Round
from flchain.codecs import CODECS, DOWNSTREAM_RULES, Carried, compute_codec_seed
from flchain.consensus.pok import compute_idle_knowledge, compute_knowledge, compute_weighted_median, find_outliers
from flchain.incentives import REPUTATION_MAX, REWARD_RULES, compute_reputation, split_reward
from flchain.ledger.params import ChainParams
from flchain.ledger.state import (
    Candidate,
    ChainState,
    Device,
    RevealedScores,
    RevealedUpdate,
    RoundState,
    find_validator,
    has_two_thirds,
    hash_carried,
    hash_model,
)
from flchain.rules.orders import credit, process_election, process_matured
from flchain.wire.messages import Phase, Settlement

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


def compute_settlement(state: ChainState) -> Settlement:
    """Return the accepted updates: those whose median score is at most the margin below the base model's.

    An abandoned round, which too few scored, accepts none.
    """
    if state.round.phase is not Phase.SETTLE or not is_round_scored(state):
        return Settlement(())
    scores = compute_round_scores(state)
    floor = scores.base - state.params.score_margin_bp
    return Settlement(tuple(update.sender for update in state.round.reveals if scores.updates[update.sender] >= floor))


def decode_update(params: ChainParams, chain: Hash, number: Round, sender: Address, update: bytes) -> ModelVector:
    """Return the change that a device's payload of this round encodes, shape (P,). Raises MalformedUpdate."""
    seed = compute_codec_seed(chain, number, sender)
    return CODECS[params.codec].decode(update, params.parameters_count, params.codec_level, seed)


def _get_change(params: ChainParams, chain: Hash, number: Round, reveal: RevealedUpdate) -> ModelVector:
    if reveal.decoded is not None:
        return reveal.decoded.get_vector()
    return decode_update(params, chain, number, reveal.sender, reveal.update)


def compute_delta(params: ChainParams, chain: Hash, number: Round, reveals: tuple[RevealedUpdate, ...]) -> ModelVector:
    """Return the aggregate of these updates of a round, at least one, shape (P,). Raises MalformedUpdate."""
    updates = tuple(
        WeightedUpdate(reveal.sender, reveal.samples, _get_change(params, chain, number, reveal)) for reveal in reveals
    )
    return AGGREGATION_RULES[params.aggregation].aggregate(updates)


@dataclass(frozen=True, eq=False)
class ModelStep:
    """The effect of a settled round on the model.

    It is the new model, shape (P,), the payload that leads to it from the old one (empty if nothing changes), and what
    the downstream rule carries into the next round.
    """

    model: ModelVector
    payload: bytes
    carried: Carried


def compute_step(
    params: ChainParams,
    base: ModelVector,
    carried: Carried,
    reveals: tuple[RevealedUpdate, ...],
    accepted: tuple[bytes, ...],
    *,
    chain: Hash,
    number: Round,
) -> ModelStep:
    """Return the step that every node with the updates computes for itself. Raises MalformedUpdate.

    The change is compressed as updates are, together with what earlier rounds left out (see `codecs.downstream`): so a
    node without the updates takes the same step by a short payload.
    """
    wanted = frozenset(accepted)
    chosen = tuple(reveal for reveal in reveals if reveal.sender in wanted)
    if not chosen:
        return ModelStep(base, b"", carried)
    summarise = CODECS[params.codec].decode_summary
    if summarise is None:
        aggregate = compute_delta(params, chain, number, chosen)
    else:
        summaries = ((r, summarise(r.update, params.parameters_count, params.codec_level)) for r in chosen)
        updates = tuple(WeightedUpdate(r.sender, r.samples, summary) for r, summary in summaries)
        aggregate = AGGREGATION_RULES[params.aggregation].aggregate(updates)
    rule = DOWNSTREAM_RULES[params.downstream_codec]
    compressed = rule.compress(aggregate, carried, params.parameters_count, params.downstream_level)
    return ModelStep(add(base, compressed.delta), compressed.payload, compressed.carried)


def apply_payload(params: ChainParams, base: ModelVector, payload: bytes) -> ModelVector:
    """Return the model, shape (P,), after a settled round's payload; an empty one changes nothing.

    Raises MalformedUpdate.
    """
    if not payload:
        return base
    rule = DOWNSTREAM_RULES[params.downstream_codec]
    return add(base, rule.decode(payload, params.parameters_count, params.downstream_level))


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
    """Pay, judge, pay out what is unbonded, elect if an epoch ends, open the next round.

    The caller has checked the settlement.
    """
    is_scored = is_round_scored(state)
    outcome = _Outcome(
        accepted=frozenset(settlement.accepted),
        revealed=frozenset(update.sender for update in state.round.reveals),
        awaited=frozenset((*state.round.pledges, *(address for address, _ in state.round.score_commits))),
        scorers=frozenset(reveal.scorer for reveal in state.round.score_reveals),
        outliers=find_outlying_scorers(state) if is_scored else frozenset(),
        is_scored=is_scored,
    )
    round_, accepted = state.round, settlement.accepted
    step = compute_step(
        state.params, state.model, state.carried, round_.reveals, accepted, chain=state.chain, number=round_.number
    )
    rewards = _compute_rewards(state, outcome) if is_scored else {}
    settled = replace(
        credit(state, rewards),
        devices=tuple(_settle_device(device, outcome) for device in state.devices),
        candidates=tuple(_settle_candidate(state, candidate, outcome) for candidate in state.candidates),
        model=step.model,
        model_hash=hash_model(step.model) if step.payload else state.model_hash,
        carried=step.carried,
        carried_hash=hash_carried(step.carried) if step.payload else state.carried_hash,
        payload=step.payload,
        minted=state.minted + sum(rewards.values()),
    )
    settled = process_matured(settled)
    if state.round.number % state.params.epoch_rounds == 0:
        settled = process_election(settled)
        settled = replace(settled, devices=tuple(replace(device, unscored=0) for device in settled.devices))
    return replace(settled, round=RoundState(Round(state.round.number + 1), Phase.COMMIT))


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


def _settle_device(device: Device, outcome: _Outcome) -> Device:
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


def _settle_candidate(state: ChainState, candidate: Candidate, outcome: _Outcome) -> Candidate:
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
