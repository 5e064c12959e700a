"""Vectors of whole blocks: three rounds told block by block, and all that makes a block wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from flchain.base.crypto import Identity
from flchain.ledger.state import ChainState
from flchain.rules import blocks
from flchain.rules.transactions import add_transactions, check_transaction, verify_transaction
from flchain.wire import envelope
from flchain.wire.envelope import Letter, Verified
from flchain.wire.fields import Kind
from flchain.wire.messages import Commit, Delegate, Evidence, Phase, Register, Settlement, Transfer, Undelegate
from tests.vectors.transitions.builders.evidence import OTHER, accuse_of_two_votes
from tests.vectors.transitions.builders.orders import order
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.story import Story, forge, replace_body
from tests.vectors.transitions.world import (
    BOTH,
    DEVICES,
    HEIGHT,
    HOLDERS,
    MINERS,
    ROUND,
    STRANGER,
    TIME_MS,
    WORLD,
    get_account,
    seal,
    untyped,
    with_params,
    with_round,
)

OP = "apply_block"
INVALID = "invalid-block"
ORDERS_MAX, ORDERS_BYTES_MAX = 128, 65_536
SEATED = (*MINERS[:4], BOTH)


def build(to: Recorder) -> None:
    """All vectors of blocks."""
    _tell_rounds(to)
    _tell_given_up(to)
    _build_headers(to)
    _build_bodies(to)
    _build_settlements(to)
    _build_limits(to)
    _build_selection(to)


def _tell_rounds(to: Recorder) -> None:
    """Round 17, whose phases close in every way; round 18, with an offence and an election; the first block of 19."""
    story = Story(to, WORLD)
    pay = order(HOLDERS[1], Transfer, STRANGER.public_key, 5_003)
    claim = "Orders alone use up no time of the phase of commitments."
    story.block("told 1, orders alone", claim, orders=[pay], proposer=MINERS[2], clock_ms=TIME_MS + 7_001)
    claim = "A clock that is behind gives a time just after the block before."
    story.block("told 2, some commit", claim, story.commits((0, 2), (2,)), proposer=BOTH, clock_ms=TIME_MS)
    story.block("told 3, empty", "From the first commitment on heights count.", proposer=MINERS[1])
    story.block("told 4, last height", "At its last height a phase closes.", story.commits((5,)))
    orders = [order(HOLDERS[2], Register, 1_717, 60_013), order(HOLDERS[2], Delegate, MINERS[4].address, 83, ahead=1)]
    orders += [order(HOLDERS[0], Undelegate, MINERS[1].address, 1_009)]
    claim = "Orders ride along, of one sender in order of their numbers."
    story.block("told 5, some reveal", claim, story.reveals((0, 5)), orders, clock_ms=TIME_MS + 9_000_000)
    story.block("told 6, all reveal", "Once all are there the phase closes.", story.reveals((2,)))
    scores = {0: 77, 2: -432, 5: -430}
    story.block("told 7, some score", "Scores are committed to.", story.score_commits(SEATED[1:], scores))
    last = [SEATED[0], DEVICES[2]]
    story.block("told 8, all score", "With the pledged device all are there.", story.score_commits(last, scores))
    story.block("told 9, some open", "Scores are opened.", story.score_reveals(SEATED, scores))
    claim = "The last scores settle the round."
    story.block("told 10, settled", claim, story.score_reveals([DEVICES[2]], scores), proposer=MINERS[3])
    everybody = tuple(range(8))
    story.block("told 11, all commit", "The next round.", story.commits(everybody), clock_ms=TIME_MS + 9_100_001)
    story.block("told 12, all reveal", "All at once.", story.reveals(everybody))
    claim = "An offence costs a seat at once: the next block has other signers."
    guilt = [accuse_of_two_votes(MINERS[1], HEIGHT + 12)]
    scores = dict.fromkeys(everybody, 11) | {1: -500}
    left = [key for key in SEATED if key != MINERS[1]]
    story.block("told 13, an offence", claim, story.score_commits(SEATED, scores), guilt)
    claim = "The last round of an epoch ends with an election."
    story.block("told 14, elected", claim, story.score_reveals(left, scores))
    story.block("told 15, newcomers", "Newcomers begin behind.", proposer=HOLDERS[2], clock_ms=TIME_MS + 10**8)
    story.block("told 16, once more", "All take turns.", proposer=HOLDERS[2])


def _tell_given_up(to: Recorder) -> None:
    """Rounds that too few take part in, by phase, and the block that opens a chain."""
    begun = with_round(WORLD, number=1, phase=Phase.OPEN)
    Story(to, replace(begun, height=untyped(0))).block("open", "The first block opens the phase of commitments.")
    opened = with_round(WORLD, phase=Phase.OPEN)
    Story(to, opened).block("open, a later round", "The round stays the same.")
    story = Story(None, WORLD)
    for i in (1, 2, 3):
        story.block("", "", story.commits((i,)))
    assert story.state.round.phase is Phase.REVEAL
    at_five = with_round(story.state, heights=5)
    claim = "Where nobody reveals a round is given up after twice the heights."
    Story(to, with_round(at_five, heights=4)).block("given up, reveal, not yet", claim)
    Story(to, at_five).block("given up, reveal", claim)
    claim = "One update is enough for the phase to go on instead."
    Story(to, at_five).block("given up, reveal, one", claim, story.reveals((2,)))
    story.block("", "", story.reveals((1, 2, 3)))
    some = story.score_commits([MINERS[0], BOTH], {})
    claim = "Where too few score a round is given up after twice the heights."
    Story(to, with_round(story.state, heights=4)).block("given up, score, not yet", claim, some)
    Story(to, with_round(story.state, heights=5)).block("given up, score", claim, some)
    story.block("", "", story.score_commits(SEATED, {}))
    some = story.score_reveals([MINERS[0], BOTH], {})
    Story(to, with_round(story.state, heights=4)).block("given up, settle, not yet", claim, some)
    Story(to, with_round(story.state, heights=5)).block("given up, settle", claim, some)
    enough = story.score_reveals(MINERS[:3], {})
    claim = "At its last height the phase closes with those that opened their scores, if they are enough."
    Story(to, with_round(story.state, heights=1)).block("last height, settle, not yet", claim, enough)
    Story(to, with_round(story.state, heights=2)).block("last height, settle", claim, enough)
    bare = with_round(WORLD, phase=Phase.SCORE, heights=1)
    Story(to, bare).block("heights, of another phase", "In all other phases every block counts.")
    for number, name in ((ROUND, "no election"), (18, "an election")):
        before = with_round(at_five, number=number)
        Story(to, before).block(f"given up, with {name}", "An epoch ends with a round that is given up too.")


def _build_headers(to: Recorder) -> None:
    """One field wrong at a time."""
    story = Story(None, WORLD)
    header, body = story.block("", "", story.commits((0, 3)))
    wrong: dict[str, tuple[Any, str]] = {
        "chain": (bytes(32), INVALID),
        "height": (HEIGHT + 2, "wrong-round"),
        "time_ms": (TIME_MS, INVALID),
        "round": (ROUND + 1, INVALID),
        "phase": (Phase.REVEAL, INVALID),
        "next_round": (ROUND + 1, INVALID),
        "next_phase": (Phase.REVEAL, INVALID),
        "previous": (OTHER, INVALID),
        "proposer": (MINERS[4].address, INVALID),
        "body_root": (OTHER, INVALID),
        "state_root": (OTHER, INVALID),
        "model_hash": (OTHER, INVALID),
        "validators_hash": (OTHER, INVALID),
        "next_validators_hash": (OTHER, INVALID),
    }
    for field, (value, error) in wrong.items():
        claim = "Every field of a header is checked."
        to.add(f"header, another {field}", claim, OP, WORLD, error=error, **forge(header, body, **{field: value}))
    for name, fields, error in (
        ("the same height again", {"height": HEIGHT}, "wrong-round"),
        ("an earlier time", {"time_ms": TIME_MS - 1}, INVALID),
        ("a stranger proposes", {"proposer": STRANGER.address}, INVALID),
        ("the second version", {"version": 2}, "malformed"),
        ("no phase", {"phase": 5}, "malformed"),
    ):
        named: dict[str, Any] = dict(fields)
        to.add(f"header, {name}", "Nor may it say this.", OP, WORLD, error=error, **forge(header, body, **named))
    late = forge(header, body, time_ms=TIME_MS + 1)
    to.add("header, just later", "A millisecond is later.", OP, WORLD, **late)
    other = forge(header, body, proposer=BOTH.address)
    to.add("header, another validator", "Whose turn it is, agreement knows.", OP, WORLD, **other)
    moved = replace(WORLD, head=untyped(OTHER))
    given: dict[str, Any] = {"header": header, "body": body}
    to.add("header, of another branch", "A block extends the head.", OP, moved, error=INVALID, **given)
    to.add("header, too long", "No more than so long.", OP, WORLD, header=bytes(1_025), body=body, error="oversized")
    to.add("header, cut off", "Nor cut off.", OP, WORLD, header=header[:-1], body=body, error="truncated")
    to.add("body, cut off", "Nor the body.", OP, WORLD, header=header, body=body[:-1], error="truncated")


def _build_bodies(to: Recorder) -> None:
    story = Story(None, WORLD)
    first, second = sorted(story.commits((0, 3)), key=_get_sender)
    paid = [order(HOLDERS[1], Transfer, DEVICES[0].public_key, 3 + i, ahead=i) for i in range(3)]
    header, body = story.block("", "", [first, second], paid[:2])
    reveal = story.reveals((4,))

    def refuse(name: str, claim: str, error: str, **parts: Any) -> None:
        given = forge(header, replace_body(body, **parts))
        to.add(f"body, {name}", claim, OP, WORLD, error=error, **given)

    claim = "Transactions are of the phase's kind, one of a sender, in order of senders."
    refuse("out of order", claim, INVALID, transactions=[second, first])
    # All else is made to fit, here and where a settlement comes too early: the state's root cannot tell.
    with patch.object(blocks, "_process_transactions", _process_in_any_order):
        twice = Story(None, WORLD).block("", "", [first, first], paid[:2])
    to.add("body, one twice", claim, OP, WORLD, error=INVALID, **_name_parts(twice))
    refuse("of another kind", claim, INVALID, transactions=[first, *reveal])
    refuse("an order among them", claim, INVALID, transactions=[first, paid[0]])
    broken = second[:-1] + bytes((second[-1] ^ 1,))
    refuse("badly signed", "A message that is refused spoils the block.", "bad-signature", transactions=[first, broken])
    refuse("left out", "What the header was made of must be there.", INVALID, transactions=[first])
    claim = "Orders are in order of sender and number, none twice."
    refuse("orders out of order", claim, INVALID, orders=[paid[1], paid[0]])
    refuse("an order twice", claim, INVALID, orders=[paid[0], paid[0]])
    refuse(
        "an order skipped", "An order that is refused spoils the block.", "wrong-sequence", orders=[paid[0], paid[2]]
    )
    refuse("a transaction among orders", "Orders are orders.", "malformed", orders=[first])
    accused = [seal(Evidence(HEIGHT, *pair), HOLDERS[0]) for pair in ((b"a", b"b"), (b"c", b"d"))]
    claim = "Orders of one sender and number are in order of kind and digest."
    refuse("evidence in order", claim, "bad-evidence", orders=sorted(accused, key=_digest))
    refuse("evidence out of order", claim, INVALID, orders=sorted(accused, key=_digest, reverse=True))
    with (
        patch.object(blocks, "compute_settlement", return_value=Settlement(())),
        patch.object(blocks, "is_round_over", return_value=True),
    ):
        early = Story(None, WORLD).block("", "", [first, second], paid[:2])
    to.add("body, settled too early", "No settlement but at the end.", OP, WORLD, error=INVALID, **_name_parts(early))
    again = Story(None, WORLD)
    later = [*story.commits((1,))]
    there = with_round(WORLD, commits=((DEVICES[1].address, b"c" * 32),))
    header, body = again.block("", "", later)
    given: dict[str, Any] = {"header": header, "body": body}
    to.add("body, a duplicate", "Of an earlier block too.", OP, there, error="duplicate", **given)
    opened = with_round(WORLD, phase=Phase.OPEN)
    to.add("body, in the opening block", "The opening block holds no messages.", OP, opened, error=INVALID, **given)


def _process_in_any_order(state: ChainState, letters: Iterable[Letter]) -> tuple[ChainState, tuple[Verified, ...]]:
    """What a block's transactions do where nobody looks at their order."""
    said = tuple(check_transaction(state, verify_transaction(state, letter)) for letter in letters)
    return replace(state, round=add_transactions(state, Kind.COMMIT, said)), said


