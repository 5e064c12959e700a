"""Bad input, second room: proposals, headers, bodies and settlements, as a miner hears them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache

from flchain.base.crypto import Identity
from flchain.base.types import View
from flchain.ledger.block import Block, compute_body_root, hash_header
from flchain.rules.blocks import build_block, get_proposer
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct, encode_struct, seal
from flchain.wire.messages import Body, Commit, Header, Phase, Proposal, Settlement, Transfer
from flchain.wire.packets import PacketType, encode_packet
from miner.core.state import MinerState
from tests.support.bad_fields.heads import HEADER_SHAPES, certify, change
from tests.support.bad_fields.messages import SHAPES as MESSAGE_SHAPES
from tests.support.bad_fields.messages import STRANGER
from tests.support.bad_fields.nodes import CHAIN, DEVICE, HOLDER, TOPICS, ask_miner, build_miner, drive
from tests.support.bad_fields.table import (
    OTHER_20,
    OTHER_32,
    Bench,
    Effect,
    Line,
    Outcome,
    Row,
    build_rows,
    build_shape_rows,
)
from tests.support.builders.chain import NO_CLOCK, make_scores, open_all, seal_score_reveal

DROPPED, IGNORED, NIL, TAKEN = Effect.DROPPED, Effect.IGNORED, Effect.NIL, Effect.TAKEN
PROPOSED, FINAL = "bft, proposed to a miner", "to, final, to a miner"
MOST = 2**53
FAR_MS = 10**15
BODY_SHAPES = {"transactions": "list", "orders": "list", "settlement": "list or null"}
SETTLEMENT_SHAPES = {"accepted": "list"}


# --- blocks that the others have made final --------------------------------------------------------------------------


@lru_cache
def get_settling() -> Block:
    """The block that settles the first round, with the scores of four miners and a mining device, and an order."""
    state = drive(Phase.SETTLE).state
    word = make_scores(state)
    said = [seal_score_reveal(CHAIN, number, word) for number in range(4)]
    said.append(seal(word, CHAIN.id, DEVICE))
    orders = [seal(Transfer(n, CHAIN.holders[1].public_key, 20), CHAIN.id, HOLDER) for n in range(2)]
    letters = open_all(said, CHAIN.id), open_all(orders, CHAIN.id)
    block, _ = build_block(state, get_proposer(state, View(0)), *letters, NO_CLOCK)
    return block


def get_body() -> Body:
    return decode_struct(get_settling().body_bytes, Body, BODY_BYTES_MAX)


def send_final(header: Header, body: bytes | None = None, certificate: bytes | None = None) -> Outcome:
    """A header that all validators have signed as it is."""
    header_bytes = encode_struct(header)
    signed = certify(header_bytes, header.height) if certificate is None else certificate
    packet = encode_packet(PacketType.BLOCK, header_bytes, signed, get_settling().body_bytes if body is None else body)
    topic = TOPICS.miner_to(CHAIN.miners[1].address, CHAIN.miners[0].address)
    return ask_miner(build_miner(Phase.SETTLE), topic, packet)


def send_body(body: Body) -> Outcome:
    """A body under a header that names it, final."""
    header = get_settling().header
    with contextlib.suppress(TypeError):  # no body at all
        header = change(header, body_root=compute_body_root(body))
    return send_final(header, encode_struct(body))


FINAL_BENCH = Bench("Header", FINAL, lambda: get_settling().header, send_final)
FINAL_LINES: list[Line] = [
    ("chain", "another", OTHER_32, "invalid-block", DROPPED, "another chain"),
    ("height", "of a block that is known", 1, "", IGNORED),
    ("height", "two ahead", lambda h: h.height + 1, "wrong-round", DROPPED),
    ("time_ms", "that of the block before", lambda h: h.time_ms - 1, "invalid-block", DROPPED, "not later"),
    ("round", "another", 2, "invalid-block", DROPPED, "wrong round in"),
    ("phase", "another", Phase.SCORE, "invalid-block", DROPPED, "wrong phase in"),
    ("next_round", "another", 1, "invalid-block", DROPPED, "wrong next_round in"),
    ("next_phase", "another", Phase.SETTLE, "invalid-block", DROPPED, "wrong next_phase in"),
    ("previous", "another", OTHER_32, "invalid-block", DROPPED, "does not extend"),
    ("proposer", "no validator", DEVICE.address, "invalid-block", DROPPED, "not a validator"),
    ("body_root", "another", OTHER_32, "invalid-block", DROPPED, "not the one the header names"),
    ("state_root", "another", OTHER_32, "invalid-block", DROPPED, "wrong state_root in"),
    ("model_hash", "another", OTHER_32, "invalid-block", DROPPED, "wrong model_hash in"),
    ("validators_hash", "another", OTHER_32, "invalid-block", DROPPED, "wrong validators_hash in"),
    ("next_validators_hash", "another", OTHER_32, "invalid-block", DROPPED, "wrong next_validators_hash in"),
]
BODY_BENCH = Bench("Body", FINAL, get_body, send_body)


def _put(place: int, raw: Callable[[], bytes]) -> Callable[[Body], tuple[bytes, ...]]:
    """The transactions with another one at a place."""
    return lambda body: (*body.transactions[:place], raw(), *body.transactions[place + 1 :])


def _score(sender: Identity, round_: int = 1) -> bytes:
    word = make_scores(drive(Phase.SETTLE).state)
    return seal(type(word)(round_, word.salt, word.base_score, word.scores, word.aggregates), CHAIN.id, sender)


def _commit() -> bytes:
    return seal(Commit(1, OTHER_32, False), CHAIN.id, DEVICE)


def _pay(amount: int) -> bytes:
    return seal(Transfer(0, CHAIN.holders[1].public_key, amount), CHAIN.id, HOLDER)


def _first() -> Identity:
    """Whose transaction is the first one of the body."""
    return min((*CHAIN.miners[:4], DEVICE), key=lambda key: key.address)


BODY_LINES: list[Line] = [
    ("transactions", "one twice", lambda b: (b.transactions[0], *b.transactions), "invalid-block", DROPPED, "in order"),
    ("transactions", "in another order", lambda b: b.transactions[::-1], "invalid-block", DROPPED, "in order"),
    ("transactions", "one missing", lambda b: b.transactions[:2], "invalid-block", DROPPED, "settlement"),
    ("transactions", "no signed message", _put(0, lambda: b""), "truncated", DROPPED),
    ("transactions", "bytes after one", lambda b: (b.transactions[0] + b"\0",), "not-canonical", DROPPED),
    ("transactions", "of another kind", _put(0, _commit), "invalid-block", DROPPED, "a COMMIT in"),
    ("transactions", "of another round", _put(0, lambda: _score(_first(), 2)), "wrong-round", DROPPED),
    ("transactions", "of a stranger", lambda b: (_score(STRANGER),), "unknown-sender", DROPPED),
    ("transactions", "wrong signature", lambda b: (b.transactions[0][:-1] + b"\0",), "bad-signature", DROPPED),
    ("orders", "one twice", lambda b: (b.orders[0], *b.orders), "invalid-block", DROPPED, "orders are not in order"),
    ("orders", "in another order", lambda b: b.orders[::-1], "invalid-block", DROPPED, "orders are not in order"),
    ("orders", "one before it missing", lambda b: b.orders[1:], "wrong-sequence", DROPPED),
    ("orders", "more than is owned", lambda _: (_pay(2_000),), "insufficient-funds", DROPPED),
    ("orders", "no order", lambda b: b.transactions[:1], "malformed", DROPPED, "is not an order"),
    ("orders", "no signed message", (b"",), "truncated", DROPPED),
    (
        "orders",
        "of a stranger",
        lambda b: (seal(Transfer(0, DEVICE.public_key, 20), CHAIN.id, STRANGER),),
        "unknown-sender",
        DROPPED,
    ),
    ("orders", "129 of them", lambda b: b.orders[:1] * 129, "invalid-block", DROPPED, "too many"),
    ("settlement", "none where the round ends", None, "invalid-block", DROPPED, "settlement"),
]
SETTLEMENT_BENCH = Bench(
    "Settlement",
    FINAL,
    lambda: get_body().settlement,
    lambda s: send_body(Body(get_body().transactions, get_body().orders, s)),
)
SETTLEMENT_LINES: list[Line] = [
    ("accepted", "one missing", lambda s: s.accepted[1:], "invalid-block", DROPPED, "settlement"),
    ("accepted", "one twice", lambda s: (s.accepted[0], *s.accepted), "invalid-block", DROPPED, "settlement"),
    ("accepted", "in another order", lambda s: s.accepted[::-1], "invalid-block", DROPPED, "settlement"),
    ("accepted", "a stranger", (OTHER_20,), "invalid-block", DROPPED, "settlement"),
    ("accepted", "an address of 21 bytes", (b"a" * 21,), "malformed", DROPPED, "$[2][0][0]"),
]


# --- proposals ------------------------------------------------------------------------------------------------------


def get_leader() -> Identity:
    address = get_proposer(drive(Phase.OPEN).state, View(0))
    return next(key for key in CHAIN.miners if key.address == address)


@lru_cache
def get_follower() -> MinerState:
    """A miner that waits for the first block of the chain."""
    number = next(i for i, key in enumerate(CHAIN.miners[:4]) if key is not get_leader())
    return build_miner(Phase.OPEN, number=number, is_begun=True)


@lru_cache
def get_first() -> Block:
    """The chain's first block, as its leader makes it."""
    return build_block(drive(Phase.OPEN).state, get_leader().address, (), (), NO_CLOCK)[0]


