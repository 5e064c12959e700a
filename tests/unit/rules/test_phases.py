"""The chain's rounds: from commitment to settlement, and when each phase closes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flchain.base.types import View
from flchain.ledger.state import ChainState, build_genesis_state, find_device, get_owned
from flchain.ledger.state_tree import compute_state_root
from flchain.rules.blocks import apply_block, get_proposer
from flchain.rules.phases import get_expected, is_phase_over
from flchain.wire.messages import Phase
from tests.support.builders.chain import Driver, build_chain, get_balances, make_reveal, make_scores
from tests.support.chain_checks import open_chain, phase_of


@pytest.fixture
def driver() -> Driver:
    """A chain that waits for the commitments of its first round."""
    return open_chain()


def replay(driver: Driver) -> ChainState:
    state = build_genesis_state(driver.chain.genesis, driver.chain.model)
    for block in driver.blocks:
        _, state = apply_block(state, block.header_bytes, block.body_bytes)
    return state


# ------------------------------------------------------------------------------------------------ rounds


@pytest.mark.parametrize("codec", ["sparse-ternary", "identity"])
def test_a_full_round(codec: str) -> None:
    """A round goes through its four phases, changes the model, pays each accepted update and opens the next round."""
    driver = Driver(build_chain(codec=codec))
    driver.run_round()
    assert [block.header.phase for block in driver.blocks] == list(Phase)
    assert [block.header.next_phase for block in driver.blocks] == [*list(Phase)[1:], Phase.COMMIT]
    assert [block.header.round for block in driver.blocks] == [1] * 5
    last = driver.blocks[-1].header
    assert (last.next_round, last.model_hash) == (2, driver.state.model_hash)
    assert driver.state.model_hash != driver.chain.state.model_hash
    assert get_balances(driver.state, driver.chain.devices) == [100, 100, 100]
    assert driver.state.minted == driver.chain.state.minted + 300


def test_replay_gives_the_same_root() -> None:
    """A node that replays the blocks from the genesis has the same state root, model and head after each of them."""
    driver = Driver(build_chain())
    for devices in (None, [0], [1, 2]):
        driver.run_round(devices)
    again = replay(driver)
    assert compute_state_root(again) == compute_state_root(driver.state) == driver.blocks[-1].header.state_root
    assert again.head == driver.state.head == driver.blocks[-1].hash
    assert again.model.tolist() == driver.state.model.tolist()


@pytest.mark.parametrize("rule", ["pok", "pos"])
@pytest.mark.parametrize("reward", ["per-update", "by-samples"])
def test_balances_conserve(rule: str, reward: str) -> None:
    """Whatever the rules, all balances together are exactly what was minted."""
    driver = Driver(build_chain(proposer_rule=rule, reward_rule=reward, reward_per_update=101))
    for devices in (None, [0, 2], [1]):
        driver.run_round(devices)
        assert get_owned(driver.state) == driver.state.minted > driver.chain.state.minted


def test_proposers_take_turns(driver: Driver) -> None:
    """Of equal miners everybody's turn comes over heights and over views, by the state alone."""
    driver = Driver(build_chain(proposer_rule="pos"))
    leaders = []
    for _ in range(8):
        leaders.append(get_proposer(driver.state, View(0)))
        driver.extend()
    miners = {miner.address for miner in driver.chain.miners}
    assert set(leaders[:4]) == set(leaders[4:]) == miners
    assert {get_proposer(driver.state, View(view)) for view in range(4)} == miners
    assert get_proposer(driver.state, View(1)) == get_proposer(driver.states[-1], View(1))


# ---------------------------------------------------------------------------------------- phases closing


def test_a_phase_waits_for_a_first_commitment(driver: Driver) -> None:
    """Without any commitment the phase stays open however many blocks pass."""
    for _ in range(6):
        driver.extend()
    assert phase_of(driver) is Phase.COMMIT
    assert driver.state.round.number == 1


def test_a_phase_closes_when_all_have_come() -> None:
    """Commitments may come over several blocks; the phase closes with the last one's block, and no sooner."""
    driver = Driver(build_chain(phase_heights_max=5))
    driver.open()
    for number in range(3):
        assert phase_of(driver) is Phase.COMMIT
        driver.commit({number: make_reveal(driver.chain, number)})
    assert phase_of(driver) is Phase.REVEAL


def test_a_phase_closes_after_its_heights_without_the_missing(driver: Driver) -> None:
    """With one commitment only, the phase closes once its heights are used up, and waits for that device alone."""
    driver.commit({0: make_reveal(driver.chain, 0)})
    assert phase_of(driver) is Phase.COMMIT
    assert not is_phase_over(driver.state)
    driver.extend()
    assert phase_of(driver) is Phase.REVEAL
    assert get_expected(driver.state) == {driver.chain.devices[0].address}


def test_scorers_need_more_than_two_thirds() -> None:
    """The scoring phase does not close with half of the power while its heights last; it does with three quarters."""
    driver = Driver(build_chain(phase_heights_max=2))
    driver.go_to(Phase.SCORE)
    word = make_scores(driver.state)
    driver.score_commit({0: word, 1: word})
    for _ in range(2):
        driver.extend()
    assert phase_of(driver) is Phase.SCORE
    driver.score_commit({2: word})
    assert phase_of(driver) is Phase.SETTLE


def test_a_round_that_too_few_score_is_abandoned() -> None:
    """With half of the power silent for twice the phase's heights the next round opens on the same model, unpaid."""
    driver = Driver(build_chain(phase_heights_max=2))
    driver.go_to(Phase.SCORE)
    before = driver.state
    driver.score_commit({0: make_scores(before), 1: make_scores(before)})
    while driver.state.round.number == before.round.number:
        assert driver.state.height < before.height + 4, "abandoned after twice its two heights"
        driver.extend()
    assert phase_of(driver) is Phase.COMMIT
    assert (driver.state.model_hash, driver.state.minted) == (before.model_hash, before.minted)


