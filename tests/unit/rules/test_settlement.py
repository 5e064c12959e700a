"""Settlement: medians that a lying minority cannot move, and what a round pays and changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flchain.base.types import Address, BasisPoints, Round
from flchain.consensus.pok import KNOWLEDGE_MIN, compute_weighted_median
from flchain.incentives import REWARD_RULES, compute_reputation
from flchain.ledger.state import KNOWLEDGE_START, REPUTATION_START, ChainState, RevealedScores, find_device
from flchain.rules.model_step import compute_step
from flchain.rules.settlement import compute_settlement, process_settlement
from flchain.wire.messages import Phase, ScoreReveal, Settlement
from tests.support.builders.chain import (
    BASE_SCORE,
    Driver,
    build_chain,
    get_balances,
    make_reveal,
    make_scores,
    make_update,
)


def scored(driver: Driver, words: dict[int, ScoreReveal]) -> ChainState:
    """The state before settlement, in which these miners have revealed these scores."""
    reveals = tuple(
        RevealedScores(
            driver.chain.miners[i].address,
            word.base_score,
            tuple(score for _, score in word.scores),
            tuple(score for _, score in word.aggregates),
        )
        for i, word in sorted(words.items())
    )
    return replace(driver.state, round=replace(driver.state.round, score_reveals=reveals))


@pytest.fixture
def driver() -> Driver:
    """A chain whose first round waits for its scores; the model does not get worse by any update."""
    made = Driver(build_chain())
    made.go_to(Phase.SETTLE)
    return made


# ---------------------------------------------------------------------------------------------- median


@pytest.mark.parametrize(
    ("values", "median"),
    [
        (((5, 1),), 5),
        (((1, 1), (2, 1)), 1),
        (((1, 1), (2, 1), (3, 1)), 2),
        (((3, 1), (1, 1), (2, 1)), 2),
        (((1, 1), (2, 1), (3, 1), (4, 1)), 2),
        (((0, 10), (7, 11)), 7),
        (((0, 10), (7, 10)), 0),
        (((0, 49), (5, 1), (9, 50)), 5),
        (((0, 49), (9, 51)), 9),
    ],
)
def test_weighted_medians(values: tuple[tuple[int, int], ...], median: int) -> None:
    """The median is the least value with half the weight at or below it, in whatever order the values come."""
    assert compute_weighted_median(values) == median
    assert compute_weighted_median(values[::-1]) == median


def test_the_median_of_nothing() -> None:
    """No values have no median, and neither have weights below zero."""
    for values in ((), ((1, -1),)):
        with pytest.raises(ValueError, match=r"median|weights"):
            compute_weighted_median(values)


# ------------------------------------------------------------------------------------------ acceptance


@pytest.mark.parametrize("liar", range(4))
@pytest.mark.parametrize("lie", [(10_000, 0), (0, 10_000), (0, 0), (10_000, 10_000)])
def test_one_liar_of_four_changes_no_acceptance(driver: Driver, liar: int, lie: tuple[int, int]) -> None:
    """One scorer of four, whatever it says, neither saves the bad update nor sinks the good ones."""
    bad = driver.chain.devices[0].address
    honest = make_scores(driver.state, scores={bad: 1_000})
    lying = make_scores(driver.state, lie[0], {d.address: lie[1] for d in driver.chain.devices})
    words = {i: lying if i == liar else honest for i in range(4)}
    expected = tuple(device.address for device in driver.chain.devices[1:])
    assert compute_settlement(scored(driver, words)).accepted == expected


def test_a_validator_that_is_also_a_device_is_heard_on_its_own_update(driver: Driver) -> None:
    """A device may bond and be elected. Without its word a quarter of the power would be half of the others who spoke,
    and decide about its update alone: a validator's word counts, whosever the update is."""
    both, honest = driver.chain.miners[0].address, make_scores(driver.state)
    lying = make_scores(driver.state, scores={device.address: 0 for device in driver.chain.devices})
    state = scored(driver, {0: honest, 1: lying, 2: honest})
    own = replace(state.round.reveals[0], sender=both)
    said = tuple(replace(r, scores=r.scores[:1]) for r in state.round.score_reveals)
    state = replace(state, round=replace(state.round, reveals=(own,), score_reveals=said))
    assert compute_settlement(state).accepted == (both,)


