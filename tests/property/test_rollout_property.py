"""Rollouts of fleets that do what they like: never onto a sick tranche, always an end, and a halt is a halt."""

from __future__ import annotations

import dataclasses
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from flchain.base.types import Address
from flchain.wire.fleet import Health, Status, UpdateState
from tests.support.builders.wire import build_word
from tools.fleet.rollout import Candidate, Outcome, Plan, Rollout, Stage, begin, judge, step
from tools.fleet.roster import Board, Standing

STANDINGS = (Standing.WELL, Standing.STRAINED, Standing.SILENT, Standing.SICK, Standing.NEVER)


def build_some_board(chance: random.Random, address: Address) -> Board:
    """A board in any state whatever."""
    standing = chance.choice(STANDINGS)
    if standing is Standing.NEVER:
        return Board(address)
    status: Status = build_word(
        version=chance.choice(("0.1.0", "0.2.0", "")),
        health=chance.choice(list(Health)),
        release=chance.choice((0, 6, 7, 8)),
        update=chance.choice(list(UpdateState)),
    )
    return Board(address, status, 1.0, standing)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    shares = draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=6))
    soak_s = draw(st.integers(0, 50))
    return Plan(
        "0.2.0",
        tuple(sorted(shares)),
        soak_s=soak_s,
        health_min=draw(st.integers(1, 100)),
        patience_s=draw(st.integers(soak_s + 1, 100)),
    )


def count(rollout: Rollout, candidates: list[Candidate], low_bp: int, high_bp: int) -> dict[Outcome, int]:
    found = [judge(rollout, one) for one in candidates if low_bp <= one.place_bp < high_bp]
    return {outcome: found.count(outcome) for outcome in Outcome}


@settings(max_examples=300, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**32), boards=st.integers(0, 40), steps=st.integers(1, 60))
def test_a_rollout_advances_only_on_tranches_that_came_through(plan: Plan, seed: int, boards: int, steps: int) -> None:
    """At each step the share grows by one tranche at most, only if enough boards are updated and few enough failed."""
    chance = random.Random(seed)
    addresses = [Address(number.to_bytes(20, "big")) for number in range(boards)]
    places = {address: chance.randrange(10_000) for address in addresses}
    fresh = [Candidate(build_some_board(chance, address), places[address], True) for address in addresses]
    rollout = begin(plan, fresh, 0.0, 7)
    now_s = 0.0
    for _ in range(steps):
        now_s += chance.choice((0.0, 1.0, 10.0, 60.0))
        seen = [Candidate(build_some_board(chance, a), places[a], chance.random() < 0.9) for a in addresses]
        before, rollout = rollout, step(rollout, seen, now_s)
        assert before.tranche <= rollout.tranche <= before.tranche + 1
        if before.stage is not Stage.ROLLING:
            assert rollout == before
        if rollout.tranche > before.tranche or rollout.stage is Stage.DONE != before.stage:
            low_bp = before.shares_bp[before.tranche - 1] if before.tranche else 0
            for first in (0, low_bp):
                tally = count(before, seen, first, before.share_bp)
                judged = tally[Outcome.UPDATED] + tally[Outcome.FAILED] + tally[Outcome.PENDING]
                assert 100 * tally[Outcome.UPDATED] >= plan.health_min * judged
        if rollout.stage is Stage.HALTED:
            assert rollout.tranche == before.tranche and rollout.reason


@settings(max_examples=60, deadline=None)
@given(plan=plans(), seed=st.integers(0, 2**32), boards=st.integers(0, 12))
def test_every_rollout_ends(plan: Plan, seed: int, boards: int) -> None:
    """Whatever boards do, within patience and soak of each tranche it is done or halted."""
    chance = random.Random(seed)
    addresses = [Address(number.to_bytes(20, "big")) for number in range(boards)]
    places = {address: chance.randrange(10_000) for address in addresses}
    fresh = [Candidate(build_some_board(chance, address), places[address], True) for address in addresses]
    rollout = begin(plan, fresh, 0.0, 7)
    until_s = len(plan.tranches_bp) * (plan.patience_s + plan.soak_s + 2)
    for now_s in range(until_s + 1):
        seen = [Candidate(build_some_board(chance, a), places[a], True) for a in addresses]
        rollout = step(rollout, seen, float(now_s))
    assert rollout.stage in (Stage.DONE, Stage.HALTED)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), boards=st.integers(1, 60))
def test_a_good_version_reaches_every_board_of_a_well_fleet(seed: int, boards: int) -> None:
    """Boards that take the release and prove it end in DONE, all tranches through, without a halt."""
    chance = random.Random(seed)
    plan = Plan("0.2.0", (500, 2_500, 10_000), soak_s=10, patience_s=1_000)
    addresses = [Address(number.to_bytes(20, "big")) for number in range(boards)]
    places = {address: chance.randrange(10_000) for address in addresses}
    words = {address: build_word(version="0.1.0") for address in addresses}
    delays = {address: chance.randrange(1, 50) for address in addresses}

    def look() -> list[Candidate]:
        return [Candidate(Board(a, words[a], 1.0, Standing.WELL), places[a], True) for a in addresses]

    rollout = begin(plan, look(), 0.0, 7)
    for now_s in range(0, 400, 3):
        for address in addresses:
            if places[address] < rollout.share_bp and now_s - rollout.since_s >= delays[address]:
                words[address] = build_word(version="0.2.0", release=7, update=UpdateState.DONE)
        rollout = step(rollout, look(), float(now_s))
    assert rollout.stage is Stage.DONE
    assert all(word.version == "0.2.0" for word in words.values())


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), boards=st.integers(20, 200))
def test_a_bad_version_reaches_few_boards(seed: int, boards: int) -> None:
    """If each board that takes it goes back, no board beyond the first tranche that has any ever takes it."""
    chance = random.Random(seed)
    plan = Plan("0.2.0", (500, 2_500, 10_000), soak_s=10, patience_s=1_000)
    addresses = [Address(number.to_bytes(20, "big")) for number in range(boards)]
    places = {address: chance.randrange(10_000) for address in addresses}
    words = {address: build_word(version="0.1.0") for address in addresses}

    def look() -> list[Candidate]:
        return [Candidate(Board(a, words[a], 1.0, Standing.WELL), places[a], True) for a in addresses]

    rollout = begin(plan, look(), 0.0, 7)
    first = rollout.shares_bp[0]
    assert any(place < first for place in places.values())
    for now_s in range(100):
        for address in addresses:
            if places[address] < rollout.share_bp and rollout.stage is Stage.ROLLING and chance.random() < 0.2:
                words[address] = build_word(version="0.1.0", release=7, update=UpdateState.ROLLED_BACK)
        rollout = step(rollout, look(), float(now_s))
    assert rollout.stage is Stage.HALTED and rollout.share_bp == first
    touched = [address for address in addresses if words[address].update is UpdateState.ROLLED_BACK]
    assert touched and all(places[address] < first for address in touched)
    assert dataclasses.replace(rollout, reason="") == step(dataclasses.replace(rollout, reason=""), look(), 1e9)
