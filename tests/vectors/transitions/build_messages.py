"""Vectors of the four kinds of transactions: who may send what, when, once, and what the round then holds."""

from __future__ import annotations

from typing import Any

from flchain.messages import Commit, Phase
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import DEVICES, MINERS, ROUND, STRANGER, WORLD, seal, with_round


def build(to: Recorder) -> None:
    """All vectors of transactions."""
    _build_commits(to)


def _hash(byte: int) -> Any:
    return bytes((byte,)) * 31 + b"!"


def _build_commits(to: Recorder) -> None:
    there = ((DEVICES[1].address, _hash(1)), (DEVICES[5].address, _hash(5)))
    some = with_round(WORLD, commits=there, pledges=(DEVICES[1].address, DEVICES[5].address), heights=1)
    first = seal(Commit(ROUND, _hash(3), False), DEVICES[3])
    to.add("commit, first", "A commitment opens the list.", "process_message", WORLD, raw=first)
    to.add("commit, in order", "A commitment takes its place by address.", "process_message", some, raw=first)
    pledged = seal(Commit(ROUND, _hash(3), True), DEVICES[3])
    to.add("commit, pledged", "A pledge takes its place by address too.", "process_message", some, raw=pledged)
    again = seal(Commit(ROUND, _hash(9), True), DEVICES[5])
    to.add("commit, twice", "Nobody commits twice.", "process_message", some, raw=again, error="duplicate")
    for name, number in (("last", ROUND - 1), ("next", ROUND + 1)):
        raw = seal(Commit(number, _hash(3), False), DEVICES[3])
        claim = f"A commitment to the {name} round is refused."
        to.add(f"commit, {name} round", claim, "process_message", WORLD, raw=raw, error="wrong-round")
    for name, key in (("stranger", STRANGER), ("miner", MINERS[0])):
        raw = seal(Commit(ROUND, _hash(3), False), key)
        to.add(f"commit, {name}", "Only devices commit.", "process_message", WORLD, raw=raw, error="unknown-sender")
    later = with_round(WORLD, phase=Phase.REVEAL)
    to.add("commit, too late", "The phase is over.", "process_message", later, raw=first, error="wrong-round")
