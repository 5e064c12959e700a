"""Canonical CBOR <-> messages, signatures as COSE_Sign1 (RFC 9052), and every size limit.

A signed payload is the array [kind, chain prefix, fields...]. The external data of the signature is the whole chain id
and the kind. Checks go from cheap to dear: size, envelope, kind, chain, then (by the caller) round and known sender,
then the signature, and only then the fields are typed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import cbor2
import msgspec

from flchain.base.crypto import SIGNATURE_BYTES, Identity, hash_tagged, verify
from flchain.base.errors import (
    BadSignature,
    MalformedMessage,
    NotCanonical,
    OversizedMessage,
    UnsignedMessage,
    WrongChain,
)
from flchain.base.types import ADDRESS_BYTES, Address, Hash
from flchain.wire.cbor_form import COSE_SIGN1_TAG, check_form
from flchain.wire.messages import COUNTER_MAX, MESSAGE_TYPES, AnyMessage, Kind

CHAIN_PREFIX_BYTES = 8
COSE_ALGORITHM, COSE_KEY_ID = 1, 4
ALGORITHM_EDDSA = -8

UPDATE_BYTES_MAX = 16_000_000
"""An update's codec payload: 4 million parameters as they are."""
SMALL_BYTES_MAX = 512
MESSAGE_BYTES_MAX: dict[Kind, int] = {
    Kind.COMMIT: SMALL_BYTES_MAX,
    Kind.REVEAL: UPDATE_BYTES_MAX + SMALL_BYTES_MAX,
    Kind.SCORE_COMMIT: SMALL_BYTES_MAX,
    Kind.SCORE_REVEAL: 32_768,
    Kind.PROPOSAL: SMALL_BYTES_MAX,
    Kind.VOTE: SMALL_BYTES_MAX,
    Kind.RECEIPT: SMALL_BYTES_MAX,
    Kind.STATUS: SMALL_BYTES_MAX,
    Kind.ASK: SMALL_BYTES_MAX,
    Kind.RESUME: SMALL_BYTES_MAX,
    Kind.TRANSFER: SMALL_BYTES_MAX,
    Kind.REGISTER: SMALL_BYTES_MAX,
    Kind.DELEGATE: SMALL_BYTES_MAX,
    Kind.UNDELEGATE: SMALL_BYTES_MAX,
    Kind.UNJAIL: SMALL_BYTES_MAX,
    Kind.EVIDENCE: 3 * SMALL_BYTES_MAX,
}
HEADER_BYTES_MAX = 1_024
CERTIFICATE_BYTES_MAX = 8_192
SETS_BYTES_MAX = 9_216
"""Two sets of 64 validators."""
BODY_BYTES_MAX = 64_000_000
ORDERS_BYTES_MAX = 65_536
"""Of a body, the orders."""
SETTLEMENT_BYTES_MAX = 32_768
"""Of a body, its frame and a settlement of 1024 addresses."""

T = TypeVar("T")


def encode(value: object) -> bytes:
    """The canonical CBOR (RFC 8949, 4.2) of a value made of integers, byte strings, text, arrays and None."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, bytes_max: int) -> Any:
    """Decode canonical CBOR of at most `bytes_max` bytes.

    Raises OversizedMessage, TruncatedMessage, MalformedMessage or NotCanonical (a second encoding of the same value,
    trailing bytes included).
    """
    if len(data) > bytes_max:
        raise OversizedMessage(f"{len(data)} bytes, at most {bytes_max} are allowed")
    check_form(data)
    try:
        value = cbor2.loads(data, allow_indefinite=False, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MalformedMessage(f"no CBOR: {error}") from error
    try:
        again = encode(value)
    except (cbor2.CBOREncodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MalformedMessage(f"a value that no message holds: {error}") from error
    if again != data:
        raise NotCanonical("not the canonical encoding")
    return value


def encode_struct(value: msgspec.Struct) -> bytes:
    """The canonical bytes of a struct (header, body, certificate, genesis)."""
    return encode(msgspec.to_builtins(value, builtin_types=(bytes,)))


def decode_struct(data: bytes, kind: type[T], bytes_max: int) -> T:
    """Decode and type-check a struct. Raises InvalidMessage's subclasses as `decode` does."""
    return convert(decode(data, bytes_max), kind)


def convert(value: Any, kind: type[T]) -> T:
    """Type a decoded value; nothing is taken for what it is not. Raises MalformedMessage."""
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise MalformedMessage(f"{kind.__name__}: {error}") from error


@dataclass(frozen=True)
class Envelope:
    """A message whose form, kind and chain were checked; its signature and fields were not."""

    kind: Kind
    sender: Address
    number: int
    """The first field: the round or height that the message is for."""
    fields: list[Any]
    protected: bytes
    payload: bytes
    signature: bytes
    raw: bytes

    def digest(self) -> Hash:
        """The hash of the very bytes that were received."""
        return hash_message(self.raw)