def _name_parts(parts: tuple[bytes, bytes]) -> dict[str, Any]:
    return dict(zip(("header", "body"), parts, strict=True))


def _get_sender(raw: bytes) -> bytes:
    return next(key.address for key in DEVICES if raw.find(key.address) >= 0)


def _digest(raw: bytes) -> bytes:
    """The order that the rules give to orders of equal sender, number and kind: by tagged hash of the message."""
    return envelope.hash_message(raw)


def _build_settlements(to: Recorder) -> None:
    story = Story(None, WORLD)
    story.block("", "", story.commits(range(8)))
    story.block("", "", story.reveals(range(8)))
    scores = {0: 500, 1: -500, 2: -600}
    story.block("", "", story.score_commits(SEATED, scores))
    before = story.state
    story_reveals = story.score_reveals(SEATED, scores)
    header, body = story.block("", "", story_reveals)
    accepted = tuple(DEVICES[i].address for i in (0, 3, 4, 5, 6, 7))
    for name, given in {
        "one more": tuple(sorted((*accepted, DEVICES[1].address))),
        "one less": accepted[1:],
        "out of order": (accepted[1], accepted[0], *accepted[2:]),
        "nobody": (),
    }.items():
        # All else is made to fit what is settled, so that nothing but the scores can tell.
        wrong = Story(None, before)
        with patch.object(blocks, "compute_settlement", return_value=Settlement(given)):
            forged = _name_parts(wrong.block("", "", story_reveals))
        claim = "The settlement is what the scores give, and nothing else."
        to.add(f"settlement, {name}", claim, OP, before, error=INVALID, **forged)
    early = Story(None, before)
    with patch.object(blocks, "is_round_over", return_value=True):
        forged = _name_parts(early.block("", "", story_reveals[:-1]))
    to.add("settlement, too early", "Not before all is said.", OP, before, error=INVALID, **forged)
    forged = forge(header, replace_body(body, settlement=None, is_settled=False))
    to.add("settlement, missing", "At its end a round is settled.", OP, before, error=INVALID, **forged)
    to.add("settlement, right", "And then it is.", OP, before, header=header, body=body)


