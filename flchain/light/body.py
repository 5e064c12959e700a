"""What a light device takes instead of a settlement's body, and how the header proves it."""

from __future__ import annotations

import msgspec

from flchain.base.errors import InvalidBlock
from flchain.ledger.block import compute_body_roots, join_body_roots
from flchain.wire.envelope import BODY_BYTES_MAX, decode_struct, encode_struct
from flchain.wire.fields import Bytes32
from flchain.wire.messages import Body, Header, Settlement


class LightBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a light device takes instead of a settlement's body.

    It is enough to prove whose updates were accepted, and holds the payload that changes the model (see
    `model_step.apply_payload`).
    """

    transactions_root: Bytes32
    orders_root: Bytes32
    settlement: Settlement
    payload: bytes


def build_light_body(body: Body, payload: bytes) -> bytes:
    """Return the light body of a settled block, with the payload of its change. The body has a settlement."""
    assert body.settlement is not None
    return encode_struct(LightBody(*compute_body_roots(body), body.settlement, payload))


def decode_light_body(header: Header, body_bytes: bytes) -> LightBody:
    """Return the light body of a final header. Raises InvalidMessage's subclasses.

    The header proves whose updates were accepted; only the model that it leads to proves the payload.
    """
    body = decode_struct(body_bytes, LightBody, BODY_BYTES_MAX)
    roots = body.transactions_root, body.orders_root
    if join_body_roots(*roots, body.settlement) != header.body_root:
        raise InvalidBlock("the settlement is not the one the header names")
    return body
