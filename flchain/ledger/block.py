"""A block as bytes: header and body, its hash, and the Merkle root that ties the one to the other."""

from __future__ import annotations

from dataclasses import dataclass

from flchain.base import merkle
from flchain.base.crypto import hash_tagged
from flchain.base.errors import InvalidBlock
from flchain.base.types import Hash
from flchain.wire.envelope import BODY_BYTES_MAX, HEADER_BYTES_MAX, decode_struct, encode_struct
from flchain.wire.messages import Body, Header, Phase, Settlement


@dataclass(frozen=True)
class Block:
    """A block as it travels and as it is stored: canonical bytes of header and body."""

    header: Header
    header_bytes: bytes
    body_bytes: bytes

    @property
    def hash(self) -> Hash:
        """What validators vote for."""
        return hash_header(self.header_bytes)

    def decode_body(self) -> Body:
        """Return the body, which was checked with the block. Raises InvalidMessage's subclasses if it was not."""
        return decode_struct(self.body_bytes, Body, BODY_BYTES_MAX)


def is_settling(header: Header) -> bool:
    """Return True if the block settles its round: its body holds the settlement."""
    return header.next_round > header.round


def is_body_for_devices(header: Header) -> bool:
    """Return True if devices need the body to compute the next model: it holds updates or a settlement."""
    return header.phase is Phase.REVEAL or is_settling(header)


def hash_header(header_bytes: bytes) -> Hash:
    """Return the block hash: the tagged hash of the header's canonical bytes."""
    return hash_tagged("block", header_bytes)


def decode_block(header_bytes: bytes, body_bytes: bytes) -> tuple[Block, Body]:
    """Decode and check a block's form and that the body is the header's. Raises InvalidMessage's subclasses."""
    header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
    body = decode_struct(body_bytes, Body, BODY_BYTES_MAX)
    if compute_body_root(body) != header.body_root:
        raise InvalidBlock("the body is not the one the header names")
    return Block(header, header_bytes, body_bytes), body


def compute_body_root(body: Body) -> Hash:
    """Return the RFC 6962 root of three leaves: roots of transactions and orders, and the settlement (or nothing)."""
    return join_body_roots(*compute_body_roots(body), body.settlement)


def compute_body_roots(body: Body) -> tuple[Hash, Hash]:
    """Return the roots of a body's transactions and of its orders."""
    return merkle.compute_root(body.transactions), merkle.compute_root(body.orders)


def join_body_roots(transactions: bytes, orders: bytes, settlement: Settlement | None) -> Hash:
    """Return the body's root from the roots of its parts."""
    return merkle.compute_root((transactions, orders, encode_struct(settlement) if settlement is not None else b""))
