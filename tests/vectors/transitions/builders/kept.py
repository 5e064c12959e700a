"""Vectors of what a node has verified or decoded before it comes in a block: kept, it is asked no less than new.

A message that was verified is bound to the chain and the key that it was verified for; round, sender and phase are
asked again in every block. What is kept of an update that was decoded leads to the same model as its payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from flchain.base.crypto import Identity
from flchain.ledger import certificate
from flchain.ledger.state import ChainState
from flchain.rules import blocks, transactions
from flchain.wire.envelope import get_signature, open_envelope, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.messages import Commit, Phase, Transfer, Vote, compute_update_commitment
from tests.vectors.transitions.builders.messages import CODEC_LEVELS
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.story import Story, forge, replace_body
from tests.vectors.transitions.world import (
    BOTH,
    CHAIN,
    DEVICES,
    HEIGHT,
    HOLDERS,
    MINERS,
    ROUND,
    STRANGER,
    WORLD,
    get_account,
    seal,
    untyped,
    with_params,
    with_round,
)

OP, VERIFY = "apply_block_kept", "verify_certificate_heard"
INVALID, BAD = "invalid-block", "bad-certificate"
SIBLING: Any = CHAIN[:-1] + bytes((CHAIN[-1] ^ 1,))
"""A chain whose name begins as this one's: a message says no more of its chain than how its name begins."""
SEATED = (*MINERS[:4], BOTH)
Kept = tuple[bytes, bytes, bytes, tuple[tuple[bytes, bytes], ...]]
"""A message, the chain and the key that it was verified for, and commitments of the round it was looked at in."""


def build(to: Recorder) -> None:
    """All vectors of what is kept."""
    _build_transactions(to)
    _build_doubles(to)
    _build_orders(to)
    _build_updates(to)
    _build_decoded(to)
    _build_votes(to)


def keep(raw: bytes, public_key: bytes, chain: bytes = CHAIN, commits: tuple[tuple[bytes, bytes], ...] = ()) -> Kept:
    """A message as a node keeps it."""
    return raw, chain, public_key, commits


def seal_as(message: Any, sender: Identity, signer: Identity) -> bytes:
    """A message with the address of one and the signature of another."""
    forger: Any = SimpleNamespace(address=sender.address, sign=signer.sign)
    return seal(message, forger)


def _build_transactions(to: Recorder) -> None:
    story = Story(None, WORLD)
    first, second, third = sorted(story.commits((0, 3, 5)), key=_get_place)
    header, body = story.block("", "", [first, second, third])
    keys = [DEVICES[i].public_key for i in (0, 3, 5)]
    listed = [keep(raw, key) for raw, key in zip((first, second, third), keys, strict=True)]
    for name, kept in {"all": listed, "some": listed[1:2], "none": []}.items():
        claim = "A block comes to the same, whichever of its messages were verified before."
        to.add(f"verified, {name}", claim, OP, WORLD, header=header, body=body, kept=kept)

    def refuse(name: str, claim: str, error: str, raws: Sequence[bytes], kept: Sequence[Kept], **more: Any) -> None:
        given = forge(header, replace_body(body, transactions=raws), **more)
        to.add(f"verified, {name}", claim, OP, WORLD, error=error, kept=kept, **given)

    said, key = Commit(ROUND, b"c" * 32, will_score=False), DEVICES[3]
    sibling = seal(said, key, SIBLING)
    claim = "What was verified for another chain is signed for that one alone."
    refuse("for another chain", claim, "bad-signature", [sibling], [keep(sibling, key.public_key, SIBLING)])
    forged = seal_as(said, key, STRANGER)
    claim = "What was verified under another key is not signed by its sender."
    refuse("under another key", claim, "bad-signature", [forged], [keep(forged, STRANGER.public_key)])
    of_last = seal(Commit(ROUND - 1, b"c" * 32, will_score=False), key)
    claim = "What was verified in another round is of that one."
    refuse("in another round", claim, "wrong-round", [of_last], [keep(of_last, key.public_key)])
    foreign = seal(said, STRANGER)
    claim = "What was verified may be of one who may not send it."
    refuse("of a stranger", claim, "unknown-sender", [foreign], [keep(foreign, STRANGER.public_key)])
    of_miner = seal(said, MINERS[1])
    refuse("of a miner", claim, "unknown-sender", [of_miner], [keep(of_miner, MINERS[1].public_key)])
    paid = seal(Transfer(3, STRANGER.public_key, 5), key)
    claim = "What was verified may be of another kind than the phase's."
    refuse("of another kind", claim, INVALID, [paid], [keep(paid, key.public_key)])
    claim = "Verified or not, they are in order of their senders."
    refuse("the first two swapped", claim, INVALID, [second, first, third], listed)
    refuse("the last two swapped", claim, INVALID, [first, third, second], listed)
    there = with_round(WORLD, commits=((key.address, b"c" * 32),))
    given: dict[str, Any] = {"header": header, "body": body, "kept": listed}
    claim = "What was verified may be in the chain already."
    to.add("verified, a duplicate", claim, OP, there, error="duplicate", **given)


