"""Signed messages: their exact bytes, and one error class for each way in which the envelope can be wrong."""

from __future__ import annotations

import json
import tracemalloc

import cbor2
import msgspec
import pytest

from flchain.base.errors import (
    BadSignature,
    InvalidMessage,
    MalformedMessage,
    NotCanonical,
    OversizedMessage,
    UnsignedMessage,
    WrongChain,
)
from flchain.wire import envelope as wire
from flchain.wire.envelope import decode, decode_struct, encode, open_envelope, seal, verify_envelope
from flchain.wire.fields import UPDATE_BYTES_MAX, Kind
from flchain.wire.messages import MESSAGE_BYTES_MAX, Commit, Reveal, ScoreReveal, Vote
from tests.support.builders.chain import build_chain
from tests.support.builders.wire import COMMIT, PREFIX, SENDER, read, replace_part, seal_payload
from tests.vectors.make_messages import CHAIN, MESSAGES, PATH, STRUCTS, build_vectors

VECTORS = json.loads(PATH.read_text())


# ------------------------------------------------------------------------------------------------ golden


def test_the_wire_format_has_not_changed() -> None:
    """Every kind of message, header, body, certificate and genesis still has the bytes that were committed."""
    assert build_vectors() == VECTORS
    assert {entry["kind"] for entry in VECTORS["messages"]} == set(Kind)


@pytest.mark.parametrize("entry", VECTORS["messages"], ids=lambda entry: entry["name"])
def test_committed_messages_are_read(entry: dict[str, str]) -> None:
    """The committed bytes of a message give the message back, with its sender, kind and number."""
    raw, message = bytes.fromhex(entry["raw"]), MESSAGES[entry["name"]]
    envelope = open_envelope(raw, bytes.fromhex(VECTORS["chain"]))
    assert verify_envelope(envelope, CHAIN.id, bytes.fromhex(entry["public_key"])).message == message
    assert (envelope.sender.hex(), envelope.kind) == (entry["address"], message.kind)
    assert envelope.number == msgspec.structs.astuple(message)[0]
    assert wire.get_signature(raw) == envelope.signature
    assert envelope.digest() == wire.hash_message(raw)


@pytest.mark.parametrize("name", VECTORS["structs"])
def test_committed_structs_are_read(name: str) -> None:
    """The committed bytes of a struct give it back."""
    value = STRUCTS[name]
    assert decode_struct(bytes.fromhex(VECTORS["structs"][name]), type(value), 100_000) == value


def test_chain_id_is_the_hash_of_the_genesis_bytes() -> None:
    """The chain id in messages follows from the genesis bytes alone."""
    again = decode_struct(bytes.fromhex(VECTORS["structs"]["genesis"]), type(CHAIN.genesis), 100_000)
    assert again.compute_id().hex() == VECTORS["chain"]


# -------------------------------------------------------------------------------------------- signatures


def test_a_message_without_tag_is_unsigned() -> None:
    """The parts of a COSE_Sign1 without its tag, and a bare payload, are refused as unsigned."""
    parts = cbor2.loads(seal(COMMIT, CHAIN.id, SENDER)).value
    values: tuple[object, ...] = (list(parts), [1, PREFIX, 1, b"c" * 32], 1, None, b"", "text", {})
    for value in values:
        with pytest.raises(UnsignedMessage):
            open_envelope(encode(value), CHAIN.id)


def test_an_empty_signature_is_unsigned() -> None:
    """A COSE_Sign1 whose signature is empty is refused as unsigned."""
    with pytest.raises(UnsignedMessage):
        open_envelope(replace_part(seal(COMMIT, CHAIN.id, SENDER), 3, b""), CHAIN.id)


@pytest.mark.parametrize("size", [1, 32, 63, 65, 128])
def test_a_signature_of_wrong_length(size: int) -> None:
    """A signature of another length is refused as a bad signature."""
    with pytest.raises(BadSignature):
        read(replace_part(seal(COMMIT, CHAIN.id, SENDER), 3, b"s" * size))


