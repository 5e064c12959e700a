"""COSE_Sign1 (RFC 9052) as signed messages use it: one algorithm, one form of the header, and so one frame.

Each value has only its canonical form, so a frame is recognised by comparing bytes with what they must be. Only what
differs is decoded, to say what is wrong with it.
"""

from __future__ import annotations

from typing import TypeAlias

import cbor2

from flchain.base.crypto import SIGNATURE_BYTES
from flchain.base.errors import BadSignature, MalformedMessage, NotCanonical, UnsignedMessage
from flchain.base.types import ADDRESS_BYTES, Address
from flchain.wire.cbor_form import COSE_SIGN1_TAG, decode_item

COSE_ALGORITHM, COSE_KEY_ID = 1, 4
ALGORITHM_EDDSA = -8

Parts: TypeAlias = tuple[Address, bytes, bytes, bytes]
"""Sender, protected header, payload, signature."""


def _encode(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _encode_bytes_head(size: int) -> bytes:
    if size < 24:
        return bytes((0x40 + size,))
    if size < 2**8:
        return bytes((0x58, size))
    return b"\x59" + size.to_bytes(2, "big") if size < 2**16 else b"\x5a" + size.to_bytes(4, "big")


def _encode_bytes(data: bytes) -> bytes:
    """Return the canonical CBOR of a byte string; by hand, as every signature and frame needs several."""
    return _encode_bytes_head(len(data)) + data


_SIGNATURE_HEAD = _encode(["Signature1", b"", b"", b""])[:-3]
_PROTECTED_HEAD = _encode({COSE_ALGORITHM: ALGORITHM_EDDSA, COSE_KEY_ID: bytes(ADDRESS_BYTES)})[:-ADDRESS_BYTES]
_PROTECTED_BYTES = len(_PROTECTED_HEAD) + ADDRESS_BYTES
_FRAME_HEAD = _encode(cbor2.CBORTag(COSE_SIGN1_TAG, [bytes(_PROTECTED_BYTES), {}, b"", b""]))[: -_PROTECTED_BYTES - 3]
_OPENING = _FRAME_HEAD + _PROTECTED_HEAD
"""The start of every signed message; the sender's address and the rest of the frame follow."""
_SENDER_END = len(_OPENING) + ADDRESS_BYTES
_NOTHING_UNPROTECTED = _encode({})
_PAYLOAD_START = _SENDER_END + len(_NOTHING_UNPROTECTED)
_ENDING = _encode_bytes_head(SIGNATURE_BYTES)
_ENDING_BYTES = len(_ENDING) + SIGNATURE_BYTES


def encode_protected(sender: bytes) -> bytes:
    """Return the protected header of a sender: the algorithm, and its address as key id."""
    return _PROTECTED_HEAD + sender


def build_signed_bytes(protected: bytes, external: bytes, payload: bytes) -> bytes:
    """Return what is signed (RFC 9052, 4.4): the Sig_structure ["Signature1", protected, external data, payload]."""
    return _SIGNATURE_HEAD + _encode_bytes(protected) + _encode_bytes(external) + _encode_bytes(payload)


def build_sign1(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    """Return the tagged COSE_Sign1 around these parts, of which the signature has SIGNATURE_BYTES."""
    return _FRAME_HEAD + protected + _NOTHING_UNPROTECTED + _encode_bytes(payload) + _encode_bytes(signature)


def split_sign1(raw: bytes) -> Parts:
    """Return the parts of a tagged COSE_Sign1. Raises InvalidMessage's subclasses."""
    return _split_frame(raw) or _read_frame(raw)


def cut_payload(raw: bytes) -> bytes:
    """Return the payload of a frame that `split_sign1` has taken."""
    start = _find_payload(raw)
    return raw[start:-_ENDING_BYTES] if start is not None else _read_frame(raw)[2]


def _split_frame(raw: bytes) -> Parts | None:
    """Return the parts of what `build_sign1` has built; None for anything else."""
    start = _find_payload(raw)
    if start is None:
        return None
    sender, protected = raw[len(_OPENING) : _SENDER_END], raw[len(_FRAME_HEAD) : _SENDER_END]
    return Address(sender), protected, raw[start:-_ENDING_BYTES], raw[-SIGNATURE_BYTES:]


def _find_payload(raw: bytes) -> int | None:
    """Return where the payload of what `build_sign1` has built begins; None for anything else."""
    end = len(raw) - _ENDING_BYTES
    if end <= _PAYLOAD_START or not raw.startswith(_OPENING) or raw[end : end + len(_ENDING)] != _ENDING:
        return None
    size = end - _PAYLOAD_START
    size -= 1 if size < 26 else 2 if size < 2**8 + 3 else 3 if size < 2**16 + 5 else 5
    start = end - size
    return start if raw[_SENDER_END:start] == _NOTHING_UNPROTECTED + _encode_bytes_head(size) else None


def _read_frame(raw: bytes) -> Parts:
    """Return the parts of a COSE_Sign1 that `build_sign1` has not built: at best its signature has another length."""
    value = decode_item(raw)
    if not isinstance(value, cbor2.CBORTag) or value.tag != COSE_SIGN1_TAG:
        raise UnsignedMessage("not a tagged COSE_Sign1")
    parts = value.value
    if not isinstance(parts, list) or len(parts) != 4:
        raise MalformedMessage("a COSE_Sign1 has four parts")
    protected, unprotected, payload, signature = parts
    if unprotected != {} or not all(isinstance(part, bytes) for part in (protected, payload, signature)):
        raise MalformedMessage("parts of the wrong type")
    if not signature:
        raise UnsignedMessage("an empty signature")
    return _read_protected(protected), protected, payload, signature


def _read_protected(protected: bytes) -> Address:
    header = decode_item(protected)
    if not isinstance(header, dict) or set(header) != {COSE_ALGORITHM, COSE_KEY_ID}:
        raise MalformedMessage("the protected header holds algorithm and key id only")
    sender = header[COSE_KEY_ID]
    if header[COSE_ALGORITHM] != ALGORITHM_EDDSA:
        raise BadSignature("EdDSA is the one algorithm")
    if not isinstance(sender, bytes) or len(sender) != ADDRESS_BYTES:
        raise MalformedMessage("the key id is an address")
    # Python's 1 equals True: a vote under the key `true` would count, and spoil every certificate that it goes into.
    if protected != encode_protected(sender):
        raise NotCanonical("another spelling of the protected header")
    return Address(sender)
