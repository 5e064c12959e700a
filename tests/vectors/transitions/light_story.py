"""A small chain from its genesis on, with all that devices hear of it: heads, bodies, models and payloads."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cbor2

from flchain.base.crypto import Identity
from flchain.ledger import certificate, snapshot, state
from flchain.ledger.block import hash_header
from flchain.ledger.genesis import Genesis
from flchain.ledger.params import ChainParams
from flchain.ledger.state import ChainState, Validator
from flchain.light import body as light_body
from flchain.light import trust
from flchain.wire import envelope
from flchain.wire.messages import Body, Delegate, DeviceEntry, Evidence, HolderEntry, Register, ValidatorEntry, Vote
from tests.vectors.transitions.story import BYTES_MAX, Story, forge
from tests.vectors.transitions.world import (
    BOTH,
    DEVICES,
    HOLDERS,
    MINERS,
    PARAMS,
    STRANGER,
    TIME_MS,
    make_vector,
    seal,
    untyped,
)

SIZE = 12
DEVICE_PLACES = tuple(i for i in range(5) if DEVICES[i] is not BOTH)[:3]
HOMES = (0, 2, 2)
BONDS = (5_000, 4_999, 2_502, 2_499)
"""The first has a third of the power exactly, the last two together just more."""
MODEL = make_vector(5, SIZE)
KEYS = {key.address: key for key in (*MINERS, *DEVICES, *HOLDERS, STRANGER)}


def make_genesis(**changes: Any) -> Genesis:
    """The genesis, with some parameters changed."""
    named = {name: getattr(PARAMS, name) for name in ChainParams.__struct_fields__}
    named |= {"parameters_count": SIZE, "initial_model_hash": state.hash_model(MODEL), "seats": 4, "epoch_rounds": 2}
    named |= {"downstream_codec": "sparse-ternary", "downstream_level": 3, "power_cap_bp": 4_001}
    return Genesis(
        version=1,
        name="told-to-devices",
        time_ms=TIME_MS,
        params=ChainParams(**(named | changes)),
        validators=tuple(
            ValidatorEntry(key.public_key, bond, 500 + i)
            for i, (key, bond) in enumerate(zip(MINERS, BONDS, strict=False))
        ),
        devices=tuple(
            DeviceEntry(DEVICES[place].public_key, MINERS[home].address)
            for place, home in zip(DEVICE_PLACES, HOMES, strict=True)
        ),
        holders=tuple(HolderEntry(key.public_key, 50_021 + i) for i, key in enumerate(HOLDERS[:2])),
    )


@dataclass(frozen=True)
class Told:
    """One height: the block, and the state after it."""

    header: bytes
    body: bytes
    before: ChainState
    after: ChainState

    @property
    def light_body(self) -> bytes:
        """What light devices take instead of the body."""
        return light_body.build_light_body(envelope.decode_struct(self.body, Body, BYTES_MAX), self.after.payload)

    def head(self, *, clock_ms: int = TIME_MS, has_sets: bool = True, **changes: Any) -> dict[str, Any]:
        """The event of the header, certified by those who have seats; `changes` are to fields of the header."""
        header = forge(self.header, self.body, **changes)["header"] if changes else self.header
        return make_head(header, self.before.validators, self.after.validators, clock_ms=clock_ms, has_sets=has_sets)

    def body_event(self, is_full: bool = True) -> dict[str, Any]:
        """The event of the body, or of the light one."""
        body = self.body if is_full else self.light_body
        return {"kind": "body", "height": int(self.after.height), "body": body}

    def snapshot(self, is_full: bool = True, **changes: Any) -> dict[str, Any]:
        """The event of the whole model."""
        vector = struct.pack(f"<{SIZE}i", *(int(v) for v in self.after.model))
        carried = snapshot.build_carried_proof(self.after) if is_full else b""
        return self.head() | {"kind": "snapshot", "vector": vector, "carried": carried} | changes

    def deltas(self, first: int, payloads: Sequence[object]) -> dict[str, Any]:
        """The event of all payloads from a round on."""
        return self.head() | {"kind": "deltas", "first": first, "deltas": tuple(payloads)}


def make_head(
    header: bytes,
    signing: Sequence[Validator],
    following: Sequence[Validator],
    *,
    clock_ms: int = TIME_MS,
    has_sets: bool = True,
    signers: Sequence[Identity] | None = None,
) -> dict[str, Any]:
    """The event of a header that these sign; all of `signing` if None."""
    fields = cbor2.loads(header)
    chain, height, block = fields[1], fields[2], hash_header(header)
    chosen = [KEYS[v.address] for v in signing] if signers is None else signers
    vote = Vote(height, 1, 2, block)
    signatures = [(key.address, envelope.get_signature(seal(vote, key, chain))) for key in chosen]
    proof = certificate.build_certificate(tuple(signing), untyped(1), signatures)
    sets = trust.encode_sets(tuple(signing), tuple(following)) if has_sets else b""
    return {"kind": "head", "header": header, "certificate": proof, "sets": sets, "clock_ms": clock_ms}


def tell() -> tuple[Genesis, dict[int, Told]]:
    """Five rounds: of the second an election changes the validators, the third accepts nothing, in the fourth one of
    them loses its seat, the fifth stays open with all updates there. By height."""
    made = make_genesis()
    begun = state.build_genesis_state(made, MODEL)
    story, told = Story(None, begun), {}

    def block(transactions: Sequence[bytes] = (), orders: Sequence[bytes] = ()) -> None:
        before = story.state
        proposer = KEYS[before.validators[0].address]
        parts = story.block("", "", transactions, orders, proposer=proposer, clock_ms=before.time_ms + 1_009)
        told[int(story.state.height)] = Told(*parts, before, story.state)

    def order(key: Identity, kind: Any, *fields: Any) -> bytes:
        account = story.state.accounts_by_address[key.address]
        return seal(kind(account.sequence, *fields), key, begun.chain)

    def score(scores: dict[int, int], orders: Sequence[bytes] = ()) -> None:
        keys = [KEYS[v.address] for v in story.state.validators]
        block(story.score_commits(keys, scores), orders)
        keys = [KEYS[v.address] for v in story.state.validators]
        block(story.score_reveals(keys, scores))

    first, second, third = DEVICE_PLACES
    block()
    block(story.commits(DEVICE_PLACES))
    block(story.reveals((first, third)))
    block(story.reveals((second,)))
    score({second: -500})
    block(story.commits(DEVICE_PLACES), [order(HOLDERS[0], Register, 77, 40_009)])
    block(story.reveals(DEVICE_PLACES), [order(HOLDERS[1], Delegate, MINERS[1].address, 20_011)])
    score({})
    block(story.commits(DEVICE_PLACES))
    block(story.reveals(DEVICE_PLACES))
    score(dict.fromkeys(DEVICE_PLACES, -500))
    block(story.commits(DEVICE_PLACES))
    block(story.reveals(DEVICE_PLACES))
    height = int(story.state.height) + 1
    words = [seal(Vote(height, 2, 1, value), MINERS[1], begun.chain) for value in (b"1" * 32, None)]
    score({}, [seal(Evidence(height, *words), HOLDERS[1], begun.chain)])
    block(story.commits(DEVICE_PLACES))
    block(story.reveals(DEVICE_PLACES))
    return made, told