def _build_doubles(to: Recorder) -> None:
    """Two messages of one sender in blocks that would be right if a round took both: nothing but the rule can tell."""
    key = DEVICES[3]
    said = [seal(Commit(ROUND, byte * 32, will_score=False), key) for byte in (b"c", b"d")]
    opened = [verify_envelope(open_envelope(raw, CHAIN), CHAIN, key.public_key) for raw in said]
    kept = [keep(raw, key.public_key) for raw in said]
    claim = "Of one sender a block carries one message, verified before or not."
    for name, pair in {"two": (0, 1), "two, swapped": (1, 0), "the same twice": (0, 0)}.items():

        def add_both(state: ChainState, kind: Kind, _said: Any, pair: tuple[int, int] = pair) -> Any:
            return transactions.add_transactions(state, kind, [opened[i] for i in pair])

        with patch.object(blocks, "add_transactions", add_both):
            header, body = Story(None, WORLD).block("", "", said[:1])
        given = forge(header, replace_body(body, transactions=[said[i] for i in pair]))
        to.add(f"one sender, {name}", claim, OP, WORLD, error=INVALID, kept=[], **given)
        to.add(f"one sender, {name}, verified", claim, OP, WORLD, error=INVALID, kept=kept, **given)


def _get_place(raw: bytes) -> bytes:
    return next(key.address for key in DEVICES if raw.find(key.address) >= 0)


def _build_orders(to: Recorder) -> None:
    key = HOLDERS[1]
    said = Transfer(get_account(WORLD, key).sequence, STRANGER.public_key, 5_003)
    paid = seal(said, key)
    header, body = Story(None, WORLD).block("", "", orders=[paid])
    claim = "An order that was verified before does what it does."
    kept = [keep(paid, key.public_key)]
    to.add("verified, an order", claim, OP, WORLD, header=header, body=body, kept=kept)
    sibling, forged, foreign = seal(said, key, SIBLING), seal_as(said, key, STRANGER), seal(said, STRANGER)
    skipped = seal(Transfer(said.sequence + 1, STRANGER.public_key, 5_003), key)
    for name, raw, entry, error in (
        ("for another chain", sibling, keep(sibling, key.public_key, SIBLING), "bad-signature"),
        ("under another key", forged, keep(forged, STRANGER.public_key), "bad-signature"),
        ("of a stranger", foreign, keep(foreign, STRANGER.public_key), "unknown-sender"),
        ("too early", skipped, keep(skipped, key.public_key), "wrong-sequence"),
    ):
        given = forge(header, replace_body(body, orders=[raw]))
        claim = "An order that was verified before is asked for chain, key, sender and number as any other."
        to.add(f"verified, an order {name}", claim, OP, WORLD, error=error, kept=[entry], **given)


def _build_updates(to: Recorder) -> None:
    """Updates that were opened before, in this round or in one with another commitment."""
    story = Story(None, WORLD)
    story.block("", "", story.commits((1, 4)))
    story.block("", "")
    story.block("", "")
    assert story.state.round.phase is Phase.REVEAL
    before, place = story.state, 4
    (raw,) = story.reveals((place,))
    header, body = story.block("", "", [raw])
    key = DEVICES[place]
    bound = ((key.address, compute_update_commitment(CHAIN, key.address, story.make_reveal(place))),)
    given: dict[str, Any] = {"header": header, "body": body, "kept": [keep(raw, key.public_key, commits=bound)]}
    claim = "An update that was opened before comes to the same."
    to.add("opened, right", claim, OP, before, **given)
    mine = {address: commitment for address, commitment in before.round.commits}
    other = with_round(before, commits=tuple(sorted((mine | {key.address: b"o" * 32}).items())))
    claim = "An update that was opened before must open the commitment that is in the chain."
    to.add("opened, another commitment", claim, OP, other, error="bad-commitment", **given)
    alone = with_round(before, commits=tuple(pair for pair in before.round.commits if pair[0] != key.address))
    to.add("opened, no commitment", claim, OP, alone, error="bad-commitment", **given)
    early = with_round(before, phase=Phase.COMMIT)
    claim = "An update that was opened before is for its phase alone."
    to.add("opened, too early", claim, OP, early, error=INVALID, **given)
    later = with_round(before, number=ROUND + 1)
    claim = "An update that was opened before is for its round alone."
    to.add("opened, another round", claim, OP, later, error="wrong-round", **given)


