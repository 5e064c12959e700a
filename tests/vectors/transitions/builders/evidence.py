"""Vectors of evidence: what proves an offence, when it is too late or too early, and what the guilty lose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flchain.base.crypto import Identity
from flchain.ledger.state import ChainState
from flchain.wire.messages import Evidence, Proposal, Transfer, Vote
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import (
    BOTH,
    DEVICES,
    HEIGHT,
    HOLDERS,
    MINERS,
    STRANGER,
    WORLD,
    seal,
    untyped,
    with_account,
    with_candidate,
    with_params,
)

OP = "process_order"
ONE, OTHER = b"1" * 32, b"2" * 32
AGE_MAX = 37
"""As in the world's parameters."""
BAD, LATE = "bad-evidence", "wrong-round"


def build(to: Recorder) -> None:
    """All vectors of evidence."""
    _build_proofs(to)
    _build_times(to)
    _build_sentences(to)


def accuse(first: bytes, second: bytes, height: int = HEIGHT, key: Identity = HOLDERS[3]) -> bytes:
    """Signed evidence."""
    return seal(Evidence(height, first, second), key)


def vote(key: Identity, block: bytes | None, height: int = HEIGHT, view: int = 2, step: int = 1) -> bytes:
    """A signed vote."""
    return seal(Vote(height, view, step, block), key)


def accuse_of_two_votes(key: Identity, height: int = HEIGHT) -> bytes:
    """Evidence that a validator has signed two prevotes at a height."""
    return accuse(vote(key, ONE, height), vote(key, None, height), height)


def _build_proofs(to: Recorder) -> None:
    guilty = MINERS[0]

    def propose(block: bytes, view: int = 2, valid_view: int = -1) -> bytes:
        return seal(Proposal(HEIGHT, view, valid_view, block), guilty)

    proofs = {
        "two prevotes": (vote(guilty, ONE), vote(guilty, OTHER)),
        "in the other order": (vote(guilty, OTHER), vote(guilty, ONE)),
        "a prevote and nil": (vote(guilty, None), vote(guilty, ONE)),
        "two precommits": (vote(guilty, ONE, step=2), vote(guilty, None, step=2)),
        "two proposals": (propose(ONE), propose(OTHER)),
        "two proposals of one block": (propose(ONE), propose(ONE, valid_view=1)),
    }
    for name, (first, second) in proofs.items():
        claim = "Two words of one signer for one place are punished, whoever shows them."
        to.add(f"proof, {name}", claim, OP, WORLD, raw=accuse(first, second))
    by_itself = accuse(*proofs["two prevotes"], key=guilty)
    to.add("proof, by the guilty itself", "Nobody needs another to be punished.", OP, WORLD, raw=by_itself)
    poor = with_account(WORLD, HOLDERS[3], balance=0)
    to.add("proof, by a poor account", "Evidence costs nothing.", OP, poor, raw=accuse(*proofs["two prevotes"]))
    prevote = vote(guilty, ONE)
    transfers = [seal(Transfer(HEIGHT, HOLDERS[0].public_key, i), guilty) for i in (1, 2)]
    forged = vote(guilty, OTHER)
    posing = Identity(guilty.seed, guilty.public_key, MINERS[1].address)
    wrong = {
        "signed under another's name": (prevote, vote(posing, OTHER)),
        "the same vote twice": (prevote, prevote),
        "another view": (prevote, vote(guilty, OTHER, view=3)),
        "another step": (prevote, vote(guilty, OTHER, step=2)),
        "another height": (prevote, vote(guilty, OTHER, HEIGHT - 1)),
        "a vote and a proposal": (prevote, propose(OTHER)),
        "proposals of two views": (propose(ONE), propose(OTHER, view=3)),
        "another signer": (prevote, vote(MINERS[1], OTHER)),
        "signed by a device": (vote(DEVICES[0], ONE), vote(DEVICES[0], OTHER)),
        "signed by a stranger": (vote(STRANGER, ONE), vote(STRANGER, OTHER)),
        "first badly signed": (forged[:-1] + bytes((forged[-1] ^ 1,)), prevote),
        "second badly signed": (prevote, forged[:-1] + bytes((forged[-1] ^ 1,))),
        "no message": (prevote, b"nothing"),
        "two transfers": (transfers[0], transfers[1]),
        "of another chain": (prevote, seal(Vote(HEIGHT, 2, 1, OTHER), guilty, bytes(32))),
    }
    for name, (first, second) in wrong.items():
        claim = "Nothing else proves an offence."
        to.add(f"proof, {name}", claim, OP, WORLD, raw=accuse(first, second), error=BAD)
    raw = accuse(vote(guilty, ONE), vote(guilty, OTHER), HEIGHT - 1)
    to.add("proof, under another height", "Evidence names its height.", OP, WORLD, raw=raw, error=BAD)
    unknown = accuse(prevote, forged, key=STRANGER)
    to.add("proof, by a stranger", "Only accounts may submit.", OP, WORLD, raw=unknown, error="unknown-sender")


