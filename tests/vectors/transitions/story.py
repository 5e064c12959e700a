"""Rounds driven block by block with real keys; each block of the story becomes a vector."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flchain.base.crypto import Identity
from flchain.base.types import UnixMillis
from flchain.ledger.block import compute_body_root
from flchain.ledger.state import ChainState
from flchain.rules import blocks
from flchain.wire.envelope import decode_struct, encode_struct
from flchain.wire.messages import (
    Body,
    Commit,
    Header,
    Reveal,
    ScoreCommit,
    ScoreReveal,
    Settlement,
    compute_score_commitment,
    compute_update_commitment,
)
from tests.support.builders.chain import open_all
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import DEVICES, MINERS, make_payload, seal

BYTES_MAX = 10_000_000


class Story:
    """A state that moves on with each block."""

    def __init__(self, to: Recorder | None, before: ChainState) -> None:
        self._to = to
        self.state = before

    def block(
        self,
        name: str,
        claim: str,
        transactions: Iterable[bytes] = (),
        orders: Iterable[bytes] = (),
        *,
        proposer: Identity = MINERS[0],
        clock_ms: int = 0,
    ) -> tuple[bytes, bytes]:
        """Make a block, record it, and go on after it; its header and body."""
        before = self.state
        letters = open_all(transactions, before.chain), open_all(orders, before.chain)
        block, self.state = blocks.build_block(before, proposer.address, *letters, UnixMillis(clock_ms))
        if self._to is not None:
            given: dict[str, Any] = {"header": block.header_bytes, "body": block.body_bytes}
            built: dict[str, Any] = {"proposer": proposer.address, "clock_ms": clock_ms}
            self._to.add(name, claim, "apply_block", before, **given, **built)
        return block.header_bytes, block.body_bytes

    def make_reveal(self, place: int, samples: int = 0) -> Reveal:
        """What the device at a place trained in the open round."""
        number = self.state.round.number
        salt = hashlib.sha256(b"salt %d %d" % (place, number)).digest()[:16]
        params, sender = self.state.params, DEVICES[place].address
        payload = make_payload(place + 10 * number, params.codec, params.codec_level, sender, params.parameters_count)
        return Reveal(number, salt, samples or 331 * (place + 1), payload)

    def commits(self, places: Iterable[int], pledged: Sequence[int] = ()) -> list[bytes]:
        """The commitments of these devices."""
        number = self.state.round.number
        name = self.state.chain
        bound = {i: compute_update_commitment(name, DEVICES[i].address, self.make_reveal(i)) for i in places}
        return [seal(Commit(number, bound[i], i in pledged), DEVICES[i], name) for i in bound]

    def reveals(self, places: Iterable[int]) -> list[bytes]:
        """The updates of these devices."""
        return [seal(self.make_reveal(i), DEVICES[i], self.state.chain) for i in places]

    def make_word(self, key: Identity, scores: Mapping[int, int], shift: int = 0) -> ScoreReveal:
        """A scorer's word: by place of device what its update gains, and the same for all aggregates."""
        homes = {device.address: device.home for device in self.state.devices}
        places = {key.address: i for i, key in enumerate(DEVICES)}
        senders = [reveal.sender for reveal in self.state.round.reveals]
        base = 6_000 + 7 * shift
        listed = tuple((bytes(sender), base + scores.get(places[sender], 3 * shift)) for sender in senders)
        miners = sorted({homes[sender] for sender in senders})
        aggregates = tuple((bytes(home), base + 5 + i - shift) for i, home in enumerate(miners))
        salt = hashlib.sha256(b"score salt" + key.address).digest()[:16]
        return ScoreReveal(self.state.round.number, salt, base, listed, aggregates)

    def score_commits(self, keys: Sequence[Identity], scores: Mapping[int, int]) -> list[bytes]:
        """The score commitments of these."""
        number, name = self.state.round.number, self.state.chain
        words = {key: self.make_word(key, scores, get_shift(key)) for key in keys}
        bound = {key: compute_score_commitment(name, key.address, word) for key, word in words.items()}
        return [seal(ScoreCommit(number, bound[key]), key, name) for key in words]

    def score_reveals(self, keys: Sequence[Identity], scores: Mapping[int, int]) -> list[bytes]:
        """The scores of these."""
        return [seal(self.make_word(key, scores, get_shift(key)), key, self.state.chain) for key in keys]


def get_shift(key: Identity) -> int:
    """A small number of one's own, so that no two say the same."""
    return key.address[0] % 11


def forge(header: bytes, body: bytes, **changes: object) -> dict[str, Any]:
    """A block with fields of its header changed; the body root is made to fit, if it is not one of them."""
    fields = decode_struct(header, Header, BYTES_MAX)
    root = compute_body_root(decode_struct(body, Body, BYTES_MAX))
    named = {name: getattr(fields, name) for name in Header.__struct_fields__}
    return {"header": encode_struct(Header(**(named | {"body_root": root} | changes))), "body": body}


def replace_body(
    body: bytes,
    *,
    transactions: Sequence[bytes] | None = None,
    orders: Sequence[bytes] | None = None,
    settlement: Settlement | None = None,
    is_settled: bool | None = None,
) -> bytes:
    """A body with parts changed; `is_settled` says that the settlement is one of them."""
    old = decode_struct(body, Body, BYTES_MAX)
    return encode_struct(
        Body(
            old.transactions if transactions is None else tuple(transactions),
            old.orders if orders is None else tuple(orders),
            old.settlement if is_settled is None else settlement,
        )
    )
