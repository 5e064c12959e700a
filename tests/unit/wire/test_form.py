"""The one form of a payload: canonical CBOR and nothing else, and each field's type and range."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from flchain.base.errors import MalformedMessage, NotCanonical, TruncatedMessage
from flchain.wire.envelope import decode, decode_struct, encode, open_envelope, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import MESSAGE_BYTES_MAX, MESSAGE_TYPES, Body, Certificate, Header, Receipt, Vote
from tests.support.builders.wire import COMMIT, PREFIX, SENDER, read, replace_part, seal_payload
from tests.vectors.make_messages import CHAIN, MESSAGES, STRUCTS

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
    payload = encode([1, PREFIX, 1, b"c" * 32, False])
    assert read(seal_payload(payload)) == COMMIT
    for changed in (payload + b"\0", payload.replace(b"\x01\x58", b"\x18\x01\x58"), b"\x98\x05" + payload[1:]):
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


NULLABLE: dict[tuple[Kind, int], type] = {(Kind.VOTE, 3): type(None), (Kind.STATUS, 17): int, (Kind.STATUS, 18): int}
"""Fields that may be null, and what else they may be that is among the others."""


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_of_another_type(name: str) -> None:
    """Each kind, correctly signed, with any field of another type is malformed: nothing is converted."""
    message = MESSAGES[name]
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    others: tuple[object, ...] = (1, True, b"b", "text", None, [1], {})
    for place, field in enumerate(fields):
        for other in others:
            kind = NULLABLE.get((message.kind, place))
            is_either = kind is not None and None in (field, other) and isinstance(other, kind | None)
            if is_either or (type(other) is type(field) and not isinstance(other, list)):
                continue
            changed = [*fields[:place], other, *fields[place + 1 :]]
            with pytest.raises(MalformedMessage):
                read(seal_payload(encode([int(message.kind), PREFIX, *changed]), message.kind))


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
    for place, wrong in ((0, 2), (2, 0), (3, -1), (5, 5), (5, "SETTLE"), (7, -1), (7, True)):
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