def hash_message(raw: bytes) -> Hash:
    """The digest of a signed message's bytes."""
    return hash_tagged("message", raw)


def _signed_bytes(protected: bytes, chain: bytes, kind: int, payload: bytes) -> bytes:
    """RFC 9052, 4.4: Sig_structure of a COSE_Sign1."""
    return encode(["Signature1", protected, chain + bytes((kind,)), payload])


def _encode_protected(sender: bytes) -> bytes:
    return encode({COSE_ALGORITHM: ALGORITHM_EDDSA, COSE_KEY_ID: sender})


def _encode_payload(message: AnyMessage, chain: bytes) -> bytes:
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    return encode([int(message.kind), chain[:CHAIN_PREFIX_BYTES], *fields])


def seal(message: AnyMessage, chain: bytes, identity: Identity) -> bytes:
    """The signed bytes of a message: a tagged COSE_Sign1."""
    protected, payload = _encode_protected(identity.address), _encode_payload(message, chain)
    signature = identity.sign(_signed_bytes(protected, chain, message.kind, payload))
    return encode(cbor2.CBORTag(COSE_SIGN1_TAG, [protected, {}, payload, signature]))


def get_signature(raw: bytes) -> bytes:
    """The signature inside a message of our own making."""
    return raw[-SIGNATURE_BYTES:]


def verify_detached(message: AnyMessage, chain: bytes, sender: Address, public_key: bytes, signature: bytes) -> bool:
    """True if `signature` is that of `sender` under this very message, which did not travel with it."""
    protected, payload = _encode_protected(sender), _encode_payload(message, chain)
    return verify(public_key, _signed_bytes(protected, chain, message.kind, payload), signature)


def open_envelope(raw: bytes, chain: bytes) -> Envelope:
    """The cheap checks. Raises InvalidMessage's subclasses; the signature is for `verify_envelope`."""
    value = decode(raw, max(MESSAGE_BYTES_MAX.values()))
    if not isinstance(value, cbor2.CBORTag) or value.tag != COSE_SIGN1_TAG:
        raise UnsignedMessage("not a tagged COSE_Sign1")
    parts = value.value
    if not isinstance(parts, list | tuple) or len(parts) != 4:
        raise MalformedMessage("a COSE_Sign1 has four parts")
    protected, unprotected, payload, signature = parts
    if unprotected != {} or not all(isinstance(part, bytes) for part in (protected, payload, signature)):
        raise MalformedMessage("parts of the wrong type")
    if not signature:
        raise UnsignedMessage("an empty signature")
    sender = _read_protected(protected)
    fields = decode(payload, len(raw))
    if not isinstance(fields, list) or len(fields) < 3 or type(fields[0]) is not int or type(fields[2]) is not int:
        raise MalformedMessage("a payload is [kind, chain, round or height, ...]")
    if not 0 <= fields[2] <= COUNTER_MAX:
        raise MalformedMessage("no round, height or sequence number")
    if fields[0] not in MESSAGE_TYPES:
        raise MalformedMessage(f"unknown kind {fields[0]}")
    kind = Kind(fields[0])
    if len(raw) > MESSAGE_BYTES_MAX[kind]:
        raise OversizedMessage(f"{len(raw)} bytes for a {kind.name}")
    if fields[1] != chain[:CHAIN_PREFIX_BYTES]:
        raise WrongChain("made for another chain")
    return Envelope(kind, sender, fields[2], fields[2:], protected, payload, signature, raw)


def _read_protected(protected: bytes) -> Address:
    header = decode(protected, SMALL_BYTES_MAX)
    if not isinstance(header, dict) or set(header) != {COSE_ALGORITHM, COSE_KEY_ID}:
        raise MalformedMessage("the protected header holds algorithm and key id only")
    sender = header[COSE_KEY_ID]
    if header[COSE_ALGORITHM] != ALGORITHM_EDDSA:
        raise BadSignature("EdDSA is the one algorithm")
    if not isinstance(sender, bytes) or len(sender) != ADDRESS_BYTES:
        raise MalformedMessage("the key id is an address")
    # Python's 1 equals True: a vote under the key `true` would count, and spoil every certificate that it goes into.
    if protected != _encode_protected(sender):
        raise NotCanonical("another spelling of the protected header")
    return Address(sender)


def verify_envelope(envelope: Envelope, chain: bytes, public_key: bytes) -> AnyMessage:
    """Check the signature, then type the fields. Raises BadSignature or MalformedMessage."""
    signed = _signed_bytes(envelope.protected, chain, envelope.kind, envelope.payload)
    if not verify(public_key, signed, envelope.signature):
        raise BadSignature(f"{envelope.kind.name} of {envelope.sender.hex()}")
    message: AnyMessage = convert(envelope.fields, MESSAGE_TYPES[envelope.kind])
    return message
