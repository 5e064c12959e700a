"""Who leads: weighted round-robin."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.types import Address, Power, View
from flchain.consensus import PROPOSER_RULES
from flchain.consensus.proposer import KNOWLEDGE_FLOOR_BP, Priorities, Weights, advance, compute_proposer


def name(number: int) -> Address:
    return Address(bytes([number]) * 20)


def weigh(*weights: int) -> Weights:
    return tuple((name(number), weight) for number, weight in enumerate(weights))


def list_turns(weights: Weights, turns: int, priorities: Priorities = ()) -> list[int]:
    leaders = []
    for _ in range(turns):
        priorities, leader = advance(priorities, weights, 1)
        leaders.append(leader[0])
    return leaders


weight_sets = st.lists(st.integers(1, 10**12), min_size=1, max_size=9).map(lambda weights: weigh(*weights))
any_priorities = st.dictionaries(st.integers(0, 12).map(name), st.integers(-(10**15), 10**15)).map(
    lambda standing: tuple(sorted(standing.items()))
)


def test_turns_of_the_weights_1_and_3() -> None:
    """Worked by hand: the heavy one leads three turns of four; the light one wins the tie of the second."""
    assert list_turns(weigh(1, 3), 8) == [1, 0, 1, 1, 1, 0, 1, 1]


def test_equal_weights_take_turns_by_address() -> None:
    """With equal weights the tie rule, lowest address first, makes it plain round-robin."""
    assert list_turns(weigh(5, 5, 5), 6) == [0, 1, 2, 0, 1, 2]


@given(weights=weight_sets, turns=st.integers(1, 200))
def test_everyone_gets_its_share(weights: Weights, turns: int) -> None:
    """After any number of turns nobody has led a whole turn more than its share, nor two turns less."""
    total = sum(weight for _, weight in weights)
    led = Counter(list_turns(weights, turns))
    for address, weight in weights:
        surplus = led[address[0]] * total - turns * weight
        assert -2 * total < surplus < total


@given(weights=st.lists(st.integers(1, 20), min_size=1, max_size=6).map(lambda weights: weigh(*weights)))
def test_a_whole_cycle_is_exact(weights: Weights) -> None:
    """Over as many turns as the total weight each leads exactly as often as its weight says, and the cycle closes."""
    total = sum(weight for _, weight in weights)
    priorities, _ = advance((), weights, total)
    assert Counter(list_turns(weights, total)) == {address[0]: weight for address, weight in weights}
    assert all(priority == 0 for _, priority in priorities)


@given(priorities=any_priorities, weights=weight_sets, steps=st.integers(1, 30))
def test_priorities_stay_bounded_when_the_set_changes(priorities: Priorities, weights: Weights, steps: int) -> None:
    """Whatever an earlier set left, what comes out is of this set and within 3 times its total weight."""
    total = sum(weight for _, weight in weights)
    after, leader = advance(priorities, weights, steps)
    assert [address for address, _ in after] == sorted(address for address, _ in weights)
    assert leader in dict(weights)
    assert all(abs(priority) <= 3 * total for _, priority in after)


@given(weights=weight_sets, first=st.integers(1, 20), second=st.integers(1, 20))
def test_steps_add_up(weights: Weights, first: int, second: int) -> None:
    """Advancing by a then b is advancing by a + b, so that replay block by block agrees with a jump."""
    assert advance(advance((), weights, first)[0], weights, second) == advance((), weights, first + second)


@given(weights=weight_sets, view=st.integers(0, 40))
def test_order_of_the_weights_is_irrelevant(weights: Weights, view: int) -> None:
    """The proposer of a view does not depend on the order in which the weights are listed."""
    assert compute_proposer((), weights, View(view)) == compute_proposer((), weights[::-1], View(view))


def test_leaving_and_coming_back_gains_no_turn() -> None:
    """A validator that leaves after its turn and comes back waits longer than one that stayed."""
    both = weigh(1, 1, 1, 1)
    stayed, _ = advance((), both, 1)
    away, _ = advance(stayed, both[1:], 1)
    back = list_turns(both, 12, away)
    assert back.index(0) >= 4


@pytest.mark.parametrize("knowledge", [0, 1, KNOWLEDGE_FLOOR_BP, 10_000])
def test_nobody_is_weightless(knowledge: int) -> None:
    """By either rule a validator without knowledge leads in the end: a chain led by one alone stops with it."""
    assert all(rule(Power(1), knowledge) > 0 for rule in PROPOSER_RULES.values())


def test_pok_follows_knowledge_and_pos_does_not() -> None:
    """Twice the knowledge is twice the turns under pok; under pos only power counts."""
    pok, pos = PROPOSER_RULES["pok"], PROPOSER_RULES["pos"]
    assert pok(Power(3), 8_000) == 2 * pok(Power(3), 4_000)
    assert pos(Power(3), 8_000) == pos(Power(3), 4_000) == 3


def test_poq_follows_quality_alone() -> None:
    """Under poq twice the quality is twice the turns, and a hundred times the stake brings none."""
    poq = PROPOSER_RULES["poq"]
    assert poq(Power(3), 8_000) == 2 * poq(Power(3), 4_000) == poq(Power(300), 8_000)
    assert poq(Power(3), 0) == KNOWLEDGE_FLOOR_BP


def test_one_crashed_leader_cannot_hold_up_a_height_for_long() -> None:
    """The best of 4 or 7 equal powers, all the others without knowledge, leads at most 7 views in a row."""
    for others in (3, 6):
        pok = PROPOSER_RULES["pok"]
        weights = weigh(pok(Power(1), 10_000), *[pok(Power(1), 0)] * others)
        leaders = list_turns(weights, 200)
        breaks = [-1, *(turn for turn, leader in enumerate(leaders) if leader != 0)]
        assert max(later - earlier - 1 for earlier, later in pairwise(breaks)) <= 7
