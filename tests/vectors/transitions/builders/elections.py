"""Vectors of elections and of stake on its way back: who is seated with what power, what is paid out, who is forgotten.

Powers and shares of money alone are here too: the functions of delegated proof of stake on numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flchain.ledger.state import ChainState, Unbonding
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    BOTH,
    DEVICES,
    HOLDERS,
    MINERS,
    TIME_MS,
    WORLD,
    untyped,
    with_candidate,
    with_params,
)

BOND_MIN = 811
"""As in the world's parameters."""
ADDRESSES = tuple(bytes((i,)) * 20 for i in range(9))


def build(to: Recorder) -> None:
    """All vectors of elections and maturing."""
    _build_elections(to)
    _build_maturing(to)
    _build_functions(to)


def set_bonds(before: ChainState, bonds: Sequence[int]) -> ChainState:
    """The state in which nothing but these bonds of the miners is delegated; none where 0."""
    kept = {(d.delegator, d.candidate): d for d in before.delegations}
    own = [kept[key.address, key.address] for key in MINERS]
    rows = tuple(replace(row, amount=untyped(bond)) for row, bond in zip(own, bonds, strict=True) if bond)
    return replace(before, delegations=rows)


def _build_elections(to: Recorder) -> None:
    op = "elect"
    to.add("elect, in the world", "Stake, delegated and own, gives capped power.", op, WORLD)
    for seats in (1, 2, 3, 4, 6, 64):
        claim = "The seats go to those with the most stake behind them; the others have no power."
        to.add(f"elect, {seats} seats", claim, op, with_params(WORLD, seats=seats))
    for cap in (1, 1_666, 1_667, 2_000, 2_001, 2_500, 3_333, 3_334, 5_001, 10_000):
        claim = "No power is above the cap; where the cap cannot hold, all are equal."
        to.add(f"elect, cap {cap}", claim, op, with_params(WORLD, power_cap_bp=cap))
    free = with_candidate(WORLD, MINERS[5], is_jailed=False)
    to.add("elect, out of jail", "A candidate that left jail is elected again.", op, with_params(free, seats=6))
    early = with_candidate(WORLD, MINERS[0], jailed_until=99)
    to.add("elect, not in jail", "A time without jail keeps nobody out.", op, early)
    for bond in (BOND_MIN - 1, BOND_MIN):
        claim = "Without a bond of its own, whatever stands behind it, nobody is elected."
        rows = (
            replace(d, amount=untyped(bond)) if d.delegator == d.candidate == MINERS[1].address else d
            for d in WORLD.delegations
        )
        to.add(f"elect, bond {bond}", claim, op, replace(WORLD, delegations=tuple(rows)))
    tie = set_bonds(with_params(WORLD, seats=3), (900, 950, 900, 900, 900, 9_999, 900))
    to.add("elect, equal stakes", "Of equal stakes the lower address comes first.", op, tie)
    reverse = set_bonds(with_params(WORLD, seats=2), (811, 811, 811, 811, 812, 811, 811))
    to.add("elect, equal but one", "One more is enough.", op, reverse)
    claim = "With nobody electable the seats stay as they are."
    to.add("elect, nobody", claim, op, set_bonds(WORLD, (810, 1, 2, 3, 0, 99_999, 5)))
    claim = "One that is electable is elected alone."
    to.add("elect, one alone", claim, op, set_bonds(WORLD, (810, 1, 2, 811, 0, 99_999, 5)))
    claim = "Large stakes are scaled down together, none to nothing."
    to.add("elect, large stakes", claim, op, set_bonds(WORLD, (2**41 + 7, 2**40 + 5, 2**39 + 3, 811, 0, 0, 2**38)))
    due = with_params(WORLD, unbonding_s=1)
    to.add("elect, short delay", "What waits begins its delay: a second is a thousand milliseconds.", op, due)


