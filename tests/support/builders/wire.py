"""Signed messages by hand: any payload under a correct signature, and messages with one part replaced."""

from __future__ import annotations

import cbor2

from flchain.wire.envelope import encode, open_envelope, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.messages import AnyMessage, Commit
from tests.vectors.make_messages import CHAIN

SENDER = CHAIN.devices[0]
COMMIT = Commit(1, b"c" * 32, False)
PREFIX = CHAIN.id[:8]


def read(raw: bytes, chain: bytes = CHAIN.id, public_key: bytes = SENDER.public_key) -> AnyMessage:
    return verify_envelope(open_envelope(raw, chain), chain, public_key).message


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