def test_lies_of_half_the_power_do_change_it() -> None:
    """The bound is sharp: with more than half of the power the liar decides."""
    made = Driver(build_chain(powers=[10, 10, 10, 31]))
    made.go_to(Phase.SETTLE)
    strong = next(i for i, v in enumerate(made.state.validators) if v.power == 31)
    lying = make_scores(made.state, scores={d.address: 0 for d in made.chain.devices})
    words = {i: lying if i == strong else make_scores(made.state) for i in range(4)}
    assert compute_settlement(scored(made, words)).accepted == ()


def test_a_lone_miner_judges_its_own_devices() -> None:
    """With one miner there is nobody else to score, so its own word counts."""
    made = Driver(build_chain(miners=1))
    made.run_round(scores={made.chain.devices[0].address: 0})
    assert get_balances(made.state, made.chain.devices) == [0, 100, 100]


def test_the_margin_is_exact(driver: Driver) -> None:
    """An update exactly the margin below the base model's score is accepted; one basis point lower is not."""
    margin, device = driver.state.params.score_margin_bp, driver.chain.devices[0].address
    for score, is_accepted in ((BASE_SCORE - margin, True), (BASE_SCORE - margin - 1, False)):
        words = {i: make_scores(driver.state, scores={device: score}) for i in range(4)}
        assert (device in compute_settlement(scored(driver, words)).accepted) is is_accepted


def test_scores_of_too_few_decide_nothing(driver: Driver) -> None:
    """Scores of up to two thirds of the power accept no update, pay nothing and judge nobody."""
    for count in range(3):
        state = scored(driver, {i: make_scores(driver.state) for i in range(count)})
        assert compute_settlement(state).accepted == ()
        after = process_settlement(state, compute_settlement(state))
        assert after.minted == driver.chain.state.minted
        assert [d.reputation for d in after.devices] == [REPUTATION_START] * 3
        assert [(v.knowledge, v.absent) for v in after.validators] == [(KNOWLEDGE_START, 0)] * 4
    assert compute_settlement(scored(driver, {i: make_scores(driver.state) for i in range(3)})).accepted != ()


# ---------------------------------------------------------------------------------------------- effects


def test_a_garbage_update_is_neither_used_nor_paid() -> None:
    """An update of enormous steps that scores 0 leaves the model as if it had not come, and earns nothing."""
    good, attacked = Driver(build_chain()), Driver(build_chain())
    good.run_round([1, 2])
    attacked.open()
    reveals = {i: make_reveal(attacked.chain, i) for i in (1, 2)}
    reveals[0] = make_reveal(attacked.chain, 0, samples=1_000, update=make_update(attacked.chain, 0, 1, size=1_000.0))
    attacked.commit(reveals)
    attacked.reveal(reveals)
    attacker = attacked.chain.devices[0].address
    words = {i: make_scores(attacked.state, scores={attacker: 0}) for i in range(4)}
    attacked.score_commit(words)
    attacked.score_reveal(words)
    assert attacked.state.model_hash == good.state.model_hash != attacked.chain.state.model_hash
    device = find_device(attacked.state, attacker)
    assert device is not None
    assert (device.reputation < REPUTATION_START, device.absent) == (True, 0)
    assert get_balances(attacked.state, attacked.chain.devices) == [0, 100, 100]


