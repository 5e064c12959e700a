"""Validator sets that change: at an epoch's end, at once on jailing, with the headers and the proposers that follow."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from flchain.base.errors import BadCertificate
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Address, View
from flchain.ledger.snapshot import build_carried_proof
from flchain.ledger.state import build_genesis_state, compute_validators_hash, find_candidate
from flchain.light.follow import build_light_state, process_head, process_snapshot
from flchain.light.trust import verify_final
from flchain.rules.blocks import apply_block, get_proposer
from flchain.wire.messages import Delegate, Phase, Register, Undelegate, Unjail
from tests.support.builders.chain import NO_CLOCK, BuiltChain
from tests.support.builders.stake import StakeDriver, accuse, build_stake_chain, register

EPOCH = 2
CHAIN = build_stake_chain(epoch_rounds=EPOCH, seats=4, powers=[10, 20, 30, 40], jail_rounds=3)
NEW = CHAIN.holders[0]


def start(chain: BuiltChain = CHAIN) -> StakeDriver:
    return StakeDriver(chain)


def get_seats(driver: StakeDriver) -> set[Address]:
    return {validator.address for validator in driver.state.validators}


def check_headers(driver: StakeDriver) -> None:
    """Each header names the set that signs it and the set that signs the next, and those are the states' own."""
    for before, after, block in zip(driver.states, driver.states[1:], driver.blocks, strict=False):
        assert block.header.validators_hash == compute_validators_hash(before.validators)
        assert block.header.next_validators_hash == compute_validators_hash(after.validators)


def test_a_richer_candidate_takes_a_seat_when_the_epoch_ends_and_not_before() -> None:
    """Registered in round 1, it sits from the block on that settles round 2; the one with the least stake leaves."""
    driver = start()
    driver.order(NEW, Register, 0, 25)
    poorest = CHAIN.miners[0].address
    driver.run_round()
    assert NEW.address not in get_seats(driver) and poorest in get_seats(driver)
    driver.run_round()
    assert NEW.address in get_seats(driver) and poorest not in get_seats(driver)
    last = driver.blocks[-1].header
    assert last.validators_hash != last.next_validators_hash
    assert last.next_round == 3
    check_headers(driver)


def test_rounds_go_on_through_many_changes() -> None:
    """Seats won and lost every epoch: no round is lost, whoever sits scores and signs, and a replay agrees."""
    driver = start()
    driver.order(NEW, Register, 0, 100)
    driver.order(CHAIN.holders[1], Register, 0, 50)
    poor, richest = CHAIN.miners[1], CHAIN.miners[3]
    for number in range(1, 4 * EPOCH + 1):
        if number == EPOCH + 1:
            driver.order(richest, Undelegate, richest.address, 40)
            driver.order(NEW, Delegate, poor.address, 100)
        assert driver.run_round() == number
    assert get_seats(driver) == {NEW.address, CHAIN.holders[1].address, poor.address, CHAIN.miners[2].address}
    check_headers(driver)
    assert len({block.header.validators_hash for block in driver.blocks}) == 3
    state = build_genesis_state(CHAIN.genesis, CHAIN.model)
    for block in driver.blocks:
        _, state = apply_block(state, block.header_bytes, block.body_bytes)
    assert state.validators == driver.state.validators


def test_leaving_is_to_undelegate_and_wait() -> None:
    """One that takes its bond back keeps seat and duty until the epoch ends, and is no candidate once it is paid."""
    chain = build_stake_chain(epoch_rounds=EPOCH, powers=[10, 20, 30, 40], devices=2)
    driver = start(chain)
    leaver = chain.miners[3]
    driver.order(leaver, Undelegate, leaver.address, 40)
    driver.run_round()
    assert leaver.address in get_seats(driver)
    driver.run_round()
    assert leaver.address not in get_seats(driver)
    assert find_candidate(driver.state, leaver.address) is not None
    due = driver.state.unbondings[0].due_ms
    assert due is not None
    driver.go_to(Phase.SETTLE)
    driver.extend(clock_ms=due)
    driver.finish_round()
    assert find_candidate(driver.state, leaver.address) is None
    assert driver.state.accounts_by_address[leaver.address].balance == 40


def test_stake_is_at_risk_as_long_as_its_seat_is_trusted() -> None:
    """However long an epoch lasts, what is taken back in it is paid out no sooner than the delay after its end."""
    driver = start()
    leaver = CHAIN.miners[3]
    driver.order(leaver, Undelegate, leaver.address, 40)
    driver.extend(clock_ms=5 * CHAIN.genesis.params.unbonding_s * 1_000)
    driver.run_round()
    assert leaver.address in get_seats(driver) and [u.amount for u in driver.state.unbondings] == [40]
    driver.run_round()
    due = driver.state.time_ms + CHAIN.genesis.params.unbonding_s * 1_000
    assert leaver.address not in get_seats(driver) and [u.due_ms for u in driver.state.unbondings] == [due]


