"""Proof of Knowledge: medians, knowledge, outliers, mining devices, and what scoring earns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flchain.base.types import Address, BasisPoints, Power
from flchain.consensus.pok import (
    KNOWLEDGE_MIN,
    compute_idle_knowledge,
    compute_knowledge,
    find_outliers,
)
from flchain.incentives import compute_reputation
from flchain.ledger.state import ChainState, Device, RevealedScores, find_candidate, find_device
from flchain.rules.scores import (
    WEIGHT_SCALE,
    compute_round_scores,
    find_outlying_scorers,
    get_homes,
    get_scorer_weights,
    is_round_scored,
)
from flchain.rules.settlement import compute_settlement, process_settlement
from flchain.wire.messages import Delegate, Phase
from tests.support.builders.chain import BASE_SCORE, BuiltChain, Driver, build_chain
from tests.support.builders.stake import StakeDriver, accuse, build_stake_chain

PURSE = 1_000
CHAIN = build_chain(reward_for_scores=PURSE, reward_per_update=0)
MINERS = [miner.address for miner in CHAIN.miners]


def go_to_settle(chain: BuiltChain = CHAIN) -> ChainState:
    driver = Driver(chain)
    driver.go_to(Phase.SETTLE)
    return driver.state


SETTLE = go_to_settle()


def say(state: ChainState, words: dict[Address, tuple[int, int]]) -> ChainState:
    """The state in which each scorer has said (base, everything else)."""
    updates, homes = len(state.round.reveals), len(get_homes(state))
    said = tuple(
        RevealedScores(address, base, (score,) * updates, (score,) * homes)
        for address, (base, score) in sorted(words.items())
    )
    return replace(state, round=replace(state.round, score_reveals=said))


def settle(state: ChainState) -> ChainState:
    return process_settlement(state, compute_settlement(state))


def get_reputations(state: ChainState) -> list[int]:
    return [candidate.reputation for candidate in state.candidates]


def get_gains(before: ChainState, after: ChainState) -> dict[Address, int]:
    paid = {a.address: a.balance - before.accounts_by_address[a.address].balance for a in after.accounts}
    return {address: amount for address, amount in paid.items() if amount}


# ------------------------------------------------------------------------------------------- knowledge


@pytest.mark.parametrize(
    ("standing", "scores", "silent", "knowledge"),
    [
        (5_000, ((7_000, 1), (8_000, 1), (9_000, 1)), 0, 8_000),
        (5_000, ((9_000, 1), (9_000, 1)), 2, 5_000),  # half are silent: the lower median is the standing
        (5_000, ((9_000, 2), (9_000, 1)), 2, 9_000),
        (5_000, (), 3, 5_000),
        (5_000, (), 0, 5_000),
        (5_000, ((0, 1),), 0, KNOWLEDGE_MIN),
    ],
)
def test_knowledge_is_the_median_with_the_silent_at_the_standing(
    standing: int, scores: tuple[tuple[int, int], ...], silent: int, knowledge: int
) -> None:
    """Who keeps silent speaks for things as they are; nobody's knowledge is ever zero."""
    assert compute_knowledge(BasisPoints(standing), scores, silent) == knowledge


def test_who_contributes_nothing_fades() -> None:
    """Idle rounds halve knowledge down to the least, never to zero."""
    knowledge = BasisPoints(10_000)
    for expected in (5_000, 2_500, 1_250):
        knowledge = compute_idle_knowledge(knowledge)
        assert knowledge == expected
    assert compute_idle_knowledge(BasisPoints(KNOWLEDGE_MIN)) == KNOWLEDGE_MIN


def test_nobody_scores_itself() -> None:
    """A miner's own word for the aggregate of its devices does not count, however much power it has."""
    chain = build_chain(powers=[60, 20, 20, 20])
    state = say(go_to_settle(chain), {m.address: (7_000, 6_000) for m in chain.miners})
    boast = replace(state.round.score_reveals[0], aggregates=(10_000,) * 3)
    state = replace(state, round=replace(state.round, score_reveals=(boast, *state.round.score_reveals[1:])))
    assert state.validators[0].address in get_homes(state)
    assert settle(state).candidates[0].knowledge == 6_000


# -------------------------------------------------------------------------------------------- outliers


