"""The light client against an adversary with old keys: it never leaves the real chain, and finds home afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from flchain.base.errors import UntrustedValidators
from flchain.light import trust
from flchain.wire.envelope import SETS_BYTES_MAX, decode_struct
from tests.support.light.adversary import (
    FAULTS,
    ROUNDS,
    SET_CHOICES,
    TRUSTING_S,
    VARIANTS,
    Body,
    Clock,
    Forge,
    Game,
    Honest,
    Light,
    Move,
    Payloads,
    Snapshot,
    Violation,
    build_turning_chain,
    count_changes,
)

HEIGHTS = st.integers(1, 45)
NUMBERS = st.integers(1, ROUNDS)
EDGE_MS = TRUSTING_S * 1_000
MOVES: st.SearchStrategy[Move] = st.one_of(
    st.builds(Honest, HEIGHTS),
    st.builds(Honest, HEIGHTS, st.none() | HEIGHTS, st.none() | st.just(0) | HEIGHTS, st.booleans()),
    st.builds(Honest, HEIGHTS, is_following_forged=st.just(True)),
    HEIGHTS.map(lambda height: Snapshot(height, height, height)),
    st.builds(Snapshot, HEIGHTS, HEIGHTS, st.none() | HEIGHTS),
    NUMBERS.flatmap(lambda first: st.builds(Payloads, HEIGHTS, st.just(first), st.just(first), NUMBERS)),
    st.builds(Payloads, HEIGHTS, NUMBERS, st.integers(-1, ROUNDS + 1), NUMBERS, st.none() | st.integers(0, ROUNDS)),
    st.builds(Light, HEIGHTS, NUMBERS, st.none() | NUMBERS),
    st.builds(Body, HEIGHTS, st.none() | HEIGHTS),
    st.builds(Clock, st.sampled_from((-(10**12), -1, 0, EDGE_MS, EDGE_MS + 1, 10**12)) | st.integers(0, 2 * EDGE_MS)),
    st.builds(
        Forge,
        base=HEIGHTS,
        ahead=st.integers(-3, 6) | st.integers(1, 10**6),
        late_ms=st.sampled_from((1, 10**6, 10**12)) | st.integers(-10, 10),
        signing=st.integers(0, SET_CHOICES - 1),
        following=st.integers(0, SET_CHOICES - 1),
        bought=st.integers(0, 4),
        fault=st.sampled_from(FAULTS),
        as_snapshot=st.booleans(),
        extends=st.booleans(),
    ),
    # Nothing amiss but the keys, so that a rule which trusts them is found out soon.
    st.builds(
        Forge,
        base=HEIGHTS,
        ahead=st.integers(1, 6),
        late_ms=st.integers(1, 9),
        signing=st.integers(0, SET_CHOICES - 1),
        following=st.just(0),
        bought=st.integers(0, 4),
    ),
)
PLANS = st.tuples(st.integers(0, VARIANTS - 1), st.booleans(), st.lists(MOVES, max_size=20))
Plan = tuple[int, bool, list[Move]]
"""The chain, whether the device is a full one, and what it hears."""


@pytest.mark.parametrize("variant", range(VARIANTS))
def test_the_chains_turn_over(variant: int) -> None:
    """What the property is about: several changes of validators, and nearly nobody of the first set left."""
    driver = build_turning_chain(variant)
    assert count_changes(driver) >= 4
    first, last = ({v.address for v in driver.states[i].validators} for i in (0, -1))
    assert len(first & last) < len(first)


@settings(max_examples=150)
@given(PLANS)
def test_old_keys_lead_nobody_astray(plan: Plan) -> None:
    """After every move the device stands at a real header with its real validators and a real model, nothing but an
    InvalidMessage is raised, and an honest miner brings it to the newest header."""
    variant, is_full, moves = plan
    game = Game(build_turning_chain(variant), is_full=is_full)
    game.play(moves)
    game.come_home()


# ------------------------------------------------------------------------------------ the checker can fail


def search(is_bounded: bool, examples: int = 1_500) -> Plan:
    """A plan that leads a device astray. Raises NoSuchExample if none is found."""

    def is_violated(plan: Plan) -> bool:
        try:
            Game(build_turning_chain(plan[0]), is_bounded, plan[1]).play(plan[2])
        except Violation:
            return True
        return False

    quick = settings(max_examples=examples, phases=[Phase.generate], database=None, derandomize=True)
    return find(PLANS, is_violated, settings=quick)


def test_more_than_a_third_of_the_trusted_power_does_lead_astray() -> None:
    """The bound is the right one: with the least that is more than a third, the adversary wins."""
    with pytest.raises(Violation):
        game = Game(build_turning_chain(0), is_bounded=False)
        game.play([Forge(base=1, ahead=2, late_ms=1, signing=0, following=0, bought=0)])
    assert search(is_bounded=False)


def skip_age(known: trust.Trust, clock_ms: int) -> None:
    """Mutant: trust never grows old."""


def trust_anybody(known: trust.Trust, header: Any, signing: Any, certificate: Any) -> None:
    """Mutant: a skip needs no trusted signer."""


def trust_a_tenth(known: trust.Trust, header: Any, signing: Any, certificate: Any) -> None:
    """Mutant: a tenth of the trusted power is enough to skip."""
    signers = {signing[index].address for index, _ in certificate.signatures}
    power = sum(v.power for v in known.validators if v.address in signers)
    if 10 * power <= sum(v.power for v in known.validators):
        raise UntrustedValidators("too few")


def count_all_members(known: trust.Trust, header: Any, signing: Any, certificate: Any) -> None:
    """Mutant: who is in the set counts, whether it signed or not."""
    members = {validator.address for validator in signing}
    power = sum(v.power for v in known.validators if v.address in members)
    if 3 * power <= sum(v.power for v in known.validators):
        raise UntrustedValidators("too few")


def read_without_hash(header: Any, sets: bytes) -> Any:
    """Mutant: the sets beside a header need not be those that it names."""
    listed = decode_struct(sets, tuple[trust.Listed, trust.Listed], SETS_BYTES_MAX)
    return tuple(trust._read(each) for each in listed)


MUTANTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "trust never grows old": ("_check_age", skip_age),
    "no overlap is needed": ("_check_overlap", trust_anybody),
    "a tenth is enough": ("_check_overlap", trust_a_tenth),
    "members count without signing": ("_check_overlap", count_all_members),
    "sets are not those of the header": ("decode_sets", read_without_hash),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_weaker_rule_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way of trusting too much lets an adversary within the bound win, and the search finds it."""
    monkeypatch.setattr(trust, *MUTANTS[name])
    assert search(is_bounded=True)


def test_the_search_finds_nothing_in_the_rules_as_they_are() -> None:
    """The same search, the same number of plans, no mutant: nothing."""
    with pytest.raises(NoSuchExample):
        search(is_bounded=True, examples=150)