def send_proposal(proposal: Proposal, header: Header | None = None, body: bytes | None = None) -> Outcome:
    header_bytes = get_first().header_bytes if header is None else encode_struct(header)
    raw = seal(proposal, CHAIN.id, get_leader())
    packet = encode_packet(PacketType.PROPOSAL, raw, header_bytes, get_first().body_bytes if body is None else body)
    return ask_miner(get_follower(), TOPICS.miner_bft(get_leader().address), packet)


def send_proposed(header: Header) -> Outcome:
    """A header that its proposer has signed a proposal of as it is."""
    return send_proposal(Proposal(1, 0, -1, hash_header(encode_struct(header))), header)


PROPOSAL_BENCH = Bench("Proposal", PROPOSED, lambda: Proposal(1, 0, -1, get_first().hash), send_proposal)
PROPOSAL_LINES: list[Line] = [
    ("height", "one that is final", 0, "", IGNORED),
    ("height", "the next one", 2, "", TAKEN),
    ("height", "two ahead", 3, "wrong-round", DROPPED),
    ("view", "another's turn", 1, "unknown-sender", DROPPED, "not the proposer"),
    ("view", "far ahead", MOST, "", TAKEN),
    ("valid_view", "not before the view", 0, "malformed", DROPPED, "earlier view"),
    ("block_hash", "of another block", OTHER_32, "malformed", DROPPED, "not the one that was proposed"),
]
PROPOSED_BENCH = Bench("Header", PROPOSED, lambda: get_first().header, send_proposed)
PROPOSED_LINES: list[Line] = [
    ("chain", "another", OTHER_32, "", NIL),
    ("height", "another", 2, "", NIL),
    ("time_ms", "not later than the block before", 0, "", NIL),
    ("time_ms", "more than five minutes ahead", FAR_MS, "", NIL),
    ("round", "another", 2, "", NIL),
    ("phase", "another", Phase.COMMIT, "", NIL),
    ("next_round", "another", 2, "", NIL),
    ("next_phase", "another", Phase.REVEAL, "", NIL),
    ("previous", "another", OTHER_32, "", NIL),
    ("proposer", "another validator", lambda h: _other_miner().address, "", NIL),
    ("proposer", "no validator", DEVICE.address, "", NIL),
    ("body_root", "another", OTHER_32, "invalid-block", DROPPED, "not the one the header names"),
    ("state_root", "another", OTHER_32, "", NIL),
    ("model_hash", "another", OTHER_32, "", NIL),
    ("validators_hash", "another", OTHER_32, "", NIL),
    ("next_validators_hash", "another", OTHER_32, "", NIL),
]


def _other_miner() -> Identity:
    return next(key for key in CHAIN.miners[:4] if key is not get_leader())


# --- the rows ------------------------------------------------------------------------------------------------------


def build_block_rows() -> list[Row]:
    """Proposals, and all that makes up a block, as a miner hears it."""
    rows = build_rows(PROPOSAL_BENCH, PROPOSAL_LINES)
    rows += build_shape_rows(PROPOSAL_BENCH, Proposal, MESSAGE_SHAPES[Proposal])
    for bench, lines in ((PROPOSED_BENCH, PROPOSED_LINES), (FINAL_BENCH, FINAL_LINES)):
        rows += build_rows(bench, lines) + build_shape_rows(bench, Header, HEADER_SHAPES)
    rows += build_rows(BODY_BENCH, BODY_LINES) + build_shape_rows(BODY_BENCH, Body, BODY_SHAPES)
    rows += build_rows(SETTLEMENT_BENCH, SETTLEMENT_LINES)
    return rows + build_shape_rows(SETTLEMENT_BENCH, Settlement, SETTLEMENT_SHAPES, prefix="$[2]")
