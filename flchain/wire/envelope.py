"""Canonical CBOR <-> messages, signatures as COSE_Sign1 (RFC 9052), and every size limit.

A signed payload is the array [kind, chain prefix, fields...]. The external data of the signature is the whole chain id
and the kind. Checks go from cheap to expensive: size, envelope, kind, chain, then (by the caller) round and known
sender, then the signature, and only then the fields are typed. What has passed all of them is `Verified`: a node keeps
it as that, and no later stop opens the same bytes again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import cbor2
import msgspec

from flchain.base.crypto import SIGNATURE_BYTES, Identity, hash_tagged, verify
from flchain.base.errors import BadSignature, MalformedMessage, OversizedMessage, WrongChain
from flchain.base.types import Address, Hash
from flchain.codecs.decoded import DecodedUpdate
from flchain.wire.cbor_form import ITEMS_MAX, decode_item
from flchain.wire.cose import build_sign1, build_signed_bytes, cut_payload, encode_protected, split_sign1
from flchain.wire.fields import COUNTER_MAX, Kind
from flchain.wire.messages import MESSAGE_BYTES_MAX, MESSAGE_TYPES, AnyMessage

CHAIN_PREFIX_BYTES = 8

HEADER_BYTES_MAX = 1_024
CERTIFICATE_BYTES_MAX = 8_192
SETS_BYTES_MAX = 9_216
"""Two sets of 64 validators."""
BODY_BYTES_MAX = 64_000_000
ORDERS_BYTES_MAX = 65_536
"""The orders of a body."""
SETTLEMENT_BYTES_MAX = 32_768
"""The frame of a body and a settlement of 1024 addresses."""

T = TypeVar("T")


def encode(value: object) -> bytes:
    """Return the canonical CBOR (RFC 8949, 4.2) of a value made of integers, byte strings, text, arrays and None."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, bytes_max: int, items_max: int = ITEMS_MAX) -> Any:
    """Decode canonical CBOR of at most `bytes_max` bytes and `items_max` items.

    Raises OversizedMessage, TruncatedMessage, MalformedMessage or NotCanonical (a second encoding of the same value,
    trailing bytes included).
    """
    if len(data) > bytes_max:
        raise OversizedMessage(f"{len(data)} bytes, at most {bytes_max} are allowed")
    return decode_item(data, items_max)


def encode_struct(value: msgspec.Struct) -> bytes:
    """Return the canonical bytes of a struct (header, body, certificate, genesis)."""
    return encode(msgspec.to_builtins(value, builtin_types=(bytes,)))


def decode_struct(data: bytes, kind: type[T], bytes_max: int, items_max: int = ITEMS_MAX) -> T:
    """Decode and type-check a struct. Raises InvalidMessage's subclasses as `decode` does."""
    return convert(decode(data, bytes_max, items_max), kind)


def convert(value: Any, kind: type[T]) -> T:
    """Type a decoded value; no value is converted to another type. Raises MalformedMessage."""
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise MalformedMessage(f"{kind.__name__}: {error}") from error


class Envelope(msgspec.Struct, frozen=True):
    """A message whose form, kind and chain were checked; its signature and fields were not."""

    kind: Kind
    sender: Address
    number: int
    """The first field: the round or height that the message is for."""
    fields: list[Any]
    protected: bytes
    signature: bytes
    raw: bytes
    """The very bytes that were received. The payload is cut out of them where it is needed: an update that waits
    in a pool is long, and its bytes are there a second time in the fields."""

    def get_payload(self) -> bytes:
        """Return what was signed beside the protected header."""
        return cut_payload(self.raw)

    def digest(self) -> Hash:
        """Return the hash of the very bytes that were received."""
        return hash_message(self.raw)


class OpenedUpdate(msgspec.Struct, frozen=True):
    """The results computed once for a revealed update: the commitment that it opens, and its change."""

    commitment: Hash
    decoded: DecodedUpdate | None
    """None if it takes more memory than its share (see `codecs.decoded`)."""


class Verified(msgspec.Struct, frozen=True):
    """A message whose signature by `public_key` for `chain` was checked, and whose fields are typed."""

    envelope: Envelope
    message: AnyMessage
    chain: bytes
    public_key: bytes
    opened: OpenedUpdate | None = None
    """Only for an update, once the rules of its round have checked it."""
    words: tuple[Verified, Verified] | None = None
    """Only for evidence: the two messages of the accused."""

    @property
    def kind(self) -> Kind:
        """The kind, from the envelope."""
        return self.envelope.kind

    @property
    def sender(self) -> Address:
        """The signer."""
        return self.envelope.sender

    @property
    def number(self) -> int:
        """The round or height that the message is for."""
        return self.envelope.number

    @property
    def raw(self) -> bytes:
        """The very bytes that were received."""
        return self.envelope.raw

    def digest(self) -> Hash:
        """Return the hash of these bytes."""
        return self.envelope.digest()