def _build_decoded(to: Recorder) -> None:
    """Whole rounds: what is kept of each update on the way to the settlement, and what its payload says, are one."""
    # Of a sketch nothing is decoded before all are added up.
    levels = {codec: level for codec, level in CODEC_LEVELS.items() if codec != "count-sketch"}
    for codec, level in levels.items():
        before = with_params(WORLD, codec=codec, codec_level=level)
        _tell_round(to, f"decoded, {codec}", before)


def _tell_round(to: Recorder, name: str, before: ChainState) -> None:
    story = Story(None, before)
    places = (0, 2, 3, 5, 6, 7)
    # Several blocks of each phase, their senders not in order: the tables of the round still are.
    parts = [
        *((story.commits, (picked, picked[:1])) for picked in ((3, 7), (0, 5), (2, 6))),
        *((story.reveals, (picked,)) for picked in ((5, 6), (0, 7), (2, 3))),
    ]
    told = [story.block("", "", make(*arguments)) for make, arguments in parts]
    assert story.state.round.phase is Phase.SCORE, name
    scores = {place: 40 * place for place in places}
    pledged = [DEVICES[i] for i in (0, 2, 3)]
    for make in (story.score_commits, story.score_reveals):
        for keys in ([*SEATED[2:], pledged[2]], [SEATED[1], pledged[0]], [SEATED[0], pledged[1]]):
            told.append(story.block("", "", make(keys, scores)))
    assert story.state.round.number == untyped(ROUND + 1), name
    assert story.state.payload, name
    claim = "What is kept of an update that was decoded leads to the same model as its payload."
    kept = to.add(f"{name}, kept", claim, "apply_blocks", before, blocks=told, is_forgetful=False)
    forgotten = to.add(f"{name}, forgotten", claim, "apply_blocks", before, blocks=told, is_forgetful=True)
    assert kept == forgotten, name


def _build_votes(to: Recorder) -> None:
    """Certificates of votes that were heard before: a signature stands for its own vote and voter, for no others."""
    block, height, view, others = b"b" * 32, HEIGHT + 1, 3, b"c" * 32
    voted = Vote(height, view, 2, block)
    signatures = [get_signature(seal(voted, key)) for key in SEATED]
    heard = [(_list_vote(voted), key.address, raw) for key, raw in zip(SEATED, signatures, strict=True)]
    good = [(key.address, raw) for key, raw in zip(SEATED, signatures, strict=True)]
    claim = "Votes that were heard before make the same certificate."
    for name, listed in {"all": heard, "some": heard[1:3], "none": []}.items():
        to.add(f"heard, {name}", claim, VERIFY, WORLD, **_ask_heard(good, listed))
    claim = "A vote that was heard stands for nothing but itself."
    key, raw = SEATED[1], bytes(64)
    forged = [good[0], (key.address, raw), *good[2:]]
    kept = [heard[0], *heard[2:]]
    for name, entry in {
        "of another validator": (_list_vote(voted), SEATED[0].address, raw),
        "for another block": (_list_vote(Vote(height, view, 2, others)), key.address, raw),
        "in another view": (_list_vote(Vote(height, view + 1, 2, block)), key.address, raw),
        "at another height": (_list_vote(Vote(height - 1, view, 2, block)), key.address, raw),
        "of another type": (_list_vote(Vote(height, view, 1, block)), key.address, raw),
        "under another signature": (_list_vote(voted), key.address, signatures[1]),
    }.items():
        to.add(f"heard, {name}", claim, VERIFY, WORLD, error=BAD, **_ask_heard(forged, [*kept, entry]))
    claim = "Heard or not, it takes more than two thirds of the power."
    to.add("heard, too few", claim, VERIFY, WORLD, error=BAD, **_ask_heard(good[2:], heard))


def _list_vote(vote: Vote) -> tuple[Any, ...]:
    return vote.height, vote.view, vote.step, vote.block_hash


def _ask_heard(signed: Sequence[tuple[Any, bytes]], heard: Sequence[Any]) -> dict[str, Any]:
    data = certificate.build_certificate(WORLD.validators, untyped(3), signed)
    return {"height": HEIGHT + 1, "block": b"b" * 32, "certificate": data, "heard": heard}