def _build_maturing(to: Recorder) -> None:
    op = "mature"
    a, b, c = (HOLDERS[i].address for i in (1, 0, 2))

    def wait(*rows: tuple[Any, int, int | None]) -> ChainState:
        listed = (Unbonding(owner, MINERS[2].address, untyped(amount), untyped(due)) for owner, amount, due in rows)
        return replace(WORLD, unbondings=tuple(listed))

    to.add("mature, nothing due", "What is not due waits.", op, WORLD)
    claim = "What is due is paid, once it is; the rest waits in its order."
    rows = ((a, 11, TIME_MS + 1), (b, 13, TIME_MS), (a, 17, TIME_MS - 1), (c, 19, None), (a, 23, TIME_MS), (b, 29, 0))
    to.add("mature, some", claim, op, wait(*rows))
    claim = "Candidates without seat, stake or devices are forgotten; any of these keeps one."
    bare = replace(
        WORLD, delegations=(), unbondings=(), devices=tuple(replace(d, home=MINERS[0].address) for d in WORLD.devices)
    )
    lost = with_candidate(with_candidate(bare, MINERS[0], power=0), MINERS[1], power=0)
    to.add("mature, forgotten", claim, op, lost)
    backed = replace(lost, delegations=tuple(d for d in WORLD.delegations if d.candidate == MINERS[1].address))
    to.add("mature, kept for stake", claim, op, backed)
    waiting = Unbonding(a, MINERS[1].address, untyped(31), untyped(TIME_MS + 1))
    to.add("mature, kept for stake that waits", claim, op, replace(lost, unbondings=(waiting,)))
    paid = replace(waiting, due_ms=untyped(TIME_MS))
    to.add("mature, forgotten once paid", claim, op, replace(lost, unbondings=(paid,)))
    delegated = replace(WORLD, delegations=WORLD.delegations[:1], unbondings=())
    to.add("mature, by delegator", "Having delegated keeps no candidate.", op, delegated)
    gone = replace(WORLD, unbondings=(Unbonding(BOTH.address, MINERS[0].address, untyped(5), untyped(1)),))
    to.add("mature, to a miner", "Miners are paid like all others.", op, gone)
    device = replace(WORLD, unbondings=(Unbonding(DEVICES[0].address, MINERS[0].address, untyped(5), untyped(1)),))
    to.add("mature, to a device", "So are devices.", op, device)


def _build_functions(to: Recorder) -> None:
    def ask(name: str, claim: str, function: str, *arguments: Any) -> None:
        to.add(name, claim, "call", function=function, arguments=arguments)

    for large in ((1, 2, 3), (2**40 - 1,), (2**39, 2**39 - 1), (2**39, 2**39), (2**41 + 1, 3, 5), (2**50, 2**49, 1)):
        claim = "Stakes whose sum takes more than 40 bits are halved until it does not."
        ask(f"scale, {large}", claim, "scale_stakes", large)
    lists = ((7,), (5, 5), (90, 5, 5), (50, 30, 20), (9, 9, 9, 1), (1, 1, 1, 1), (1_000, 999, 1, 1), (6, 5, 4, 3, 2))
    for stakes in lists:
        for cap in (1, 2_499, 2_500, 3_333, 3_334, 4_999, 5_000, 5_001, 9_999, 10_000):
            claim = "Powers are stakes, cut at the share of the sum of powers."
            ask(f"cap, {stakes} at {cap}", claim, "cap_powers", stakes, cap)
    ask("cap, nobody", "Of nobody nothing is cut.", "cap_powers", (), 3_000)
    a, b, c, d = ADDRESSES[1:5]
    for reward, commission in ((100, 1_000), (101, 999), (7, 10_000), (7, 0), (1, 3_333), (0, 5_000), (999_983, 1)):
        claim = "Commission first, the rest by stake; odd units go to the validator."
        for backers in (((b, 50), (c, 25), (d, 24)), ((a, 7), (b, 11), (b, 13)), ((a, 1),)):
            name = f"split, {reward} at {commission} among {len(backers)}, {backers[0][1]} first"
            ask(name, claim, "split_reward", reward, a, commission, backers)
    for amount, share in ((1, 1), (10_000, 1), (9_999, 1), (3, 3_333), (7, 10_000), (7, 0), (2**53, 577)):
        claim = "What is left is rounded down."
        ask(f"slash, {amount} by {share}", claim, "compute_slashed", amount, share)
    stakes_of = ((a, 5), (b, 9), (c, 5), (d, 5), (ADDRESSES[0], 5))
    for seats in range(1, 6):
        claim = "Most stake first, then the lower address; listed by address."
        ask(f"seats, {seats} of 5", claim, "elect", stakes_of, seats)
