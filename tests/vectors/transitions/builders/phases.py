"""Vectors of phases: whom each waits for, and when it is over. States and answers only; blocks close them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flchain.base.crypto import Identity
from flchain.ledger.state import ChainState, RevealedScores, RevealedUpdate
from flchain.wire.messages import Phase
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    BOTH,
    DEVICES,
    MINERS,
    STRANGER,
    WORLD,
    with_candidate,
    with_device,
    with_params,
    with_round,
)

OP = "describe_phase"
HEIGHTS_MAX = 3
"""As in the world's parameters."""


def build(to: Recorder) -> None:
    """All vectors of phases."""
    _build_absences(to)
    _build_opening(to)
    _build_commit_phase(to)
    _build_reveal_phase(to)
    _build_score_phase(to)
    _build_settle_phase(to)
    _build_quorums(to)


def set_absent(before: ChainState, absences: Sequence[int]) -> ChainState:
    """The state in which the first devices have been absent so often."""
    for key, absent in zip(DEVICES, absences, strict=False):
        before = with_device(before, key, absent=absent)
    return before


def set_powers(before: ChainState, powers: Sequence[int]) -> ChainState:
    """The state in which the miners have these powers, in order of address."""
    for key, power in zip(MINERS, powers, strict=True):
        before = with_candidate(before, key, power=power)
    return before


def enter(before: ChainState, phase: Phase, present: Sequence[Identity] = (), **more: Any) -> ChainState:
    """The state in a phase in which these have done their part."""
    addresses = sorted(key.address for key in present)
    done: dict[Phase, dict[str, Any]] = {
        Phase.OPEN: {},
        Phase.COMMIT: {"commits": tuple((a, b"c" * 32) for a in addresses)},
        Phase.REVEAL: {"reveals": tuple(RevealedUpdate(a, 3, b"u") for a in addresses)},
        Phase.SCORE: {"score_commits": tuple((a, b"s" * 32) for a in addresses)},
        Phase.SETTLE: {"score_reveals": tuple(RevealedScores(a, 5, (), ()) for a in addresses)},
    }
    return with_round(before, phase=phase, **(done[phase] | more))


def _list_commits(*keys: Identity) -> Any:
    return tuple(sorted((key.address, b"c" * 32) for key in keys))


def _build_absences(to: Recorder) -> None:
    claim = "A device is awaited until it is absent for long, and again each time its absence doubles."
    for limit in (1, 2, 3, 4, 7):
        for first in (0, 8, 16, 24, 56):
            before = set_absent(with_params(WORLD, absent_rounds_max=limit), range(first, first + 8))
            name = f"absence, limit {limit}, from {first} on"
            to.add(name, claim, OP, enter(before, Phase.COMMIT))


def _build_opening(to: Recorder) -> None:
    to.add("open", "The first block of all waits for nobody.", OP, with_round(WORLD, phase=Phase.OPEN))
    late = with_round(WORLD, phase=Phase.OPEN, heights=99)
    to.add("open, late", "It settles nothing, whatever its heights.", OP, late)


def _build_commit_phase(to: Recorder) -> None:
    usual = [key for i, key in enumerate(DEVICES) if i != 5]
    presents: dict[str, list[Identity]] = {
        "nobody": [],
        "one": [DEVICES[0]],
        "only the unusual": [DEVICES[5]],
        "all but one": usual[:-1],
        "the usual": usual,
        "all": list(DEVICES),
    }
    for name, present in presents.items():
        for heights in (HEIGHTS_MAX - 1, HEIGHTS_MAX, 2 * HEIGHTS_MAX):
            claim = "One commitment is enough once all usual devices are there or the heights are used up."
            before = enter(WORLD, Phase.COMMIT, present, heights=heights)
            to.add(f"commit, {name}, {heights} heights", claim, OP, before)
    gone = set_absent(WORLD, [5] * 8)
    claim = "Where all are long absent, nobody is awaited, and the phase goes on to its last height."
    for heights in (HEIGHTS_MAX - 1, HEIGHTS_MAX):
        before = enter(gone, Phase.COMMIT, [DEVICES[2]], heights=heights)
        to.add(f"commit, all long absent, {heights} heights", claim, OP, before)