def test_gains_are_compared_not_scores() -> None:
    """A scorer whose data is harder says less of everything and is no outlier; one that inverts the order is."""
    honest = [[100, 200, -300], [110, 190, -290], [90, 210, -310]]
    assert find_outliers(honest, [1, 1, 1], 20) == frozenset()
    assert find_outliers([*honest, [-100, -200, 300]], [1, 1, 1, 1], 200) == {3}
    harder = say(SETTLE, {MINERS[0]: (2_000, 2_100), **{m: (7_000, 7_100) for m in MINERS[1:]}})
    assert find_outlying_scorers(harder) == frozenset()


def test_the_distance_is_exact() -> None:
    """On average exactly the limit off is not an outlier; one basis point more is."""
    rows = [[0, 0], [0, 0], [30, 50]]
    assert find_outliers(rows, [1, 1, 1], 40) == frozenset()
    assert find_outliers(rows, [1, 1, 1], 39) == {2}


def lie(state: ChainState, liar: int = 3) -> ChainState:
    """One scorer is 3,000 points off, the limit being 2,000."""
    return say(state, {m: (BASE_SCORE, BASE_SCORE + (i == liar) * -3_000) for i, m in enumerate(MINERS)})


def test_an_outlier_earns_nothing_and_loses_reputation() -> None:
    """Its part of the purse is not minted, its reputation falls, its stake stays."""
    before = lie(SETTLE)
    after = settle(before)
    gains = get_gains(before, after)
    assert set(gains) == set(MINERS[:3])
    start = before.candidates[0].reputation
    assert get_reputations(after) == [compute_reputation(start, True)] * 3 + [compute_reputation(start, False)]
    assert after.minted - before.minted == sum(gains.values())
    assert after.delegations == before.delegations


def test_nobody_gains_by_anothers_fall() -> None:
    """The honest earn the same beside an outlier as beside an honest scorer, in that round and in the next ones."""
    honest = say(SETTLE, {m: (BASE_SCORE, BASE_SCORE) for m in MINERS})
    beside_honest, beside_liar = settle(honest), settle(lie(SETTLE))
    assert [get_gains(honest, beside_honest)[m] for m in MINERS[:3]] == [
        get_gains(lie(SETTLE), beside_liar)[m] for m in MINERS[:3]
    ]
    later = [
        replace(SETTLE, candidates=state.candidates, accounts=state.accounts) for state in (beside_honest, beside_liar)
    ]
    later = [say(state, {m: (BASE_SCORE, BASE_SCORE) for m in MINERS}) for state in later]
    first, second = (get_gains(state, settle(state)) for state in later)
    assert [first[m] for m in MINERS[:3]] == [second[m] for m in MINERS[:3]]
    assert second[MINERS[3]] < first[MINERS[3]], "the fallen one pays for it longer"


