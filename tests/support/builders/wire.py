"""Signed messages by hand: any payload under a correct signature, and messages with one part replaced."""

from __future__ import annotations

from typing import Any

import cbor2

from flchain.wire.envelope import encode, open_envelope, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.fleet import Health, Status, UpdateState
from flchain.wire.messages import AnyMessage, Commit
from tests.vectors.make_messages import CHAIN

SENDER = CHAIN.devices[0]
COMMIT = Commit(1, b"c" * 32, False)
PREFIX = CHAIN.id[:8]


def build_word(round_number: int = 1, model_hash: bytes = b"m" * 32, **changes: Any) -> Status:
    """A device's word to its operator: nothing is known of its board, and it is well."""
    known = {
        "is_mismatch": False,
        "training_ms": 0,
        "bytes_up": 0,
        "bytes_down": 0,
        "written_ms": 0,
        "up_s": 0,
        "report_s": 900,
    }
    texts = {"name": "", "labels": (), "task": "", "version": "", "suite": "", "architecture": ""}
    health = {"health": Health.OK, "reason": "", "battery_percent": None, "temperature_c": None}
    update = {"release": 0, "update": UpdateState.NONE}
    return Status(**{"round": round_number, "model_hash": model_hash, **known, **texts, **health, **update, **changes})


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
