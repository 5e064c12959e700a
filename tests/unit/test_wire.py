"""Signed messages and structs: their exact bytes, and one error class for each way in which they can be wrong."""

from __future__ import annotations

import json
import tracemalloc

import cbor2
import msgspec
import pytest

from flchain import wire
from flchain.errors import (
    BadSignature,
    InvalidMessage,
    MalformedMessage,
    NotCanonical,
    OversizedMessage,
    TruncatedMessage,
    UnsignedMessage,
    WrongChain,
)
from flchain.messages import (
    MESSAGE_TYPES,
    AnyMessage,
    Body,
    Certificate,
    Commit,
    Header,
    Kind,
    Receipt,
    Reveal,
    ScoreReveal,
    Vote,
)
from flchain.wire import MESSAGE_BYTES_MAX, decode, decode_struct, encode, open_envelope, seal, verify_envelope
from tests.support.chain_builder import build_chain
from tests.vectors.make_messages import CHAIN, MESSAGES, PATH, STRUCTS, build_vectors

VECTORS = json.loads(PATH.read_text())
SENDER = CHAIN.devices[0]
COMMIT = Commit(1, b"c" * 32)
PREFIX = CHAIN.id[:8]


def read(raw: bytes, chain: bytes = CHAIN.id, public_key: bytes = SENDER.public_key) -> AnyMessage:
    return verify_envelope(open_envelope(raw, chain), chain, public_key)


def seal_payload(
    payload: bytes, kind: int = Kind.COMMIT, protected: object = None, unprotected: object = None
) -> bytes:
    """A correctly signed COSE_Sign1 around any payload."""
    header = encode({1: -8, 4: SENDER.address} if protected is None else protected)
    signed = encode(["Signature1", header, CHAIN.id + bytes((kind,)), payload])
    return encode(cbor2.CBORTag(18, [header, unprotected or {}, payload, SENDER.sign(signed)]))


def replace_part(raw: bytes, place: int, part: object) -> bytes:
    parts = list(cbor2.loads(raw).value)
    parts[place] = part
    return encode(cbor2.CBORTag(18, parts))


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
    assert verify_envelope(envelope, CHAIN.id, bytes.fromhex(entry["public_key"])) == message
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
    assert again.chain_id().hex() == VECTORS["chain"]


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
    other = open_envelope(seal(Commit(2, b"c" * 32), CHAIN.id, SENDER), CHAIN.id).payload
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
    full = ScoreReveal(2**53, b"s" * 16, 10_000, ((b"a" * 20, 10_000),) * 1024)
    assert read(seal(full, CHAIN.id, SENDER)) == full
    longer = ScoreReveal(2**53, b"s" * 16, 10_000, ((b"a" * 20, 10_000),) * 1400)
    with pytest.raises(OversizedMessage):
        open_envelope(seal(longer, CHAIN.id, SENDER), CHAIN.id)


def test_the_largest_update_fits_and_no_larger_one() -> None:
    """An update of the longest payload is read; one a little longer is refused before it is decoded."""
    largest = Reveal(2**53, b"s" * 16, 1, bytes(wire.UPDATE_BYTES_MAX))
    assert read(seal(largest, CHAIN.id, SENDER)) == largest
    with pytest.raises(OversizedMessage):
        open_envelope(bytes(MESSAGE_BYTES_MAX[Kind.REVEAL] + 1), CHAIN.id)


def test_decode_says_oversized_before_anything_else() -> None:
    """Garbage above the limit is oversized, not malformed."""
    with pytest.raises(OversizedMessage):
        decode(b"\xff" * 11, 10)


# ------------------------------------------------------------------------------------------ form of CBOR


@pytest.mark.parametrize("name", MESSAGES)
def test_every_truncation_is_refused(name: str) -> None:
    """A message cut off anywhere is truncated."""
    raw = seal(MESSAGES[name], CHAIN.id, SENDER)
    for size in range(len(raw)):
        with pytest.raises(TruncatedMessage):
            open_envelope(raw[:size], CHAIN.id)


@pytest.mark.parametrize(
    "data",
    [
        "1800",  # 0 in two bytes
        "1817",
        "190017",
        "1a0000ffff",
        "1b00000000ffffffff",
        "3800",  # -1 in two bytes
        "5800",  # an empty byte string with a long length
        "590001aa",
        "7800",
        "9800",
        "b800",
        "81" + "1801",  # inside an array
        "a1" + "180100",  # as a key
        "0000",  # trailing bytes
        "8000",
        "a2" + "0400" + "0100",  # unsorted keys
    ],
)
def test_a_second_encoding_is_not_canonical(data: str) -> None:
    """Numbers and lengths in more bytes than needed, unsorted keys and trailing bytes are not canonical."""
    with pytest.raises(NotCanonical):
        decode(bytes.fromhex(data), 100)


