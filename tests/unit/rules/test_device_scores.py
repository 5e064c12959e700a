"""Devices that mine, by the rules of the chain: who waits for them and how long, what they earn, and who cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flchain.base.errors import BadCommitment
from flchain.incentives import compute_reputation
from flchain.ledger.snapshot import decode_state, encode_state
from flchain.ledger.state import REPUTATION_START, Device, find_device
from flchain.rules.phases import get_expected
from flchain.rules.score_words import build_score_commit
from flchain.wire.envelope import seal
from flchain.wire.messages import Phase, ScoreReveal
from tests.support.builders.chain import (
    Driver,
    build_chain,
    get_balances,
    make_reveal,
    make_scores,
    seal_score_commit,
    seal_score_commit_of,
    seal_score_reveal,
)
from tests.support.chain_checks import phase_of

PURSE = 10_000
LIMIT = 2
"""`absent_rounds_max` here."""


def build(**changes: Any) -> Driver:
    """A chain of 4 miners and 3 devices that waits for the commitments of its first round."""
    rules: dict[str, Any] = {"absent_rounds_max": LIMIT, "phase_heights_max": 2, "epoch_rounds": 100}
    made = Driver(build_chain(reward_for_scores=PURSE, reward_per_update=0, **rules | changes))
    made.open()
    return made


def go_to_score(driver: Driver, pledged: tuple[int, ...] = (0,)) -> None:
    number = driver.state.round.number
    reveals = {i: make_reveal(driver.chain, i, number) for i in range(3)}
    driver.commit(reveals, pledged)
    driver.reveal(reveals)
    assert phase_of(driver) is Phase.SCORE


def score_commit(driver: Driver, devices: Mapping[int, ScoreReveal]) -> None:
    """A block with all validators' commitments and those of these devices."""
    chain, word = driver.chain, make_scores(driver.state)
    own = [seal_score_commit_of(chain, chain.devices[i], said) for i, said in devices.items()]
    driver.extend([*(seal_score_commit(chain, i, word) for i in range(4)), *own])


def score_reveal(driver: Driver, devices: Mapping[int, ScoreReveal]) -> None:
    """A block with all validators' scores and those of these devices."""
    chain, word = driver.chain, make_scores(driver.state)
    own = [seal(said, chain.id, chain.devices[i]) for i, said in devices.items()]
    driver.extend([*(seal_score_reveal(chain, i, word) for i in range(4)), *own])


def get_device(driver: Driver, number: int) -> Device:
    found = find_device(driver.state, driver.chain.devices[number].address)
    assert found is not None
    return found


def get_awaited_devices(driver: Driver) -> set[int]:
    addresses = [device.address for device in driver.chain.devices]
    return {addresses.index(a) for a in get_expected(driver.state) if a in addresses}


def get_paid(driver: Driver, number: int) -> int:
    return get_balances(driver.state, driver.chain.devices[number : number + 1])[0]


# -------------------------------------------------------------------------------------------- the wait


def test_a_round_waits_for_the_scores_of_who_has_pledged_them() -> None:
    """All validators are in and the phase stays open for the device that said it will score; not for the others."""
    driver = build()
    go_to_score(driver, pledged=(1,))
    assert get_awaited_devices(driver) == {1}
    score_commit(driver, {})
    assert phase_of(driver) is Phase.SCORE
    said = make_scores(driver.state)
    driver.extend([seal_score_commit_of(driver.chain, driver.chain.devices[1], said)])
    assert phase_of(driver) is Phase.SETTLE
    assert get_awaited_devices(driver) == {1}, "who has committed is to open"


def test_without_a_pledge_nobody_waits_and_scores_still_count() -> None:
    """The phase closes with the validators; a device that was quick enough is in, and is then waited for."""
    driver = build()
    go_to_score(driver, pledged=())
    assert get_awaited_devices(driver) == set()
    said = make_scores(driver.state)
    score_commit(driver, {2: said})
    assert phase_of(driver) is Phase.SETTLE
    assert get_awaited_devices(driver) == {2}
    score_reveal(driver, {2: said})
    assert driver.state.round.number == 2 and get_paid(driver, 2) > 0


def test_a_device_that_dies_before_it_opens_its_scores_holds_up_a_round_for_two_heights() -> None:
    """SETTLE closes without it when its heights are used up; a dead device pledges nothing, so that was all."""
    driver = build()
    go_to_score(driver)
    score_commit(driver, {0: make_scores(driver.state)})
    before = driver.state.height
    score_reveal(driver, {})
    driver.extend()
    assert (driver.state.round.number, driver.state.height) == (2, before + 2)
    assert get_device(driver, 0).unscored == 1
    go_to_score(driver, pledged=())
    assert get_awaited_devices(driver) == set()