def test_every_flipped_bit_is_refused() -> None:
    """No message with one bit flipped anywhere is accepted, and nothing but InvalidMessage is raised."""
    for message in MESSAGES.values():
        raw = seal(message, CHAIN.id, SENDER)
        for place in range(0, len(raw) * 8, 1 if len(raw) < 200 else 7):
            flipped = bytearray(raw)
            flipped[place // 8] ^= 1 << place % 8
            with pytest.raises(InvalidMessage):
                read(bytes(flipped))


def test_the_signature_covers_kind_chain_sender_and_fields() -> None:
    """A valid signature put under another payload, header or key is a bad signature."""
    raw = seal(COMMIT, CHAIN.id, SENDER)
    other = open_envelope(seal(Commit(2, b"c" * 32, False), CHAIN.id, SENDER), CHAIN.id).get_payload()
    other_kind = encode([int(Kind.SCORE_COMMIT), PREFIX, 1, b"c" * 32])
    other_header = encode({1: -8, 4: CHAIN.devices[1].address})
    for place, part in ((2, other), (2, other_kind), (0, other_header)):
        with pytest.raises(BadSignature):
            read(replace_part(raw, place, part))
    with pytest.raises(BadSignature):
        read(raw, public_key=CHAIN.devices[1].public_key)


def test_a_detached_signature_is_of_one_vote() -> None:
    """A vote's signature fits this height, view, step, block, sender, key and chain, and no other."""
    vote = Vote(5, 1, 2, b"b" * 32)
    signature = wire.get_signature(seal(vote, CHAIN.id, SENDER))
    other = CHAIN.devices[1]

    def fits(message: Vote = vote, chain: bytes = CHAIN.id, who=SENDER.address, key: bytes = SENDER.public_key) -> bool:
        return wire.verify_detached(message, chain, who, key, signature)

    assert fits()
    for changed in (Vote(6, 1, 2, b"b" * 32), Vote(5, 2, 2, b"b" * 32), Vote(5, 1, 1, b"b" * 32), Vote(5, 1, 2, None)):
        assert not fits(changed)
    assert not fits(chain=b"x" * 32)
    assert not fits(who=other.address)
    assert not fits(key=other.public_key)


# ------------------------------------------------------------------------------------------------- chain


def test_a_message_of_another_chain() -> None:
    """Another chain's prefix is refused before the signature is looked at; the right prefix alone does not help."""
    other = build_chain(miners=2, devices=2, seed=8)
    raw = seal(COMMIT, other.id, SENDER)
    with pytest.raises(WrongChain):
        open_envelope(raw, CHAIN.id)
    twin = CHAIN.id[:8] + other.id[8:]
    with pytest.raises(BadSignature):
        read(seal(COMMIT, twin, SENDER))


@pytest.mark.parametrize("prefix", [b"", PREFIX[:7], CHAIN.id, 0, None, "text", [PREFIX]])
def test_a_chain_prefix_of_another_form(prefix: object) -> None:
    """A chain prefix that is shorter, longer or no bytes is another chain's."""
    with pytest.raises(WrongChain):
        open_envelope(seal_payload(encode([1, prefix, 1, b"c" * 32])), CHAIN.id)


# -------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.REVEAL, Kind.SCORE_REVEAL}))
def test_an_oversized_message_of_each_kind(kind: Kind) -> None:
    """A message longer than its own kind's limit is refused, though a longer kind would be allowed."""
    raw = seal_payload(encode([int(kind), PREFIX, 1, b"c" * MESSAGE_BYTES_MAX[kind]]), kind)
    with pytest.raises(OversizedMessage):
        open_envelope(raw, CHAIN.id)


def test_an_oversized_score() -> None:
    """Scores of more than their limit are refused, and those of 1024 updates fit."""
    full = ScoreReveal(2**53, b"s" * 16, 10_000, ((b"a" * 20, 10_000),) * 1024, ((b"m" * 20, 10_000),) * 64)
    assert read(seal(full, CHAIN.id, SENDER)) == full
    longer = ScoreReveal(2**53, b"s" * 16, 10_000, ((b"a" * 20, 10_000),) * 1400, ())
    with pytest.raises(OversizedMessage):
        open_envelope(seal(longer, CHAIN.id, SENDER), CHAIN.id)


def test_the_largest_update_fits_and_no_larger_one() -> None:
    """An update of the longest payload is read; one a little longer is refused before it is decoded."""
    largest = Reveal(2**53, b"s" * 16, 1, bytes(UPDATE_BYTES_MAX))
    assert read(seal(largest, CHAIN.id, SENDER)) == largest
    with pytest.raises(OversizedMessage):
        open_envelope(bytes(MESSAGE_BYTES_MAX[Kind.REVEAL] + 1), CHAIN.id)


def test_decode_says_oversized_before_anything_else() -> None:
    """Garbage above the limit is oversized, not malformed."""
    with pytest.raises(OversizedMessage):
        decode(b"\xff" * 11, 10)


# ----------------------------------------------------------------------------------------- form of COSE


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"", {}, b""],
        [b"", {}, b"", b"s", b""],
        {},
        b"",
        1,
        None,
        ["", {}, b"", b"s"],
        [b"", {}, "", b"s"],
        [b"", {}, None, b"s"],
        [b"", {}, b"", "s"],
        [b"", {}, b"", None],
        [b"", None, b"", b"s"],
        [b"", [], b"", b"s"],
    ],
    ids=repr,
)
def test_other_parts_than_a_signature_has(parts: object) -> None:
    """A tagged COSE_Sign1 with other than its four parts, or parts of other types, is malformed."""
    with pytest.raises(MalformedMessage):
        open_envelope(encode(cbor2.CBORTag(18, parts)), CHAIN.id)


