"""Bad input, second room: proposals, headers, bodies, settlements, certificates and the validators beside a header."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from flchain.certificate import PRECOMMIT, build_certificate
from flchain.chain import Block, build_block, compute_body_root, get_proposer, hash_header
from flchain.crypto import Identity
from flchain.light import LightState, build_light_state, process_head
from flchain.messages import Body, Certificate, Commit, Header, Phase, Proposal, Settlement, Transfer, Vote
from flchain.packets import PacketType, encode_packet
from flchain.state import Validator, compute_validators_hash
from flchain.trust import Head, encode_sets
from flchain.types import UnixMillis, View
from flchain.wire import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    decode_struct,
    encode,
    encode_struct,
    get_signature,
    seal,
)
from miner import values as mv
from tests.support.bad_fields import (
    OTHER_20,
    OTHER_32,
    Bench,
    Effect,
    Line,
    Outcome,
    Row,
    attempt,
    build_rows,
    build_shape_rows,
)
from tests.support.bad_fields_messages import SHAPES as MESSAGE_SHAPES
from tests.support.bad_fields_messages import STRANGER
from tests.support.bad_fields_nodes import CHAIN, DEVICE, HOLDER, TOPICS, ask_miner, build_miner, drive
from tests.support.chain_builder import NO_CLOCK, make_scores, seal_score_reveal
from tests.support.light_driver import as_value
from tests.support.stake_builder import StakeDriver, accuse

DROPPED, IGNORED, NIL, TAKEN = Effect.DROPPED, Effect.IGNORED, Effect.NIL, Effect.TAKEN
PROPOSED, FINAL, LIGHT = "bft, proposed to a miner", "to, final, to a miner", "head, to a device"
MOST = 2**53
FAR_MS = 10**15
HEADER_SHAPES = {
    "version": "one",
    "chain": "hash",
    "height": "positive",
    "time_ms": "counter",
    "round": "counter",
    "phase": "phase",
    "next_round": "counter",
    "next_phase": "phase",
    "previous": "hash",
    "proposer": "address",
    "body_root": "hash",
    "state_root": "hash",
    "model_hash": "hash",
    "validators_hash": "hash",
    "next_validators_hash": "hash",
}
BODY_SHAPES = {"transactions": "list", "orders": "list", "settlement": "list or null"}
SETTLEMENT_SHAPES = {"accepted": "list"}
CERTIFICATE_SHAPES = {"view": "counter", "signatures": "list"}


def _certify(
    header_bytes: bytes, height: object, signers: tuple[Identity, ...] = CHAIN.miners[:4], view: int = 0
) -> bytes:
    """The precommits of the four miners under these very bytes; the right height where there is none to sign for."""
    number = height if type(height) is int else 1
    vote = Vote(number, view, PRECOMMIT, hash_header(header_bytes))
    places = {key.address: place for place, key in enumerate(CHAIN.miners[:4])}
    signed = [(places[key.address], get_signature(seal(vote, CHAIN.id, key))) for key in signers]
    return encode_struct(Certificate(view, tuple(signed)))


# --- blocks that the others have made final --------------------------------------------------------------------------


@lru_cache
def get_settling() -> Block:
    """The block that settles the first round, with the scores of four miners and a mining device, and an order."""
    state = drive(Phase.SETTLE).state
    word = make_scores(state)
    said = [seal_score_reveal(CHAIN, number, word) for number in range(4)]
    said.append(seal(word, CHAIN.id, DEVICE))
    orders = [seal(Transfer(n, CHAIN.holders[1].public_key, 20), CHAIN.id, HOLDER) for n in range(2)]
    block, _ = build_block(state, get_proposer(state, View(0)), said, orders, NO_CLOCK)
    return block


def get_body() -> Body:
    return decode_struct(get_settling().body_bytes, Body, BODY_BYTES_MAX)


def send_final(header: Header, body: bytes | None = None, certificate: bytes | None = None) -> Outcome:
    """A header that all validators have signed as it is."""
    header_bytes = encode_struct(header)
    signed = _certify(header_bytes, header.height) if certificate is None else certificate
    packet = encode_packet(PacketType.BLOCK, header_bytes, signed, get_settling().body_bytes if body is None else body)
    topic = TOPICS.miner_to(CHAIN.miners[1].address, CHAIN.miners[0].address)
    return ask_miner(build_miner(Phase.SETTLE), topic, packet)


def send_body(body: Body) -> Outcome:
    """A body under a header that names it, final."""
    header = get_settling().header
    try:
        header = _with(header, body_root=compute_body_root(body))
    except TypeError:
        pass  # no body at all
    return send_final(header, encode_struct(body))


def _with(header: Header, **changes: Any) -> Header:
    return Header(**({name: getattr(header, name) for name in header.__struct_fields__} | changes))


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
    ("proposer", "no validator", DEVICE.address, "invalid-block", DROPPED, "no validator"),
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


def _first(sender: Identity | None = None) -> Identity:
    """Whose transaction is the first one of the body."""
    return min((*CHAIN.miners[:4], DEVICE), key=lambda key: key.address)


BODY_LINES: list[Line] = [
    ("transactions", "one twice", lambda b: (b.transactions[0], *b.transactions), "invalid-block", DROPPED, "in order"),
    ("transactions", "in another order", lambda b: b.transactions[::-1], "invalid-block", DROPPED, "in order"),
    ("transactions", "one missing", lambda b: b.transactions[:2], "invalid-block", DROPPED, "settlement"),
    ("transactions", "no signed message", _put(0, lambda: b""), "truncated", DROPPED),
    ("transactions", "bytes after one", lambda b: (b.transactions[0] + b"\0",), "not-canonical", DROPPED),
    ("transactions", "of another kind", _put(0, lambda: _commit()), "invalid-block", DROPPED, "a COMMIT in"),
    ("transactions", "of another round", _put(0, lambda: _score(_first(), 2)), "wrong-round", DROPPED),
    ("transactions", "of a stranger", lambda b: (_score(STRANGER),), "unknown-sender", DROPPED),
    ("transactions", "wrong signature", lambda b: (b.transactions[0][:-1] + b"\0",), "bad-signature", DROPPED),
    ("orders", "one twice", lambda b: (b.orders[0], *b.orders), "invalid-block", DROPPED, "orders are not in order"),
    ("orders", "in another order", lambda b: b.orders[::-1], "invalid-block", DROPPED, "orders are not in order"),
    ("orders", "one before it missing", lambda b: b.orders[1:], "wrong-sequence", DROPPED),
    ("orders", "no order", lambda b: b.transactions[:1], "malformed", DROPPED, "is no order"),
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


def _commit() -> bytes:
    return seal(Commit(1, OTHER_32), CHAIN.id, DEVICE)


# --- proposals ------------------------------------------------------------------------------------------------------


def get_leader() -> Identity:
    address = get_proposer(drive(Phase.OPEN).state, View(0))
    return next(key for key in CHAIN.miners if key.address == address)


@lru_cache
def get_follower() -> mv.MinerState:
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
    ("height", "-1", -1, "", IGNORED),
    ("height", "2^53+1", MOST + 1, "wrong-round", DROPPED),
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


# --- what a device hears --------------------------------------------------------------------------------------------


@lru_cache
def get_change() -> StakeDriver:
    """A chain whose fourth header changes the validators: one is jailed. A calm block follows."""
    driver = StakeDriver(CHAIN)
    for _ in range(3):
        driver.extend()
    driver.extend(orders=[accuse(driver.state, HOLDER, CHAIN.miners[3])])
    driver.extend()
    return driver


@lru_cache
def build_light(height: int = 1) -> LightState:
    light = build_light_state(CHAIN.genesis, CHAIN.model)
    for number in range(1, height + 1):
        light = process_head(light, get_change().get_head(number), NO_CLOCK)
    return light


def hear(head: Head, height: int = 1, clock_ms: UnixMillis = NO_CLOCK) -> Outcome:
    light = build_light(height)
    before = as_value(light)
    outcome = attempt(lambda: process_head(light, head, clock_ms))
    assert as_value(light) == before
    return outcome


def hear_unsigned(header: Header) -> Outcome:
    """A header changed after it was certified."""
    return hear(replace(get_change().get_head(2), header=encode_struct(header)))


def hear_signed(header: Header) -> Outcome:
    """A header that all validators have signed as it is: more than two thirds of the power lies."""
    header_bytes = encode_struct(header)
    return hear(Head(header_bytes, _certify(header_bytes, header.height), b""))


def get_second() -> Header:
    return get_change().blocks[1].header


HEARD = Bench("Header", LIGHT, get_second, hear_unsigned)
CERTIFIED = Bench("Header", LIGHT + ", certified by liars", get_second, hear_signed)


def build_heard_lines() -> list[Line]:
    """Whatever is changed after a header was certified, the certificate is not that of the header any more."""
    others: dict[str, Any] = {name: OTHER_32 for name in ("previous", "body_root", "state_root", "model_hash")}
    others |= {"time_ms": FAR_MS, "round": 9, "phase": Phase.SETTLE, "next_round": 9, "next_phase": Phase.SETTLE}
    others |= {"proposer": OTHER_20}
    lines: list[Line] = [(name, "another", value, "bad-certificate", DROPPED) for name, value in others.items()]
    return [
        *lines,
        ("chain", "another", OTHER_32, "invalid-block", DROPPED, "another chain"),
        ("height", "another", 3, "bad-certificate", DROPPED),
        ("height", "not newer", 1, "wrong-round", DROPPED),
        ("validators_hash", "another", OTHER_32, "malformed", DROPPED, "not the validators"),
        ("next_validators_hash", "another", OTHER_32, "malformed", DROPPED, "not the next validators"),
    ]


CERTIFIED_LINES: list[Line] = [
    ("chain", "another", OTHER_32, "invalid-block", DROPPED, "another chain"),
    ("height", "not newer", 1, "wrong-round", DROPPED),
    ("time_ms", "not later", 0, "invalid-block", DROPPED, "older time"),
    ("previous", "another", OTHER_32, "invalid-block", DROPPED, "does not extend"),
    ("validators_hash", "another", OTHER_32, "unknown-validators", DROPPED),
    ("next_validators_hash", "another", OTHER_32, "unknown-validators", DROPPED),
]


# --- certificates and sets ------------------------------------------------------------------------------------------


def get_certificate() -> Certificate:
    return decode_struct(get_change().certificates[1], Certificate, CERTIFICATE_BYTES_MAX)


def hear_certificate(certificate: Certificate) -> Outcome:
    return hear(replace(get_change().get_head(2), certificate=encode_struct(certificate)))


CERTIFICATE_BENCH = Bench("Certificate", LIGHT, get_certificate, hear_certificate)


def _sign(kind: int, height: int, block: int, signers: int = 4, view: int = 0) -> Callable[[Any], Any]:
    """Signatures of votes of this kind, height and block."""

    def build(_: Certificate) -> tuple[tuple[int, bytes], ...]:
        vote = Vote(height, view, kind, get_change().blocks[block - 1].hash)
        return tuple((n, get_signature(seal(vote, CHAIN.id, CHAIN.miners[n]))) for n in range(signers))

    return build


def _swap(certificate: Certificate) -> tuple[tuple[int, bytes], ...]:
    first, second, *others = certificate.signatures
    return ((0, second[1]), (1, first[1]), *others)


CERTIFICATE_LINES: list[Line] = [
    ("view", "another", 1, "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "none", (), "bad-certificate", DROPPED, "only power"),
    (
        "signatures",
        "of exactly half of the power",
        lambda c: c.signatures[:2],
        "bad-certificate",
        DROPPED,
        "only power",
    ),
    ("signatures", "one twice", lambda c: (c.signatures[0], *c.signatures), "bad-certificate", DROPPED, "out of order"),
    ("signatures", "falling", lambda c: c.signatures[::-1], "bad-certificate", DROPPED, "out of order"),
    (
        "signatures",
        "of no validator",
        lambda c: (*c.signatures, (4, b"s" * 64)),
        "bad-certificate",
        DROPPED,
        "no validator",
    ),
    ("signatures", "one wrong among enough", lambda c: (*c.signatures[:3], (3, b"s" * 64)), "bad-certificate", DROPPED),
    ("signatures", "two exchanged", _swap, "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of prevotes", _sign(1, 2, 2), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of another height", _sign(2, 3, 2), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of another block", _sign(2, 2, 3), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of another view", _sign(2, 2, 2, view=1), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of 63 bytes", ((0, b"s" * 63),), "malformed", DROPPED, "$[1][0][1]"),
    ("signatures", "of validator -1", ((-1, b"s" * 64),), "malformed", DROPPED, "$[1][0][0]"),
    ("signatures", "of validator 64", ((64, b"s" * 64),), "malformed", DROPPED, "$[1][0][0]"),
    ("signatures", "of validator true", ((True, b"s" * 64),), "malformed", DROPPED, "$[1][0][0]"),
]

SetRow = list[Any]
Sets = tuple[list[SetRow], list[SetRow]]


def get_sets() -> Sets:
    before, after = get_change().states[3].validators, get_change().states[4].validators
    return _list(before), _list(after)


def _list(validators: tuple[Validator, ...]) -> list[SetRow]:
    return [[v.address, v.public_key, v.power] for v in validators]


def hear_sets(sets: object) -> Outcome:
    data = sets if isinstance(sets, bytes) else encode(sets)
    return hear(replace(get_change().get_head(4), sets=data), 3)


SETS_BENCH = Bench("Validators", LIGHT, get_sets, hear_sets)
SET_FIELDS = ("address", "public_key", "power")


def build_sets_rows() -> list[Row]:
    """Both sets of validators beside a header that changes them."""
    rows = []

    def add(
        field: str, wrong: str, change: Callable[[Sets], object], code: str = "malformed", detail: str = ""
    ) -> None:
        rows.append(Row(SETS_BENCH, field, wrong, change, code, DROPPED, detail))

    for place, (field, values) in enumerate(
        zip(SET_FIELDS, ((OTHER_20, b"", 1), (OTHER_32, b"", None), (101, 0, -1, True, "1", 2**53 + 1)), strict=True)
    ):
        for value in values:
            for which in (0, 1):
                change = partial(_change_set, which=which, place=place, value=value)
                name = "another" if value in (OTHER_20, OTHER_32, 101) else repr(value)
                add(field, f"{name}, of who {'signs' if which == 0 else 'follows'}", change)
    add("set", "none", lambda sets: b"", "unknown-validators")
    add("set", "empty", lambda sets: ([], sets[1]), detail="no set")
    add("set", "one missing", lambda sets: (sets[0][1:], sets[1]), detail="not the validators")
    add("set", "one missing of who follows", lambda sets: (sets[0], sets[1][1:]), detail="not the next validators")
    add("set", "in another order", lambda sets: (sets[0][::-1], sets[1]), detail="in order of address")
    add("set", "one twice", lambda sets: ([sets[0][0], *sets[0]], sets[1]), detail="distinct")
    add("set", "65 validators", lambda sets: ([sets[0][0]] * 65, sets[1]), detail="no set")
    add("set", "exchanged", lambda sets: (sets[1], sets[0]), detail="not the validators")
    add("set", "three of them", lambda sets: (*sets, sets[0]), detail="length 2")
    add("set", "no array", lambda sets: encode(1))
    add("set", "longer than any", lambda sets: b"x" * 9_217, "oversized")
    return rows


def _change_set(sets: Sets, which: int, place: int, value: object) -> Sets:
    first, *others = sets[which]
    changed = [[*first[:place], value, *first[place + 1 :]], *others]
    return (changed, sets[1]) if which == 0 else (sets[0], changed)


Heard = tuple[Head, int]
"""A header as it travels, and what the device's clock says when it comes."""