def _build_reveal_phase(to: Recorder) -> None:
    commits = _list_commits(DEVICES[0], DEVICES[3], DEVICES[5])
    presents: dict[str, list[Identity]] = {
        "nobody": [],
        "one": [DEVICES[0]],
        "the usual": [DEVICES[0], DEVICES[3]],
        "all": [DEVICES[0], DEVICES[3], DEVICES[5]],
    }
    for name, present in presents.items():
        for heights in (HEIGHTS_MAX - 1, HEIGHTS_MAX, 2 * HEIGHTS_MAX - 1, 2 * HEIGHTS_MAX):
            claim = "Of those who committed the usual ones are awaited; a round without updates is given up late."
            before = enter(WORLD, Phase.REVEAL, present, commits=commits, heights=heights)
            to.add(f"reveal, {name}, {heights} heights", claim, OP, before)
    claim = "If only long absent devices have committed, all of them are awaited."
    unusual = set_absent(WORLD, [0, 5, 5, 6, 7, 9])
    for name, present in (("none yet", []), ("one", [DEVICES[1]]), ("both", [DEVICES[1], DEVICES[3]])):
        before = enter(unusual, Phase.REVEAL, present, commits=_list_commits(DEVICES[1], DEVICES[3]), heights=1)
        to.add(f"reveal, unusual, {name}", claim, OP, before)


def _build_score_phase(to: Recorder) -> None:
    """The world's validators have been absent 0, 1, 2, 3 and 0 rounds; device 5 is one with an absence of its own."""
    pledges = tuple(sorted(key.address for key in (DEVICES[0], DEVICES[2], DEVICES[3], BOTH)))
    scoring = enter(WORLD, Phase.SCORE, pledges=pledges, heights=1)
    to.add("score, all awaited", "Validators and pledged devices are awaited.", OP, scoring)
    for limit in (1, 2, 3, 5):
        claim = "Scorers that failed too often are not awaited, unless too few validators would be left."
        before = with_params(scoring, absent_rounds_max=limit)
        to.add(f"score, limit {limit}", claim, OP, before)
    unpaid = with_params(scoring, mining_weight_bp=0)
    to.add("score, devices without weight", "Devices whose scores weigh nothing are not awaited.", OP, unpaid)
    for unscored in (3, 4, 5):
        claim = "A device that failed to score too often in this epoch is not awaited."
        before = with_device(scoring, DEVICES[0], unscored=unscored)
        to.add(f"score, {unscored} times without", claim, OP, before)
    lone = with_round(scoring, pledges=(STRANGER.address,))
    to.add("score, pledge of nobody", "A pledge of no device counts for nothing.", OP, lone)
    absent = with_candidate(scoring, MINERS[0], absent=4)
    claim = "Without the absent ones a quorum is left."
    to.add("score, one absent", claim, OP, with_candidate(absent, MINERS[3], absent=9))
    absent = with_candidate(absent, MINERS[1], absent=4)
    to.add("score, two absent", "Without them none is left: all are awaited.", OP, absent)


def _build_settle_phase(to: Recorder) -> None:
    commits = tuple(sorted((key.address, b"s" * 32) for key in (*MINERS[:4], DEVICES[0], DEVICES[3], DEVICES[6])))
    before = enter(WORLD, Phase.SETTLE, score_commits=commits, heights=1)
    to.add("settle, all awaited", "Those who committed to scores are awaited.", OP, before)
    claim = "Of these, those that usually fail are not, unless the others are too few."
    for limit in (1, 2, 3):
        to.add(f"settle, limit {limit}", claim, OP, with_params(before, absent_rounds_max=limit))
    lost = with_candidate(before, MINERS[2], power=0)
    to.add("settle, a seat lost", "A validator that lost its seat is not awaited.", OP, lost)
    few = with_round(before, score_commits=commits[:2])
    to.add("settle, too few committed", "Few commitments are awaited even if too few.", OP, few)


def _build_quorums(to: Recorder) -> None:
    """Powers 6, 5, 4, 3, 0, 0, 3: of 21 more than 14 are needed."""
    world = set_powers(WORLD, (6, 5, 4, 3, 0, 0, 3))
    commits = tuple(sorted((key.address, b"s" * 32) for key in (*MINERS, DEVICES[0])))
    presents = {
        "14 of 21": [MINERS[0], MINERS[1], MINERS[3]],
        "15 of 21": [MINERS[0], MINERS[1], MINERS[2]],
        "15 of 21 and a device": [MINERS[0], MINERS[1], MINERS[2], DEVICES[0]],
        "18 of 21": [MINERS[0], MINERS[1], MINERS[2], MINERS[3]],
        "all": [MINERS[0], MINERS[1], MINERS[2], MINERS[3], BOTH],
        "all and a device": [*MINERS[:4], BOTH, DEVICES[0]],
        "devices alone": [DEVICES[0], DEVICES[1]],
        "nobody": [],
    }
    claim = "More than two thirds of the power close a phase of scores; a round without them is given up late."
    for phase in (Phase.SCORE, Phase.SETTLE):
        for name, present in presents.items():
            for heights in (2, 3, 5, 6):
                more = {} if phase is Phase.SCORE else {"score_commits": commits}
                pledges = (DEVICES[0].address,)
                before = enter(world, phase, present, heights=heights, pledges=pledges, **more)
                to.add(f"quorum, {phase.name}, {name}, {heights} heights", claim, OP, before)