def test_a_second_encoding_inside_a_signed_payload() -> None:
    """A payload that is signed correctly but not canonical is refused, as are its protected header's unsorted keys."""
    payload = encode([1, PREFIX, 1, b"c" * 32])
    assert read(seal_payload(payload)) == COMMIT
    for changed in (payload + b"\0", payload.replace(b"\x01\x58", b"\x18\x01\x58"), b"\x98\x04" + payload[1:]):
        with pytest.raises(NotCanonical):
            open_envelope(seal_payload(changed), CHAIN.id)
    unsorted = b"\xa2\x04\x54" + SENDER.address + b"\x01\x27"
    with pytest.raises(NotCanonical):
        open_envelope(replace_part(seal_payload(payload), 0, unsorted), CHAIN.id)


# What a general CBOR decoder would make something of: floats, tags, simple values, indefinite lengths.
STRANGE = {
    "nan": "f97e00",
    "half": "f93c00",
    "single": "fa7f800000",
    "double": "fb3ff199999999999a",
    "undefined": "f7",
    "simple 0": "e0",
    "simple 19": "f3",
    "simple 255": "f8ff",
    "break": "ff",
    "reserved": "1c",
    "date": "c074323031332d30332d32315432303a30343a30305a",
    "epoch": "c100",
    "bignum": "c249010000000000000000",
    "small bignum": "c24101",
    "negative bignum": "c349010000000000000000",
    "decimal": "c48221196ab3",
    "enormous decimal": "c4821a3b9aca0001",
    "bigfloat": "c5822003",
    "rational": "d81e820102",
    "regular expression": "d823656128612b29",
    "mime": "d8246161",
    "uuid": "d82550" + "00" * 16,
    "address": "d9010444c0000201",
    "set": "d9010280",
    "shared": "d81c80",
    "self-described": "d9d9f700",
    "another signature": "d28443a10126a0404100",
    "indefinite bytes": "5f4100ff",
    "indefinite text": "7f6161ff",
    "indefinite array": "9fff",
    "indefinite map": "bfff",
}


@pytest.mark.parametrize("name", STRANGE)
def test_no_value_outside_the_protocol(name: str) -> None:
    """Floats, simple values, tags and indefinite lengths are malformed wherever they are, properly signed or not."""
    item = bytes.fromhex(STRANGE[name])
    head = encode([1, PREFIX, 1, b"c" * 32])
    for payload in (item, b"\x81" + item, b"\x84\x01\x48" + PREFIX + item + head[-34:], head[:-34] + item):
        with pytest.raises(MalformedMessage):
            open_envelope(seal_payload(payload), CHAIN.id)
    if name != "another signature":
        with pytest.raises(MalformedMessage):
            decode(item, 100)
    for nested in (b"\x81" + item, b"\xa1\x00" + item, b"\xa1" + item + b"\x00", b"\xd2" + item):
        with pytest.raises(MalformedMessage):
            decode(nested, 100)


def test_text_that_is_no_utf8() -> None:
    """Text of bytes that are not UTF-8, overlong forms and surrogates included, is malformed."""
    for text in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"):
        with pytest.raises(MalformedMessage):
            decode(bytes((0x60 + len(text),)) + text, 100)


def test_a_repeated_key() -> None:
    """A map in which a key stands twice is malformed."""
    with pytest.raises(MalformedMessage):
        decode(bytes.fromhex("a201000101"), 100)