def test_nothing_travels_unprotected() -> None:
    """A COSE_Sign1 with anything in its unprotected header, which nobody signs, is malformed."""
    raw = seal(COMMIT, CHAIN.id, SENDER)
    for header in ({1: -8}, {4: SENDER.address}, {99: b""}):
        with pytest.raises(MalformedMessage):
            open_envelope(replace_part(raw, 1, header), CHAIN.id)


@pytest.mark.parametrize(
    "header",
    [{}, {1: -8}, {4: b"a" * 20}, {1: -8, 4: b"a" * 20, 5: b""}, {1: -8, 4: b"a" * 19}, {1: -8, 4: "a"}, [], 1, b""],
    ids=repr,
)
def test_other_protected_headers(header: object) -> None:
    """A protected header that is not exactly algorithm and address is malformed."""
    with pytest.raises(MalformedMessage):
        open_envelope(seal_payload(encode([1, PREFIX, 1, b"c" * 32]), protected=header), CHAIN.id)


@pytest.mark.parametrize("algorithm", [-7, -19, 5, 0, None, "EdDSA", False], ids=repr)
def test_eddsa_is_the_one_algorithm(algorithm: object) -> None:
    """Any other algorithm is a bad signature: the sender does not choose how it is checked."""
    header = {1: algorithm, 4: SENDER.address}
    with pytest.raises(BadSignature):
        open_envelope(seal_payload(encode([1, PREFIX, 1, b"c" * 32]), protected=header), CHAIN.id)


@pytest.mark.parametrize("kind", [-1, 0, 18, 255, 2**63, True, False, None, b"", "commit", [1]], ids=repr)
def test_unknown_kinds(kind: object) -> None:
    """A kind that is not in the list, or no integer at all, is malformed."""
    with pytest.raises(MalformedMessage):
        open_envelope(seal_payload(encode([kind, PREFIX, 1, b"c" * 32])), CHAIN.id)


@pytest.mark.parametrize("payload", [[], [1], [1, PREFIX], {}, 1, b"", None, {0: 1, 1: PREFIX, 2: 1}], ids=repr)
def test_payloads_without_their_first_fields(payload: object) -> None:
    """A payload that is no list, or ends before its round or height, is malformed."""
    with pytest.raises(MalformedMessage):
        open_envelope(seal_payload(encode(payload)), CHAIN.id)


def test_a_vote_that_counts_can_be_certified() -> None:
    """The key `true`, which Python takes for 1, is no second spelling: such a vote would spoil every certificate."""
    payload = encode([int(Kind.VOTE), PREFIX, 1, 0, 2, b"b" * 32])
    strange = seal_payload(payload, Kind.VOTE, {True: -8, 4: SENDER.address})
    with pytest.raises(NotCanonical):
        open_envelope(strange, CHAIN.id)
    vote = read(seal_payload(payload, Kind.VOTE))
    signature = wire.get_signature(seal_payload(payload, Kind.VOTE))
    assert wire.verify_detached(vote, CHAIN.id, SENDER.address, SENDER.public_key, signature)
    # What the strange one would bring into a certificate is no signature of the vote that others rebuild.
    assert not wire.verify_detached(vote, CHAIN.id, SENDER.address, SENDER.public_key, wire.get_signature(strange))


def test_a_message_that_waits_takes_twice_its_length() -> None:
    """A long update is in memory as the bytes that were received and as its field, and not a third time."""
    raw = seal(Reveal(1, bytes(16), 5, bytes(1_000_000)), CHAIN.id, SENDER)
    tracemalloc.start()
    try:
        said = verify_envelope(open_envelope(bytes(bytearray(raw)), CHAIN.id), CHAIN.id, SENDER.public_key)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert said.raw == raw and held < 2.1 * len(raw)
    assert raw.endswith(said.envelope.get_payload() + b"\x58\x40" + said.envelope.signature)