def _build_limits(to: Recorder) -> None:
    """Most orders, in number and in bytes. What is within the limits is refused for another reason, in a block that
    holds nothing but evidence of nothing."""
    header, body = Story(None, WORLD).block("", "")
    key = HOLDERS[0]
    small = [seal(Evidence(i, b"", b""), key) for i in range(ORDERS_MAX + 1)]
    for count, error in ((ORDERS_MAX, "bad-evidence"), (ORDERS_MAX + 1, INVALID)):
        given = forge(header, replace_body(body, orders=small[:count]))
        to.add(f"limit, {count} orders", "A block holds so many orders.", OP, WORLD, error=error, **given)
    longest = [seal(Evidence(i, bytes(1_300), b""), key) for i in range(45)]
    room = ORDERS_BYTES_MAX - sum(map(len, longest))
    frame = len(seal(Evidence(100, bytes(1_000), b""), key)) - 1_000
    for extra, error in ((0, "bad-evidence"), (1, INVALID)):
        last = _fill_up(key, room + extra, frame)
        given = forge(header, replace_body(body, orders=[*longest, *last]))
        claim = "Orders take so many bytes of a block."
        to.add(f"limit, {ORDERS_BYTES_MAX + extra} bytes of orders", claim, OP, WORLD, error=error, **given)