@pytest.mark.parametrize("is_committing", [False, True])
def test_who_pledges_and_never_scores_is_soon_not_waited_for(is_committing: bool) -> None:
    """After the allowed rounds neither SCORE nor SETTLE waits, until the next election; its pledges change nothing."""
    driver = build(epoch_rounds=LIMIT + 2)
    for round_ in range(1, LIMIT + 3):
        go_to_score(driver)
        is_awaited = round_ <= LIMIT
        assert (get_awaited_devices(driver) == {0}) is is_awaited
        score_commit(driver, {0: make_scores(driver.state)} if is_committing else {})
        while phase_of(driver) is Phase.SCORE:
            driver.extend()
        assert (get_awaited_devices(driver) == {0}) is (is_awaited and is_committing)
        score_reveal(driver, {})
        while phase_of(driver) is Phase.SETTLE:
            assert is_awaited
            driver.extend()
    assert get_device(driver, 0).unscored == 0, "the election of this round forgives"
    go_to_score(driver)
    assert get_awaited_devices(driver) == {0}


def test_who_scores_now_and_then_is_waited_for_in_vain_no_more_often() -> None:
    """Scores in between make up for nothing: otherwise a liar that scores every other round holds up half."""
    driver, vain = build(epoch_rounds=10), []
    for round_ in range(1, 10):
        go_to_score(driver)
        said, is_lying = make_scores(driver.state), round_ % 2 == 1
        if is_lying and get_awaited_devices(driver):
            vain.append(round_)
        score_commit(driver, {} if is_lying else {0: said})
        while phase_of(driver) is Phase.SCORE:
            driver.extend()
        score_reveal(driver, {} if is_lying else {0: said})
        while phase_of(driver) is Phase.SETTLE:
            driver.extend()
    assert vain == [1, 3]


def test_where_scores_of_devices_weigh_nothing_nobody_waits_for_them() -> None:
    """A pledge on a chain without mining would hold up SCORE for scores that count for nothing; so would a commitment
    SETTLE."""
    driver = build(mining_weight_bp=0)
    go_to_score(driver)
    assert get_awaited_devices(driver) == set()
    score_commit(driver, {0: make_scores(driver.state)})
    assert phase_of(driver) is Phase.SETTLE
    assert get_awaited_devices(driver) == set()


def test_nobody_is_blamed_for_a_round_that_validators_did_not_score() -> None:
    """An abandoned round says nothing about a device that had no chance."""
    driver = build()
    go_to_score(driver)
    while driver.state.round.number == 1:
        driver.extend()
    assert get_device(driver, 0).unscored == 0


def test_pledges_are_part_of_the_state() -> None:
    """A miner that takes a whole state knows who has pledged and who has failed."""
    driver = build()
    go_to_score(driver)
    score_commit(driver, {})
    driver.extend()
    score_reveal(driver, {})
    go_to_score(driver, pledged=(0, 2))
    state = driver.state
    found = decode_state(encode_state(state), driver.blocks[-1].header_bytes, state.params, 10**6)
    assert found.round.pledges == state.round.pledges and len(found.round.pledges) == 2
    assert found.devices == state.devices and get_device(driver, 0).unscored == 1
    for other in (
        replace(state, round=replace(state.round, pledges=())),
        replace(state, devices=tuple(replace(device, unscored=0) for device in state.devices)),
    ):
        assert encode_state(other) != encode_state(state)


# --------------------------------------------------------------------------------------------- the pay


def test_who_scores_honestly_earns_and_an_outlier_does_not() -> None:
    """The honest device is paid its share of the devices' part; the one far off gets nothing and falls."""
    driver = build()
    go_to_score(driver, pledged=(0, 1))
    honest = make_scores(driver.state)
    scores = {update.sender: 0 for update in driver.state.round.reveals}
    liar = make_scores(driver.state, scores=scores | dict.fromkeys((a for a, _ in honest.aggregates), 0))
    score_commit(driver, {0: honest, 1: liar})
    score_reveal(driver, {0: honest, 1: liar})
    # The devices' part is 1/11 of the purse, a tenth of what validators weigh; two share it and are half trusted.
    assert get_paid(driver, 0) == PURSE // 11 // 2 // 2
    assert get_paid(driver, 1) == 0
    risen = compute_reputation(REPUTATION_START, True)
    assert get_device(driver, 0).reputation == risen
    assert get_device(driver, 1).reputation == compute_reputation(risen, False)


def test_a_device_cannot_sell_anothers_scores() -> None:
    """A copied commitment is in the block, since nobody can tell, and cannot be opened: the address is part of it."""
    driver = build()
    go_to_score(driver, pledged=(0, 1))
    chain, said = driver.chain, make_scores(driver.state)
    # The thief signs the honest device's commitment as its own.
    copied = seal(build_score_commit(chain.id, chain.devices[0].address, said), chain.id, chain.devices[1])
    honest = seal_score_commit_of(chain, chain.devices[0], said)
    driver.extend([*(seal_score_commit(chain, i, said) for i in range(4)), honest, copied])
    assert phase_of(driver) is Phase.SETTLE
    with pytest.raises(BadCommitment):
        score_reveal(driver, {1: said})
    score_reveal(driver, {0: said})
    driver.extend()
    assert driver.state.round.number == 2
    assert get_paid(driver, 0) > 0 and get_paid(driver, 1) == 0


def test_scores_seen_in_the_open_come_too_late() -> None:
    """Who waits for the others' scores to be opened has no commitment to open: its copy is refused."""
    driver = build()
    go_to_score(driver, pledged=())
    said = make_scores(driver.state)
    score_commit(driver, {0: said})
    with pytest.raises(BadCommitment):
        score_reveal(driver, {0: said, 1: said})
