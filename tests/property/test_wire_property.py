"""Whatever bytes arrive, the decoders give a value that has exactly these bytes, or raise InvalidMessage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.errors import InvalidMessage, MalformedMessage
from flchain.base.types import Hash, Height
from flchain.ledger.certificate import verify_certificate
from flchain.ledger.genesis import Genesis
from flchain.wire.cbor_form import COSE_SIGN1_TAG, DEPTH_MAX, decode_item
from flchain.wire.chunks import CHUNK_BYTES, Assembly, process_chunk
from flchain.wire.envelope import decode, decode_struct, encode, encode_struct, open_envelope, seal, verify_envelope
from flchain.wire.fields import SCORE_MAX, Kind
from flchain.wire.messages import (
    Body,
    Certificate,
    Commit,
    Delegate,
    Evidence,
    Header,
    Proposal,
    Receipt,
    Register,
    Reveal,
    ScoreReveal,
    Transfer,
    Undelegate,
    Unjail,
    Vote,
)
from flchain.wire.packets import Packet, PacketType, decode_packet, encode_packet
from flchain.wire.topics import read_topic_owner
from tests.support.floats import floats
from tests.vectors.make_messages import CHAIN, MESSAGES, STRUCTS

SENDER = CHAIN.devices[0]
VALID = [seal(message, CHAIN.id, SENDER) for message in MESSAGES.values()]
VALID += [encode_struct(value) for value in STRUCTS.values()]
VALID += [encode_packet(PacketType.MESSAGE, VALID[0]), encode_packet(PacketType.CHUNK, b"d" * 32, 0, 2, b"piece")]

counters = st.integers(0, 2**53)
digests = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20)
salts = st.binary(min_size=16, max_size=16)
score_numbers = st.integers(0, SCORE_MAX)
listed = st.lists(st.tuples(addresses, score_numbers), max_size=20).map(tuple)
amounts = st.integers(1, 2**53)
messages = st.one_of(
    st.builds(Commit, counters, digests),
    st.builds(Reveal, counters, salts, st.integers(1, 2**20 - 1), st.binary(max_size=300)),
    st.builds(ScoreReveal, counters, salts, score_numbers, listed, listed),
    st.builds(Proposal, counters, counters, st.integers(-1, 2**53), digests),
    st.builds(Vote, counters, counters, st.integers(1, 2), st.none() | digests),
    st.builds(Receipt, counters, digests, st.text(st.characters(codec="utf-8"), max_size=32)),
    st.builds(Transfer, counters, digests, amounts),
    st.builds(Register, counters, st.integers(0, 10_000), amounts),
    st.builds(Delegate, counters, addresses, amounts),
    st.builds(Undelegate, counters, addresses, amounts),
    st.builds(Unjail, counters),
    st.builds(Evidence, counters, st.binary(max_size=200), st.binary(max_size=200)),
)
# All that CBOR can say, floats and tags included, in the places where our fields are.
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    floats(),
    st.binary(max_size=40),
    st.text(max_size=8),
    st.just(cbor2.undefined),
    st.builds(cbor2.CBORSimpleValue, st.sampled_from([0, 19, 32, 255])),
    st.datetimes(timezones=st.just(timezone.utc)),
    st.decimals(),
    st.fractions(),
    st.uuids(),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
        st.builds(cbor2.CBORTag, st.integers(0, 2**64 - 1), inner),
    ),
    max_leaves=12,
)


@st.composite
def mutations(draw: Any) -> bytes:
    """Valid bytes with a few bytes changed, removed or put in."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def dump(value: object) -> bytes:
    """CBOR of anything that CBOR has; what this library cannot write becomes null."""
    try:
        return cbor2.dumps(value)
    except (cbor2.CBOREncodeError, ValueError, OverflowError):
        return b"\xf6"


garbage = st.one_of(st.binary(max_size=200), mutations(), values.map(dump))


def read_everything(data: bytes) -> None:
    """Give `data` to each decoder; each reads exactly these bytes or raises InvalidMessage."""
    for kind in (Header, Body, Certificate, Genesis):
        try:
            value = decode_struct(data, kind, 10_000)
        except InvalidMessage:
            continue
        assert isinstance(value, msgspec.Struct)
        assert encode_struct(value) == data
    try:
        envelope = open_envelope(data, CHAIN.id)
        message = verify_envelope(envelope, CHAIN.id, SENDER.public_key).message
    except InvalidMessage:
        pass
    else:
        assert seal(message, CHAIN.id, SENDER) == data
    try:
        packet = decode_packet(data)
        if packet.type is PacketType.CHUNK:
            process_chunk(Assembly(), packet)
        assert encode_packet(packet.type, *packet.fields) == data
    except InvalidMessage:
        pass
    try:
        verify_certificate(Hash(CHAIN.id), CHAIN.state.validators, Height(1), Hash(b"b" * 32), data)
    except InvalidMessage:
        pass
    else:
        raise AssertionError("nobody has signed this block")