Letter: TypeAlias = Envelope | Verified
"""A message that has at least been opened."""
Known: TypeAlias = Callable[[bytes], Verified | None]
"""Looks up what a node has verified before, by the very bytes."""


def know_nothing(raw: bytes) -> Verified | None:
    """Return None: for a node that keeps nothing, and for one that checks another's work anew."""
    return None


def hash_message(raw: bytes) -> Hash:
    """Return the digest of a signed message's bytes."""
    return hash_tagged("message", raw)


def _get_external(chain: bytes, kind: Kind) -> bytes:
    """Return what is signed beside the message: the whole chain id, and the kind."""
    return chain + bytes((kind,))


def _encode_payload(message: AnyMessage, chain: bytes) -> bytes:
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    return encode([int(message.kind), chain[:CHAIN_PREFIX_BYTES], *fields])


def seal(message: AnyMessage, chain: bytes, identity: Identity) -> bytes:
    """Return the signed bytes of a message: a tagged COSE_Sign1."""
    protected, payload = encode_protected(identity.address), _encode_payload(message, chain)
    signature = identity.sign(build_signed_bytes(protected, _get_external(chain, message.kind), payload))
    return build_sign1(protected, payload, signature)


def seal_verified(message: AnyMessage, chain: bytes, identity: Identity) -> Verified:
    """Sign a message of our own and return it as it is kept."""
    return Verified(open_envelope(seal(message, chain, identity), chain), message, chain, identity.public_key)


def get_signature(raw: bytes) -> bytes:
    """Return the signature inside a message of our own making."""
    return raw[-SIGNATURE_BYTES:]


def verify_detached(message: AnyMessage, chain: bytes, sender: Address, public_key: bytes, signature: bytes) -> bool:
    """Return True if `signature` is that of `sender` under this message, which travelled without it."""
    protected, payload = encode_protected(sender), _encode_payload(message, chain)
    return verify(public_key, build_signed_bytes(protected, _get_external(chain, message.kind), payload), signature)


_KINDS = {int(kind): kind for kind in MESSAGE_TYPES}


def open_envelope(raw: bytes, chain: bytes) -> Envelope:
    """Do the cheap checks. Raises InvalidMessage's subclasses; `verify_envelope` checks the signature."""
    if len(raw) > max(MESSAGE_BYTES_MAX.values()):
        raise OversizedMessage(f"{len(raw)} bytes, more than any message")
    sender, protected, payload, signature = split_sign1(raw)
    fields = decode(payload, len(raw))
    if not isinstance(fields, list) or len(fields) < 3 or type(fields[0]) is not int or type(fields[2]) is not int:
        raise MalformedMessage("a payload is [kind, chain, round or height, ...]")
    if not 0 <= fields[2] <= COUNTER_MAX:
        raise MalformedMessage("no round, height or sequence number")
    kind = _KINDS.get(fields[0])
    if kind is None:
        raise MalformedMessage(f"unknown kind {fields[0]}")
    if len(raw) > MESSAGE_BYTES_MAX[kind]:
        raise OversizedMessage(f"{len(raw)} bytes for a {kind.name}")
    if fields[1] != chain[:CHAIN_PREFIX_BYTES]:
        raise WrongChain("made for another chain")
    return Envelope(kind, sender, fields[2], fields[2:], protected, signature, raw)


def open_known(raw: bytes, chain: bytes, known: Known) -> Letter:
    """Return what this node has verified before, otherwise the opened message. Raises InvalidMessage's subclasses."""
    return known(raw) or open_envelope(raw, chain)


def verify_letter(letter: Letter, chain: bytes, public_key: bytes) -> Verified:
    """Check the signature, unless it was checked with this key and for this chain; type the fields.

    Raises BadSignature or MalformedMessage.
    """
    if isinstance(letter, Envelope):
        return verify_envelope(letter, chain, public_key)
    is_the_same = letter.public_key == public_key and letter.chain == chain
    return letter if is_the_same else verify_envelope(letter.envelope, chain, public_key)


def verify_envelope(envelope: Envelope, chain: bytes, public_key: bytes) -> Verified:
    """Check the signature, then type the fields. Raises BadSignature or MalformedMessage."""
    signed = build_signed_bytes(envelope.protected, _get_external(chain, envelope.kind), envelope.get_payload())
    if not verify(public_key, signed, envelope.signature):
        raise BadSignature(f"{envelope.kind.name} of {envelope.sender.hex()}")
    message: AnyMessage = convert(envelope.fields, MESSAGE_TYPES[envelope.kind])
    return Verified(envelope, message, chain, public_key)