def test_jailing_takes_the_seat_with_the_very_block() -> None:
    """The block with the evidence is signed by the old set and names the new one; the guilty signs no block after."""
    driver = start()
    guilty = CHAIN.miners[2]
    driver.open()
    driver.extend(orders=[accuse(driver.state, NEW, guilty)])
    header = driver.blocks[-1].header
    assert header.validators_hash == compute_validators_hash(driver.states[-2].validators)
    assert header.next_validators_hash == compute_validators_hash(driver.state.validators) != header.validators_hash
    assert guilty.address not in get_seats(driver)
    for _ in range(EPOCH):
        driver.run_round()
    assert guilty.address not in get_seats(driver), "an election does not free it"
    check_headers(driver)


def test_after_jail_a_seat_comes_with_the_next_election() -> None:
    """The request alone gives no seat; the end of the epoch does, with the power of the stake that is left."""
    driver = start()
    guilty = CHAIN.miners[3]
    driver.extend(orders=[accuse(driver.state, NEW, guilty)])
    for _ in range(3):
        driver.run_round()
    driver.order(guilty, Unjail)
    assert guilty.address not in get_seats(driver)
    driver.run_round()
    assert {v.address: v.power for v in driver.state.validators}[guilty.address] == 38


def test_a_change_that_changes_nobody_keeps_the_hash() -> None:
    """An epoch that re-elects all with the same powers has the same set, and light clients nothing to follow."""
    driver = start()
    for _ in range(EPOCH):
        driver.run_round()
    assert len({block.header.next_validators_hash for block in driver.blocks}) == 1


def test_stake_moves_power_at_the_epoch_only() -> None:
    """Delegation in mid-epoch changes no power before the election, so that a height has one set from begin to end."""
    driver = start()
    driver.order(NEW, Delegate, CHAIN.miners[0].address, 500)
    assert [v.power for v in driver.state.validators] == [10, 20, 30, 40]
    for _ in range(EPOCH):
        driver.run_round()
    assert [v.power for v in driver.state.validators] == [510, 20, 30, 40]


# ------------------------------------------------------------------------------------------- proposers


def lead(driver: StakeDriver, blocks: int) -> Counter[Address]:
    """Who leads view 0 over so many blocks of orders alone."""
    led: Counter[Address] = Counter()
    for _ in range(blocks):
        led[get_proposer(driver.state, View(0))] += 1
        driver.extend()
    return led


def test_who_has_lost_its_seat_never_leads_and_has_no_priority() -> None:
    """From the block on that takes the seat no view is led by it, and its priority is 0 like everybody's outside."""
    driver = start()
    guilty = CHAIN.miners[3]
    driver.open()
    driver.extend(orders=[accuse(driver.state, NEW, guilty)])
    leaders = {get_proposer(driver.state, View(view)) for view in range(20)}
    assert leaders == get_seats(driver)
    found = find_candidate(driver.state, guilty.address)
    assert found is not None and found.priority == 0
    lead(driver, 5)


def test_a_newcomer_does_not_lead_at_once_but_gets_its_share() -> None:
    """A new validator starts behind the others, so that coming and going gains no turns, and then leads by its
    weight."""
    chain = build_stake_chain(epoch_rounds=1, powers=[100] * 4, proposer_rule="pos")
    driver = start(chain)
    new = chain.holders[0]
    driver.extend(orders=[register(driver.state, new, 100)])
    driver.run_round()
    assert new.address in get_seats(driver)
    assert get_proposer(driver.state, View(0)) != new.address
    led = lead(driver, 50)
    assert sum(led.values()) == 50
    assert 8 <= led[new.address] <= 10
    assert all(9 <= led[m.address] <= 12 for m in chain.miners[:4])


def test_every_block_has_one_leader_that_sits() -> None:
    """Through elections and jailing the leader of each view is a validator of that very height."""
    driver = start()
    driver.order(NEW, Register, 0, 100)
    for _ in range(2 * EPOCH):
        driver.run_round()
    for before, block in zip(driver.states, driver.blocks, strict=False):
        assert block.header.proposer in {v.address for v in before.validators}


def test_a_device_takes_the_model_of_the_very_header_that_changes_the_validators() -> None:
    """Before the next block, which may need that device, its newest header's model comes with this header again."""
    driver = start()
    driver.order(NEW, Register, 0, 100)
    driver.run_round()
    driver.run_round()
    top = len(driver.blocks)
    assert driver.states[top - 1].validators != driver.state.validators
    light = process_head(build_light_state(CHAIN.genesis, CHAIN.model), driver.get_head(top), NO_CLOCK)
    assert not light.is_synced
    light = process_snapshot(
        light, driver.get_head(top), encode_vector(driver.state.model), build_carried_proof(driver.state), NO_CLOCK
    )
    assert light.is_synced
    head = replace(driver.get_head(top), certificate=driver.certificates[top - 2])
    with pytest.raises(BadCertificate):  # another miner keeps what it was sent with it
        verify_final(light.trust, head, NO_CLOCK)