def test_claimed_samples_are_capped() -> None:
    """A device that claims more rows than the cap weighs as much as one that claims the cap."""
    models = []
    for samples in (1_000, 2**20 - 1):
        made = Driver(build_chain())
        made.open()
        reveals = {i: make_reveal(made.chain, i, samples=samples if i == 0 else 10) for i in range(3)}
        made.commit(reveals)
        made.reveal(reveals)
        words = {i: make_scores(made.state) for i in range(4)}
        made.score_commit(words)
        made.score_reveal(words)
        models.append(made.state.model_hash)
    assert models[0] == models[1]


def test_nothing_accepted_leaves_the_model(driver: Driver) -> None:
    """With no update accepted the model is the same and the round goes on to the next."""
    words = {i: make_scores(driver.state, scores={d.address: 0 for d in driver.chain.devices}) for i in range(4)}
    state = scored(driver, words)
    assert compute_settlement(state) == Settlement(())
    after = process_settlement(state, Settlement(()))
    assert after.model_hash == driver.chain.state.model_hash
    assert (after.round.number, after.round.phase) == (2, Phase.COMMIT)
    assert after.minted == driver.chain.state.minted
    before = driver.state
    fields = (before.params, before.model, before.carried, before.round.reveals, ())
    assert compute_step(*fields, chain=before.chain, number=Round(1)).model is before.model


def test_knowledge_follows_the_others_scores(driver: Driver) -> None:
    """Knowledge is the others' median for the aggregate of a miner's devices; with none in the round it halves, but
    never to 0."""
    homes = {device.home for device in driver.state.devices}
    assert len(homes) == 3
    words = {i: make_scores(driver.state, scores={home: 6_900 for home in homes}) for i in range(4)}
    after = process_settlement(scored(driver, words), compute_settlement(scored(driver, words)))
    for validator in after.validators:
        assert validator.knowledge == (6_900 if validator.address in homes else KNOWLEDGE_START // 2)
    poor = tuple(replace(c, knowledge=BasisPoints(1)) for c in driver.state.candidates)
    zero = {i: make_scores(driver.state, scores={home: 0 for home in homes}) for i in range(4)}
    state = replace(driver.state, candidates=poor, round=scored(driver, zero).round)
    assert {v.knowledge for v in process_settlement(state, Settlement(())).validators} == {KNOWLEDGE_MIN}


def test_a_scorer_that_is_silent_is_absent(driver: Driver) -> None:
    """A miner without scores in a settled round counts one absence more; one that scored counts none."""
    state = scored(driver, {i: make_scores(driver.state) for i in range(3)})
    after = process_settlement(state, compute_settlement(state))
    assert [v.absent for v in after.validators] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("before", "accepted", "refused"),
    [
        (0, 1_000, 0),
        (4, 1_003, 4),
        (5, 1_004, 4),
        (5_000, 5_500, 4_000),
        (9_000, 9_100, 7_200),
        (9_990, 9_991, 7_992),
        (9_991, 9_991, 7_993),
        (10_000, 10_000, 8_000),
    ],
)
def test_reputation_rises_by_a_tenth_of_what_is_missing_and_falls_by_a_fifth(
    before: int, accepted: int, refused: int
) -> None:
    """Both steps are rounded down, so that reputation never leaves 0 to 10,000: it comes to rest at 9,991 and at 4."""
    assert compute_reputation(BasisPoints(before), True) == accepted
    assert compute_reputation(BasisPoints(before), False) == refused


@pytest.mark.parametrize("rule", REWARD_RULES)
def test_a_purse_is_shared_as_its_rule_says(rule: str) -> None:
    """Four updates of 1, 7, 1,000 and 3 samples, 100 each: the same for all, or 400 * samples / 1,011 rounded down."""
    expected = {"per-update": (100, 100, 100, 100), "by-samples": (0, 2, 395, 1)}[rule]
    accepted = tuple((Address(bytes((i,)) * 20), samples) for i, samples in enumerate((1, 7, 1_000, 3)))
    rewards = REWARD_RULES[rule](accepted, 100)
    assert rewards == {address: paid for (address, _), paid in zip(accepted, expected, strict=True)}
    assert REWARD_RULES[rule]((), 100) == {}