def build_trust_rows() -> list[Row]:
    """Headers that are in order in themselves, but of validators whom this device has no reason to trust."""
    bench = Bench(
        "Head", LIGHT, lambda: (get_change().get_head(5), 0), lambda heard: hear(heard[0], 4, UnixMillis(heard[1]))
    )
    late_ms = get_change().states[4].time_ms + CHAIN.genesis.params.trusting_s * 1_000 + 1
    cases: tuple[tuple[str, Callable[[Heard], Heard], str], ...] = (
        ("have lost their seats, next height", lambda heard: (_forge(5), 0), "bad-certificate"),
        ("hold a third of the trusted power or less", lambda heard: (_forge(9), 0), "untrusted-validators"),
        ("were trusted longer ago than `trusting_s`", lambda heard: (heard[0], late_ms), "trust-expired"),
    )
    return [Row(bench, "signers", wrong, change, code, DROPPED) for wrong, change, code in cases]


def _forge(height: int) -> Head:
    """A header of strangers and one validator that has lost its seat, certified by all of these."""
    keys = sorted((STRANGER, CHAIN.miners[3]), key=lambda key: key.address)
    made = tuple(Validator(key.address, key.public_key, get_change().states[0].validators[0].power) for key in keys)
    hashes = compute_validators_hash(made)
    header = _with(
        get_change().blocks[4].header,
        height=height,
        time_ms=FAR_MS,
        validators_hash=hashes,
        next_validators_hash=hashes,
    )
    header_bytes = encode_struct(header)
    vote = Vote(height, 0, PRECOMMIT, hash_header(header_bytes))
    signed = [(key.address, get_signature(seal(vote, CHAIN.id, key))) for key in keys]
    return Head(header_bytes, build_certificate(made, View(0), signed), encode_sets(made, made))


