"""Vectors of the frame around a message. Each is signed as it is sent: only the frame's rules can refuse it."""

from __future__ import annotations

from typing import Any

import cbor2

from tests.vectors.transitions.builders.messages import OP
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import CHAIN, DEVICES, ROUND, WORLD

KEY = DEVICES[3]
COMMIT = 1
TAG, ALGORITHM, KEY_ID, EDDSA = 18, 1, 4, -8


def encode(value: object) -> bytes:
    """Canonical CBOR."""
    return cbor2.dumps(value, canonical=True)


def frame(protected: object = None, unprotected: object = None, tag: int = TAG, **more: Any) -> bytes:
    """A signed commitment, with the parts of its frame that are given in the place of the right ones."""
    right = {ALGORITHM: EDDSA, KEY_ID: KEY.address}
    header = protected if isinstance(protected, bytes) else encode(right if protected is None else protected)
    payload = encode([COMMIT, CHAIN[:8], ROUND, bytes((3,)) * 31 + b"!", False])
    signed = encode(["Signature1", header, CHAIN + bytes((COMMIT,)), payload])
    signature = more.get("signature", KEY.sign(signed))
    parts = [header, {} if unprotected is None else unprotected, payload, signature, *more.get("after", ())]
    return encode(cbor2.CBORTag(tag, parts))


def build(to: Recorder) -> None:
    """All vectors of frames."""
    address = KEY.address
    to.add("frame, right", "COSE_Sign1 of RFC 9052 (4.4), byte for byte.", OP, WORLD, raw=frame())
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "another tag": ({"tag": 17}, "malformed"),
        "a fifth part": ({"after": (b"",)}, "malformed"),
        "an empty signature": ({"signature": b""}, "unsigned"),
        "a short signature": ({"signature": bytes(63)}, "bad-signature"),
        "a long signature": ({"signature": bytes(65)}, "bad-signature"),
        "no signature but text": ({"signature": "s" * 64}, "malformed"),
        "something unprotected": ({"unprotected": {KEY_ID: address}}, "malformed"),
        "a list unprotected": ({"unprotected": []}, "malformed"),
        "another algorithm": ({"protected": {ALGORITHM: -7, KEY_ID: address}}, "bad-signature"),
        "no algorithm": ({"protected": {KEY_ID: address}}, "malformed"),
        "no sender": ({"protected": {ALGORITHM: EDDSA}}, "malformed"),
        "a key more": ({"protected": {ALGORITHM: EDDSA, KEY_ID: address, 5: b""}}, "malformed"),
        "a longer sender": ({"protected": {ALGORITHM: EDDSA, KEY_ID: address + b"!"}}, "malformed"),
        "a shorter sender": ({"protected": {ALGORITHM: EDDSA, KEY_ID: address[1:]}}, "malformed"),
        "a text for a sender": ({"protected": {ALGORITHM: EDDSA, KEY_ID: "a" * 20}}, "malformed"),
        "the key `true`": ({"protected": {True: EDDSA, KEY_ID: address}}, "not-canonical"),
        "keys in another order": ({"protected": b"\xa2\x04\x54" + address + b"\x01\x27"}, "not-canonical"),
    }
    for name, (parts, error) in wrong.items():
        claim = "A message has one spelling, and names what is wrong with any other."
        to.add(f"frame, {name}", claim, OP, WORLD, raw=frame(**parts), error=error)