@given(garbage)
def test_no_decoder_raises_anything_but_invalid_message(data: bytes) -> None:
    """Random bytes, damaged messages and any CBOR are read exactly or refused; nothing else escapes."""
    read_everything(data)


def decode_by_library(data: bytes) -> object:
    """What `cbor2` makes of canonical bytes of our types; raises ValueError for any other bytes."""
    try:
        value = thaw(cbor2.loads(data, allow_indefinite=False, allow_duplicate_keys=False))
        again = encode(value)
    except Exception as error:
        raise ValueError from error
    if again != data:
        raise ValueError("a second encoding")
    return value


def thaw(value: object, depth: int = 1) -> object:
    """A value made of 64-bit integers, bytes, text, booleans, null, lists and maps of plain keys: what messages are
    made of. Raises ValueError for any other. The library freezes what is inside a tag."""
    match value:
        case _ if depth > DEPTH_MAX:
            raise ValueError("too deep")
        case None | bool() | bytes() | str():
            return value
        case int() if -(2**64) <= value < 2**64:
            return value
        case list() | tuple():
            return [thaw(item, depth + 1) for item in value]
        case Mapping() if not any(isinstance(key, tuple | Mapping) for key in value):
            return {thaw(key, depth + 1): thaw(item, depth + 1) for key, item in value.items()}
        case cbor2.CBORTag() if value.tag == COSE_SIGN1_TAG and depth == 1:
            return cbor2.CBORTag(value.tag, thaw(value.value, depth + 1))
    raise ValueError("no value of ours")


def encode_canonically(value: object) -> bytes:
    try:
        return encode(value)
    except Exception:
        return b"\xf6"


@given(garbage | values.map(encode_canonically))
def test_the_decoder_takes_what_the_library_takes_and_no_more(data: bytes) -> None:
    """Canonical bytes of our types decode to what cbor2 decodes them to, and every other bytes are refused."""
    try:
        wanted = decode_by_library(data)
    except ValueError:
        with pytest.raises(MalformedMessage):
            decode_item(data)
    else:
        assert decode_item(data) == wanted
        assert encode(decode_item(data)) == data


@given(st.sampled_from(list(Kind)), st.lists(values, max_size=6), st.booleans())
def test_signed_garbage_is_refused(kind: Kind, fields: list[object], has_prefix: bool) -> None:
    """Any CBOR in the payload of a correctly signed message is typed or refused: a signer is no friend."""
    payload = dump([int(kind), *([CHAIN.id[:8]] if has_prefix else []), *fields])
    protected = encode({1: -8, 4: SENDER.address})
    signature = SENDER.sign(encode(["Signature1", protected, CHAIN.id + bytes((kind,)), payload]))
    read_everything(encode(cbor2.CBORTag(18, [protected, {}, payload, signature])))


@given(messages)
def test_what_is_sealed_is_read(message: Any) -> None:
    """A message of any allowed values is read back equal, by its sender's key alone."""
    raw = seal(message, CHAIN.id, SENDER)
    envelope = open_envelope(raw, CHAIN.id)
    assert verify_envelope(envelope, CHAIN.id, SENDER.public_key).message == message
    assert envelope.sender == SENDER.address


@given(values)
def test_what_decodes_has_one_encoding(value: object) -> None:
    """If bytes decode, encoding the value gives these bytes back."""
    data = dump(value)
    try:
        decoded = decode(data, 10_000)
    except InvalidMessage:
        return
    assert encode(decoded) == data


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"d" * 32, b"e" * 32, b"short"]) | st.binary(max_size=40),
            st.integers(-(2**63), 2**64 - 1) | st.integers(0, 3),
            st.integers(-(2**63), 2**64 - 1) | st.integers(0, 3),
            st.binary(max_size=20) | st.just(bytes(CHUNK_BYTES + 1)),
        ),
        max_size=12,
    )
)
def test_chunks_of_any_numbers_raise_only_invalid_message(chunks: list[tuple[bytes, int, int, bytes]]) -> None:
    """Chunks of any digest, index, count and piece are kept or refused, and never make a packet by chance."""
    assembly = Assembly()
    for fields in chunks:
        try:
            assembly, whole = process_chunk(assembly, Packet(PacketType.CHUNK, fields))
        except InvalidMessage:
            continue
        assert whole is None


@given(st.text(max_size=80) | st.from_regex(r"flchain/v1/[0-9a-f]{16}/device/[0-9A-Fa-f ]{38,42}/up"))
def test_topics_of_any_text_raise_only_invalid_message(topic: str) -> None:
    """A topic gives the address that is written in it, or is refused."""
    try:
        owner = read_topic_owner(topic)
    except InvalidMessage:
        return
    assert topic.split("/")[4] == owner.hex()