@pytest.mark.parametrize(
    "data",
    [
        b"\x5b\x7f" + b"\xff" * 7,  # lengths that nobody has sent
        b"\x5a\x3f\xff\xff\xff",
        b"\x7b" + b"\xff" * 8,
        b"\x9b" + b"\xff" * 8,
        b"\x9a\x7f\xff\xff\xff",
        b"\xbb" + b"\xff" * 8,
        b"\x81" * 100_000 + b"\0",  # nesting
        b"\xa1\0" * 100_000 + b"\0",
        b"\xd2" * 100_000 + b"\0",
        b"\x9a\0\x0f\x42\x40" + b"\x80" * 1_000_000,  # a million lists
        b"\xc2\x5a\0\x0f\x42\x40" + b"\xff" * 1_000_000,  # a number of a million bytes
    ],
    ids=lambda data: data[:6].hex(),
)
def test_a_bomb_takes_no_memory(data: bytes) -> None:
    """Huge declared lengths, deep nesting, very many items and enormous numbers are refused without being built."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            open_envelope(data, CHAIN.id)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("number", [2**64, -(2**64) - 1, 10**5_000], ids=["65 bit", "-65 bit", "5000 digits"])
def test_a_number_too_long_to_print(number: int) -> None:
    """An enormous kind, round or field is malformed: an error text that shows its digits would itself be an error."""
    for payload in ([number, PREFIX, 1, b"c" * 32], [1, PREFIX, number, b"c" * 32], [1, PREFIX, 1, number]):
        with pytest.raises(MalformedMessage):
            open_envelope(seal_payload(encode(payload)), CHAIN.id)


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


@pytest.mark.parametrize("kind", [-1, 0, 10, 255, 2**63, True, False, None, b"", "commit", [1]], ids=repr)
def test_unknown_kinds(kind: object) -> None:
    """A kind that is not in the list, or no integer at all, is malformed."""
    with pytest.raises(MalformedMessage):
        open_envelope(seal_payload(encode([kind, PREFIX, 1, b"c" * 32])), CHAIN.id)


@pytest.mark.parametrize("payload", [[], [1], [1, PREFIX], {}, 1, b"", None, {0: 1, 1: PREFIX, 2: 1}], ids=repr)
def test_payloads_without_their_first_fields(payload: object) -> None:
    """A payload that is no list, or ends before its round or height, is malformed."""
    with pytest.raises(MalformedMessage):
        open_envelope(seal_payload(encode(payload)), CHAIN.id)


# ----------------------------------------------------------------------------------------------- fields


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_missing_or_too_many(name: str) -> None:
    """Each kind, correctly signed, with its last field missing or one field more is malformed."""
    message = MESSAGES[name]
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    for changed in (fields[:-1], [*fields, 0], [*fields, None], [*fields, fields[-1]]):
        payload = encode([int(message.kind), PREFIX, *changed])
        with pytest.raises(MalformedMessage):
            read(seal_payload(payload, message.kind))


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_of_another_type(name: str) -> None:
    """Each kind, correctly signed, with any field of another type is malformed: nothing is converted."""
    message = MESSAGES[name]
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    others: tuple[object, ...] = (1, True, b"b", "text", None, [1], {})
    for place, field in enumerate(fields):
        for other in others:
            is_nil = message.kind is Kind.VOTE and place == 3 and other is None
            if is_nil or (type(other) is type(field) and not isinstance(other, list)):
                continue
            changed = [*fields[:place], other, *fields[place + 1 :]]
            with pytest.raises(MalformedMessage):
                read(seal_payload(encode([int(message.kind), PREFIX, *changed]), message.kind))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.COMMIT, [-1, b"c" * 32]),
        (Kind.COMMIT, [2**53 + 1, b"c" * 32]),
        (Kind.REVEAL, [1, b"s" * 16, 0, b""]),
        (Kind.REVEAL, [1, b"s" * 16, 2**20, b""]),
        (Kind.REVEAL, [1, b"s" * 15, 1, b""]),
        (Kind.SCORE_REVEAL, [1, b"s" * 16, 10_001, []]),
        (Kind.SCORE_REVEAL, [1, b"s" * 16, -1, []]),
        (Kind.SCORE_REVEAL, [1, b"s" * 16, 1, [[b"a" * 20, 10_001]]]),
        (Kind.SCORE_REVEAL, [1, b"s" * 16, 1, [[b"a" * 20, 1, 1]]]),
        (Kind.PROPOSAL, [1, 0, -2, b"b" * 32]),
        (Kind.VOTE, [1, 0, 0, None]),
        (Kind.VOTE, [1, 0, 3, None]),
        (Kind.RECEIPT, [1, b"d" * 32, "x" * 33]),
    ],
)
def test_numbers_and_lengths_out_of_range(kind: Kind, fields: list[object]) -> None:
    """A field out of its range, correctly signed, is malformed."""
    with pytest.raises(MalformedMessage):
        read(seal_payload(encode([int(kind), PREFIX, *fields]), kind))


def test_structs_forbid_what_they_do_not_name() -> None:
    """Header, body, certificate and genesis with a field more, a field less or an unknown phase are malformed."""
    for name, value in STRUCTS.items():
        fields = msgspec.to_builtins(value, builtin_types=(bytes,))
        others: tuple[object, ...] = (fields[:-1], [*fields, 0], [], {}, None)
        for changed in others:
            with pytest.raises(MalformedMessage):
                decode_struct(encode(changed), type(value), 100_000)
        assert decode_struct(encode(fields), type(value), 100_000) == value, name
    header = msgspec.to_builtins(STRUCTS["header"], builtin_types=(bytes,))
    for place, wrong in ((0, 2), (2, 0), (4, 5), (4, "SETTLE"), (6, -1), (6, True)):
        with pytest.raises(MalformedMessage):
            decode_struct(encode([*header[:place], wrong, *header[place + 1 :]]), Header, 100_000)
    for signatures in ([[64, b"s" * 64]], [[0, b"s" * 63]], [[-1, b"s" * 64]], [[0]]):
        with pytest.raises(MalformedMessage):
            decode_struct(encode([0, signatures]), Certificate, 100_000)
    bodies: tuple[object, ...] = ([[1], None], [["text"], None], [[], []], [[], [[b"a" * 21]]], [None, None])
    for body in bodies:
        with pytest.raises(MalformedMessage):
            decode_struct(encode(body), Body, 100_000)


def test_what_is_sealed_can_be_read() -> None:
    """The longest values that a kind's fields allow fit the kind's size limit."""
    for message in (
        Receipt(2**53, b"d" * 32, "x" * 32),
        Vote(2**53, 2**53, 2, b"b" * 32),
        *(MESSAGES[name] for name in ("status", "ask", "proposal", "score commit")),
    ):
        assert read(seal(message, CHAIN.id, SENDER)) == message


def test_every_kind_has_a_type_and_a_limit() -> None:
    """No kind lacks a type or a size limit, and each type knows its kind."""
    assert set(MESSAGE_TYPES) == set(MESSAGE_BYTES_MAX) == set(Kind)
    assert all(message_type.kind is kind for kind, message_type in MESSAGE_TYPES.items())