def test_late_devices_are_not_waited_for() -> None:
    """A device that missed the allowed rounds is not waited for, may come back, and is then waited for again."""
    driver = Driver(build_chain(absent_rounds_max=2, phase_heights_max=3))
    for absent in (1, 2):
        driver.run_round([0, 1])
        device = find_device(driver.state, driver.chain.devices[2].address)
        assert device is not None
        assert device.absent == absent
    assert get_expected(driver.state) == {driver.chain.devices[0].address, driver.chain.devices[1].address}
    number, height = driver.state.round.number, driver.state.height
    driver.commit({i: make_reveal(driver.chain, i, number) for i in (0, 1)})
    assert (driver.state.round.phase, driver.state.height) == (Phase.REVEAL, height + 1)
    driver.reveal({i: make_reveal(driver.chain, i, number) for i in (0, 1)})
    words = {i: make_scores(driver.state) for i in range(4)}
    driver.score_commit(words)
    driver.score_reveal(words)
    driver.run_round()
    assert len(get_expected(driver.state)) == 3


def test_a_device_that_commits_and_never_reveals_is_soon_not_waited_for() -> None:
    """After the allowed rounds REVEAL waits for the others only; alone in the phase, it is waited for."""
    driver = Driver(build_chain(absent_rounds_max=2, phase_heights_max=2))
    driver.go_to(Phase.COMMIT)
    others = {driver.chain.devices[0].address, driver.chain.devices[1].address}
    for round_ in (1, 2, 3):
        driver.commit({i: make_reveal(driver.chain, i, round_) for i in range(3)})
        assert phase_of(driver) is Phase.REVEAL
        assert (get_expected(driver.state) == others) is (round_ == 3)
        driver.reveal({i: make_reveal(driver.chain, i, round_) for i in (0, 1)})
        while phase_of(driver) is Phase.REVEAL:
            assert round_ < 3, "the third round waits for nobody who never comes"
            driver.extend()
        words = {i: make_scores(driver.state) for i in range(4)}
        driver.score_commit(words)
        driver.score_reveal(words)


def test_a_device_that_was_long_absent_has_its_chance_again_and_again() -> None:
    """Each time its absence has doubled a round waits for it: a slow device comes back, a dead one costs ever less."""
    driver = Driver(build_chain(absent_rounds_max=3))
    slow = driver.chain.devices[2]
    waited = []
    for _ in range(30):
        driver.go_to(Phase.COMMIT)
        absent = driver.state.devices_by_address[slow.address].absent
        if slow.address in get_expected(driver.state):
            waited.append(absent)
        driver.run_round([0, 1])
    assert waited == [0, 1, 2, 6, 12, 24]
    driver.run_round()
    assert slow.address in get_expected(driver.state)


def test_a_validator_that_commits_and_never_opens_its_scores_is_soon_not_waited_for() -> None:
    """After the allowed rounds SETTLE waits for the others only, as REVEAL does; else one liar holds up every round."""
    driver = Driver(build_chain(absent_rounds_max=2, phase_heights_max=2))
    for round_ in (1, 2, 3):
        driver.go_to(Phase.SETTLE)
        word = make_scores(driver.state)
        driver.score_reveal({i: word for i in (0, 1, 2)})
        is_waiting = phase_of(driver) is Phase.SETTLE
        assert is_waiting is (round_ < 3)
        while phase_of(driver) is Phase.SETTLE:
            driver.extend()


def test_all_validators_are_awaited_where_the_usual_ones_are_too_few(driver: Driver) -> None:
    """After an election most seats may be those of candidates that were absent when they had one before: blocks that
    wait for the few others only would use up the heights at once, and every round would be abandoned."""
    driver.go_to(Phase.SCORE)
    awaited = get_expected(driver.state)
    assert len(awaited) == 4
    candidates = tuple(replace(c, absent=9 * (i < 2)) for i, c in enumerate(driver.state.candidates))
    assert get_expected(replace(driver.state, candidates=candidates)) == awaited


def test_a_round_without_updates_is_abandoned() -> None:
    """If nobody reveals, the round ends after twice its heights with the same model and balances."""
    driver = Driver(build_chain())
    driver.run_round()
    before = driver.state
    driver.go_to(Phase.REVEAL)
    for _ in range(2 * driver.state.params.phase_heights_max):
        assert driver.state.round.number == 2
        driver.extend()
    after = driver.state
    assert (after.round.number, after.round.phase) == (3, Phase.COMMIT)
    assert (after.model_hash, after.minted) == (before.model_hash, before.minted)
    assert after.accounts == before.accounts
    assert [d.absent for d in after.devices] == [1, 1, 1]
    driver.run_round()
    assert driver.state.minted == before.minted + 300


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_round_with_too_few_scores_is_abandoned(count: int) -> None:
    """If scores of at most two thirds of the power are revealed, the round ends without model, reward or judgement."""
    driver = Driver(build_chain())
    driver.go_to(Phase.SETTLE)
    if count:
        driver.score_reveal({i: make_scores(driver.state) for i in range(count)})
    while driver.state.round.number == 1:
        driver.extend()
    assert driver.state.model_hash == driver.chain.state.model_hash
    assert driver.state.minted == driver.chain.state.minted
    assert driver.state.devices == driver.chain.state.devices
    assert [v.knowledge for v in driver.state.validators] == [v.knowledge for v in driver.chain.state.validators]