def test_the_purse_is_the_most_that_scoring_mints() -> None:
    """With full reputation the scorers share the purse by power, the devices' part aside; with less they get less."""
    full = tuple(replace(c, reputation=BasisPoints(10_000)) for c in SETTLE.candidates)
    words = {m: (BASE_SCORE, BASE_SCORE) for m in MINERS}
    rich = say(replace(SETTLE, candidates=full), words)
    assert get_gains(rich, settle(rich)) == dict.fromkeys(MINERS, PURSE * 10 // 11 // 4)
    half = say(SETTLE, words)
    assert get_gains(half, settle(half)) == dict.fromkeys(MINERS, PURSE * 10 // 11 // 8)


def test_a_validators_reward_is_shared_with_its_delegators() -> None:
    """Of the part that a validator earns, its declared commission stays; the rest goes by stake."""
    chain = build_stake_chain(reward_for_scores=8_000, reward_per_update=0, mining_weight_bp=0)
    driver = StakeDriver(chain)
    holder, miner = chain.holders[0], chain.miners[0]
    driver.order(holder, Delegate, miner.address, 30)
    driver.go_to(Phase.SETTLE)
    before = driver.state
    driver.finish_round()
    gains = get_gains(before, driver.state)
    # Four of equal power and half reputation earn 1,000 each: 100 commission, then 900 by 10 own and 30 delegated.
    assert gains[miner.address] == 100 + 225
    assert gains[holder.address] == 675
    assert gains[chain.miners[1].address] == 1_000


def test_nobody_gains_by_keeping_another_out() -> None:
    """A validator whose scores are not in the block earns nothing, and the others what they earn with it."""
    words = {miner: (BASE_SCORE, BASE_SCORE) for miner in MINERS}
    everybody, fewer = say(SETTLE, words), say(SETTLE, {miner: words[miner] for miner in MINERS[:3]})
    with_it, without = get_gains(everybody, settle(everybody)), get_gains(fewer, settle(fewer))
    assert with_it[MINERS[3]] and MINERS[3] not in without
    assert all(without[miner] == with_it[miner] for miner in MINERS[:3])


# -------------------------------------------------------------------------------------- mining devices


def test_all_mining_devices_together_weigh_a_bounded_share() -> None:
    """However many devices score, together they weigh mining_weight_bp of all power, split by reputation."""
    chain = build_chain(devices=3, mining_weight_bp=3_000)
    state = go_to_settle(chain)
    devices = [device.address for device in chain.devices]
    reputations = (8_000, 1_000, 1_000)
    state = replace(
        state,
        devices=tuple(replace(d, reputation=BasisPoints(r)) for d, r in zip(state.devices, reputations, strict=True)),
    )
    miners = {m.address: (7_000, 7_000) for m in chain.miners}
    for count in (1, 2, 3):
        weights = get_scorer_weights(say(state, miners | {d: (7_000, 0) for d in devices[:count]}))
        total = sum(v.power for v in state.validators) * WEIGHT_SCALE
        assert 0.2999 * total < sum(weights[d] for d in devices[:count]) <= 0.3 * total
    weights = get_scorer_weights(say(state, miners | {d: (7_000, 0) for d in devices}))
    assert weights[devices[0]] == 8 * weights[devices[1]]


@pytest.mark.parametrize("silent", [0, 1])
def test_devices_and_less_than_a_third_of_the_power_are_never_half(silent: int) -> None:
    """Whoever keeps silent, all devices and less than a third of the power weigh less than the others that spoke."""
    chain = build_chain(miners=3, powers=[29, 33, 38], mining_weight_bp=3_333)
    state = go_to_settle(chain)
    spoken = [miner.address for miner in chain.miners][silent:]
    weights = get_scorer_weights(
        say(state, {a: (7_000, 7_000) for a in (*spoken, *(d.address for d in chain.devices))})
    )
    worst = weights[chain.miners[1].address] + sum(weights.get(d.address, 0) for d in chain.devices)
    assert 2 * worst < sum(weights.values())


def test_a_validator_that_is_a_device_too_keeps_its_weight() -> None:
    """A device's account may win a seat: its scores then weigh its power: otherwise a minority would outweigh it."""
    chain = build_chain(mining_weight_bp=3_000)
    state = say(go_to_settle(chain), {m.address: (7_000, 7_000) for m in chain.miners})
    both = chain.miners[0]
    devices = (*state.devices, Device(both.address, both.public_key, both.address))
    assert get_scorer_weights(replace(state, devices=devices)) == get_scorer_weights(state)


def test_without_a_share_or_reputation_devices_do_not_count() -> None:
    """With mining_weight_bp 0, or no reputation left, what a device scores has no weight and earns nothing."""
    chain = build_chain(mining_weight_bp=0, reward_for_scores=PURSE, reward_per_update=0)
    state = say(go_to_settle(chain), {a.address: (7_000, 7_000) for a in (*chain.miners, *chain.devices)})
    assert set(get_scorer_weights(state)) == {m.address for m in chain.miners}
    assert not set(get_gains(state, settle(state))) & {d.address for d in chain.devices}
    ruined = replace(SETTLE, devices=tuple(replace(d, reputation=BasisPoints(0)) for d in SETTLE.devices))
    state = say(ruined, {a.address: (7_000, 7_000) for a in (*CHAIN.miners, *CHAIN.devices)})
    assert set(get_scorer_weights(state)) == set(MINERS)


def test_devices_alone_decide_nothing() -> None:
    """A round is scored by validators: more than two thirds of their power, however many devices have scored."""
    devices = {d.address: (7_000, 7_000) for d in CHAIN.devices}
    assert not is_round_scored(say(SETTLE, devices | {m: (7_000, 7_000) for m in MINERS[:2]}))
    assert is_round_scored(say(SETTLE, devices | {m: (7_000, 7_000) for m in MINERS[:3]}))


def test_a_mining_device_that_is_far_off_loses_reputation() -> None:
    """An outlying device earns nothing for its scores and falls; one that agrees is paid by its weight."""
    good, bad = CHAIN.devices[0].address, CHAIN.devices[1].address
    words = {m: (BASE_SCORE, BASE_SCORE) for m in MINERS} | {good: (BASE_SCORE, BASE_SCORE), bad: (BASE_SCORE, 100)}
    before = say(SETTLE, words)
    after = settle(before)
    gains = get_gains(before, after)
    assert good in gains and bad not in gains
    fallen, risen = find_device(after, bad), find_device(after, good)
    assert fallen is not None and risen is not None
    assert fallen.reputation < risen.reputation


def test_validators_gain_nothing_by_keeping_mining_devices_out() -> None:
    """The devices' part of the purse is theirs or nobody's: a validator earns the same whether they scored or not."""
    miners = {m: (BASE_SCORE, BASE_SCORE) for m in MINERS}
    devices = {d.address: (BASE_SCORE, BASE_SCORE) for d in CHAIN.devices}
    without, beside = say(SETTLE, miners), say(SETTLE, miners | devices)
    alone, together = get_gains(without, settle(without)), get_gains(beside, settle(beside))
    assert [alone[m] for m in MINERS] == [together[m] for m in MINERS]
    assert all(together[d] > 0 for d in devices)


def boast(state: ChainState, scorer: Address, score: int) -> ChainState:
    """The state in which a scorer has said this of the first update."""
    changed = [
        replace(r, scores=(score, *r.scores[1:])) if r.scorer == scorer else r for r in state.round.score_reveals
    ]
    return replace(state, round=replace(state.round, score_reveals=tuple(changed)))


def test_a_mining_device_has_no_say_in_its_own_update() -> None:
    """Where the others' words are evenly split, a device moves the median of another's update and never its own."""
    chain = build_chain(miners=4, devices=2, mining_weight_bp=3_000)
    own, other = (device.address for device in chain.devices)
    words = {m.address: (7_000, 5_000 + 4_000 * (i % 2)) for i, m in enumerate(chain.miners)}
    state = say(go_to_settle(chain), words | {own: (7_000, 9_000)})
    scores = compute_round_scores(state)
    assert (scores.updates[own], scores.updates[other]) == (5_000, 9_000)


def test_what_a_device_says_of_its_own_update_is_not_held_against_it() -> None:
    """A device that has tested its own update, on data like its training data, is no outlier for that."""
    chain = build_chain(devices=1)
    device = chain.devices[0].address
    state = say(go_to_settle(chain), {a.address: (BASE_SCORE, BASE_SCORE) for a in (*chain.miners, *chain.devices)})
    assert find_outlying_scorers(boast(state, device, 0)) == frozenset()
    assert find_outlying_scorers(boast(state, chain.miners[0].address, 0)) == {chain.miners[0].address}


# ------------------------------------------------------------------------------------ seats in mid-round


def test_scores_of_one_that_lost_its_seat_do_not_count() -> None:
    """A validator jailed after it has scored weighs nothing in the medians, earns nothing, and is not judged."""
    chain = build_stake_chain(reward_for_scores=PURSE, powers=[10, 10, 10, 10])
    driver = StakeDriver(chain)
    driver.go_to(Phase.SETTLE)
    guilty = chain.miners[1]
    words = {m.address: (7_000, 7_000) for m in chain.miners[:4]}
    words[guilty.address] = (0, 10_000)
    spoken = say(driver.state, words)
    assert guilty.address in get_scorer_weights(spoken)
    jailed = replace(
        spoken,
        candidates=tuple(replace(c, power=Power(0)) if c.address == guilty.address else c for c in spoken.candidates),
    )
    assert set(get_scorer_weights(jailed)) == {m.address for m in chain.miners[:4]} - {guilty.address}
    assert compute_round_scores(jailed).base == 7_000
    after = settle(jailed)
    assert guilty.address not in get_gains(jailed, after)
    assert find_candidate(after, guilty.address) == find_candidate(jailed, guilty.address)


def test_a_round_ends_when_a_scorer_is_jailed_in_it() -> None:
    """Evidence between commitment and opening of scores: the others' scores settle the round, with no wait for the
    guilty."""
    chain = build_stake_chain()
    driver = StakeDriver(chain)
    driver.go_to(Phase.SETTLE)
    driver.extend(orders=[accuse(driver.state, chain.holders[0], chain.miners[1])])
    assert driver.seated == [0, 2, 3]
    driver.finish_round()
    assert driver.state.round.number == 2