def _build_times(to: Recorder) -> None:
    claim = "An offence is punished from so many heights ago up to the next height."
    for height, error in (
        (HEIGHT - AGE_MAX - 1, LATE),
        (HEIGHT - AGE_MAX, None),
        (HEIGHT + 1, None),
        (HEIGHT + 2, LATE),
    ):
        raw = accuse_of_two_votes(MINERS[0], height)
        to.add(f"time, height {height - HEIGHT:+}", claim, OP, WORLD, raw=raw, error=error)
    claim = "What has been judged is not punished again."
    for judged, error in ((HEIGHT - 1, None), (HEIGHT, LATE), (HEIGHT + 1, LATE)):
        before = with_candidate(WORLD, MINERS[0], judged_height=judged)
        raw = accuse_of_two_votes(MINERS[0])
        to.add(f"time, judged {judged - HEIGHT:+}", claim, OP, before, raw=raw, error=error)


def _build_sentences(to: Recorder) -> None:
    claim = "All stake behind the guilty is slashed, rounded down; it loses its seat and goes to jail."
    for place, name in ((1, "with unbondings"), (2, "of the third"), (3, "of the least"), (4, "without a seat")):
        to.add(f"sentence, {name}", claim, OP, WORLD, raw=accuse_of_two_votes(MINERS[place]))
    to.add("sentence, in jail", "A second offence makes jail longer.", OP, WORLD, raw=accuse_of_two_votes(MINERS[5]))
    claim = "What is slashed to nothing is gone, of delegations and of unbondings."
    to.add("sentence, down to nothing", claim, OP, WORLD, raw=accuse_of_two_votes(BOTH))
    small: Any = tuple(replace(u, amount=untyped(1), candidate=BOTH.address) for u in WORLD.unbondings[:2])
    dust = replace(WORLD, unbondings=(*small, *WORLD.unbondings[2:]))
    to.add("sentence, unbondings to nothing", claim, OP, dust, raw=accuse_of_two_votes(BOTH))
    for share in (0, 1, 9_999, 10_000):
        before = with_params(WORLD, slash_bp=share)
        claim = "The share that is slashed is agreed."
        to.add(f"sentence, {share} of ten thousand", claim, OP, before, raw=accuse_of_two_votes(MINERS[0]))
    claim = "With one validator less the cap cuts the others' powers again, where it is far enough from even."
    for cap in (2_600, 3_000, 3_334, 4_000, 10_000):
        before = with_params(WORLD, power_cap_bp=cap)
        to.add(f"sentence, cap {cap}", claim, OP, before, raw=accuse_of_two_votes(MINERS[3]))
    claim = "The last validator keeps its power: somebody must go on."
    alone = keep_seats(WORLD, MINERS[2])
    to.add("sentence, of the last validator", claim, OP, alone, raw=accuse_of_two_votes(MINERS[2]))
    two = keep_seats(WORLD, MINERS[2], MINERS[0])
    claim = "The last but one loses it."
    to.add("sentence, of the last but one", claim, OP, two, raw=accuse_of_two_votes(MINERS[2]))


def keep_seats(before: ChainState, *seated: Identity) -> ChainState:
    """The state in which only these have power."""
    kept = {key.address for key in seated}
    for key in MINERS:
        if key.address not in kept:
            before = with_candidate(before, key, power=0)
    return before