def _fill_up(key: Identity, room: int, frame: int) -> list[bytes]:
    """Evidence of nothing that is exactly so long."""
    sizes = []
    while room > 1_400:
        sizes.append(1_000 - frame)
        room -= 1_000
    sizes += [room // 2 - frame, room - room // 2 - frame]
    made = [seal(Evidence(100 + i, bytes(size), b""), key) for i, size in enumerate(sizes)]
    return made


def _build_selection(to: Recorder) -> None:
    """What a proposer takes of what waits."""
    story = Story(None, WORLD)
    commits = story.commits((6, 0, 3))
    broken = commits[1][:-1] + bytes((commits[1][-1] ^ 1,))
    waiting = [commits[0], broken, commits[0], *commits[1:], *story.reveals((5,))]
    paid = [order(HOLDERS[1], Transfer, DEVICES[0].public_key, 3 + i, ahead=i) for i in (2, 0, 1, 4)]
    claim = "Of what waits the next block takes what it may, orders in their order."
    to.add("select, some", claim, "select", WORLD, transactions=waiting, orders=paid)
    other = seal(Commit(ROUND, b"o" * 32, will_score=False), DEVICES[6])
    claim = "Of two messages of one sender the first that waits is taken."
    to.add("select, two of a sender", claim, "select", WORLD, transactions=[*commits, other], orders=[])
    free: ChainState = with_params(WORLD, order_fee=0)
    sequence = get_account(WORLD, HOLDERS[1]).sequence
    many = [seal(Transfer(sequence + i, DEVICES[0].public_key, 1), HOLDERS[1]) for i in range(ORDERS_MAX + 1)]
    claim = "A block takes so many orders, the others wait."
    to.add("select, too many orders", claim, "select", free, transactions=[], orders=many)
