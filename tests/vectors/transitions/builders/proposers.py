"""Vectors of turns to propose: by each rule from a state, how priorities move on, and the arithmetic on numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flchain.ledger.state import ChainState
from tests.vectors.transitions.builders.elections import ADDRESSES
from tests.vectors.transitions.builders.phases import set_powers
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.story import Story
from tests.vectors.transitions.world import MINERS, WORLD, with_candidate, with_params

VIEWS = 24
RULES = ("pok", "poq", "pos")


def build(to: Recorder) -> None:
    """All vectors of proposers."""
    for rule in RULES:
        before = with_params(WORLD, proposer_rule=rule)
        claim = "Turns are weighted by the agreed rule."
        to.add(f"turns, {rule}", claim, "propose", before, views=VIEWS)
        story = Story(to, before)
        for i in range(3):
            story.block(f"moved on, {rule}, {i + 1}", "With each block priorities move on by one turn.")
        for floor in (999, 1_000, 1_001):
            low = with_candidate(set_priorities(before, (0,) * 7), MINERS[0], knowledge=floor)
            claim = "Knowledge counts as a tenth of all at least."
            to.add(f"turns, {rule}, knowledge {floor}", claim, "propose", low, views=VIEWS)
            Story(to, low).block(f"moved on, {rule}, knowledge {floor}", claim)
        even = set_powers(set_priorities(before, (0,) * 7), (5, 5, 5, 5, 0, 0, 5))
        claim = "A tie goes to the lowest address."
        to.add(f"turns, {rule}, even", claim, "propose", set_knowledge(even, 5_000), views=VIEWS)
    far = set_powers(set_priorities(WORLD, (10**9, -(10**9), 77, -3, 0, 0, 5)), (7, 5, 3, 3, 0, 0, 2))
    Story(to, far).block("moved on, far apart", "Priorities far apart are drawn together.")
    to.add("turns, far apart", "Then all lead again.", "propose", far, views=VIEWS)
    _build_functions(to)


def set_priorities(before: ChainState, priorities: Sequence[int]) -> ChainState:
    """The state in which the miners have these priorities."""
    for key, priority in zip(MINERS, priorities, strict=True):
        before = with_candidate(before, key, priority=priority)
    return before


def set_knowledge(before: ChainState, knowledge: int) -> ChainState:
    """The state in which all miners have this knowledge."""
    for key in MINERS:
        before = with_candidate(before, key, knowledge=knowledge)
    return before


def _build_functions(to: Recorder) -> None:
    def ask(name: str, claim: str, *arguments: Any) -> None:
        to.add(name, claim, "call", function="advance", arguments=arguments)

    a, b, c, d = ADDRESSES[1:5]
    weights = ((a, 3), (b, 5), (c, 7))
    ask("advance, from nothing", "At the first call all are equal.", (), weights, 1)
    known = ((a, 4), (b, -1), (c, -3))
    for steps in (1, 2, 3, 15):
        ask(f"advance, {steps} steps", "The highest leads and pays the total.", known, weights, steps)
    ask("advance, in any order", "The order of weights plays no part.", known, weights[::-1], 2)
    ask("advance, a tie", "Equal: the lowest address leads.", ((a, 2), (b, 0), (c, -2)), weights, 1)
    claim = "A newcomer starts an eighth more than the total behind."
    for total in (15, 16, 17, 24):
        ask(f"advance, newcomer at {total}", claim, ((a, 1), (b, -1)), ((a, 3), (b, 5), (d, total - 8)), 1)
    ask("advance, one leaves", "Who left is forgotten.", ((a, 9), (b, -4), (c, -5)), ((a, 3), (c, 7)), 1)
    claim = "Those more than twice the total apart are drawn together, towards zero."
    for high, low in ((15, -15), (15, -16), (16, -15), (101, -7), (7, -101), (-3, -64), (1_000, 999)):
        ask(f"advance, {high} and {low}", claim, ((a, high), (b, low), (c, 0)), weights, 1)
    claim = "The average is taken off, rounded down."
    for shift in (-2, -1, 0, 1, 2):
        ask(f"advance, average {shift}", claim, ((a, 4 + shift), (b, -1), (c, -3)), weights, 1)
    ask("advance, alone", "One alone leads always.", ((a, 5),), ((a, 9),), 3)
    for name in ("compute_pok_weight", "compute_pos_weight", "compute_poq_weight"):
        for power, knowledge in ((7, 0), (7, 999), (7, 1_000), (7, 1_001), (11, 10_000)):
            claim = "A weight is what the rule makes of power and knowledge."
            arguments = (power, knowledge)
            to.add(f"{name}, {power}, {knowledge}", claim, "call", function=name, arguments=arguments)