# --- the rows ------------------------------------------------------------------------------------------------------


def build_block_rows() -> list[Row]:
    """Proposals and all that makes up a block."""
    rows = build_rows(PROPOSAL_BENCH, PROPOSAL_LINES)
    rows += build_shape_rows(PROPOSAL_BENCH, Proposal, MESSAGE_SHAPES[Proposal])
    for bench, lines in (
        (PROPOSED_BENCH, PROPOSED_LINES),
        (FINAL_BENCH, FINAL_LINES),
        (HEARD, build_heard_lines()),
        (CERTIFIED, CERTIFIED_LINES),
    ):
        rows += build_rows(bench, lines)
        rows += build_shape_rows(bench, Header, HEADER_SHAPES)
    rows += build_rows(BODY_BENCH, BODY_LINES) + build_shape_rows(BODY_BENCH, Body, BODY_SHAPES)
    rows += build_rows(SETTLEMENT_BENCH, SETTLEMENT_LINES)
    rows += build_shape_rows(SETTLEMENT_BENCH, Settlement, SETTLEMENT_SHAPES, prefix="$[2]")
    rows += build_rows(CERTIFICATE_BENCH, CERTIFICATE_LINES)
    rows += build_shape_rows(CERTIFICATE_BENCH, Certificate, CERTIFICATE_SHAPES)
    return rows + build_sets_rows() + build_trust_rows()
