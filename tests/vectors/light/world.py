"""What the vectors of light devices start from: a device at the transitions' world, and guards of any power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cbor2

from flchain.base.fixedpoint import encode_vector
from flchain.ledger.block import hash_header, is_settling
from flchain.ledger.snapshot import build_carried_proof
from flchain.ledger.state import ChainState, Validator, compute_validators_hash
from flchain.light.body import build_light_body
from flchain.light.follow import LightState
from flchain.light.trust import Trust, build_trust, encode_sets
from flchain.wire.envelope import decode_struct, encode_struct, get_signature
from flchain.wire.messages import Body, Delegate, Header, Phase, Vote
from tests.vectors.transitions.builders.orders import order
from tests.vectors.transitions.story import BYTES_MAX, Story
from tests.vectors.transitions.world import (
    CHAIN,
    HEAD,
    HEIGHT,
    HOLDERS,
    MINERS,
    TIME_MS,
    WORLD,
    make_keys,
    seal,
    untyped,
)

GUARDS = make_keys("guard", 7)
TRUSTING_MS = 50_021_000
"""As in the world's parameters."""
KEYS = {key.address: key for key in (*MINERS, *HOLDERS, *GUARDS)}
EVERYBODY = tuple(range(8))
Validators = tuple[Validator, ...]


def make_light(state: ChainState, is_full: bool = True) -> LightState:
    """A device that knows all of a state."""
    return LightState(
        params=state.params,
        trust=build_trust(state),
        device_keys={device.address: device.public_key for device in state.devices},
        homes={device.address: device.home for device in state.devices},
        round=state.round.number,
        phase=state.round.phase,
        chain_model_hash=state.model_hash,
        model_round=untyped(state.round.number - 1),
        reveals_round=untyped(0),
        model=state.model,
        model_hash=state.model_hash,
        is_full=is_full,
        carried=state.carried if is_full else None,
    )


BASE = make_light(WORLD)


def make_set(powers: Mapping[int, int]) -> Validators:
    """Guards with these powers, by place."""
    return tuple(Validator(GUARDS[i].address, GUARDS[i].public_key, untyped(powers[i])) for i in sorted(powers))


def trusting(validators: Validators, signing: Validators = (), **changes: Any) -> LightState:
    """A device that trusts these to sign the next block."""
    trust: Trust = replace(BASE.trust, signing=signing or validators, validators=validators, **changes)
    return replace(BASE, trust=trust)


def make_header(signing: Validators, following: Validators | None = None, ahead: int = 1, **changes: Any) -> bytes:
    """A header so many heights above the trusted one, that names these sets."""
    fields: dict[str, Any] = {
        "version": 1,
        "chain": CHAIN,
        "height": HEIGHT + ahead,
        "time_ms": TIME_MS + 1_009 * ahead,
        "round": 17,
        "phase": Phase.COMMIT,
        "next_round": 17,
        "next_phase": Phase.COMMIT,
        "previous": HEAD if ahead == 1 else bytes((ahead % 256,)) * 32,
        "proposer": GUARDS[0].address,
        "body_root": b"b" * 32,
        "state_root": b"s" * 32,
        "model_hash": WORLD.model_hash,
        "validators_hash": compute_validators_hash(signing),
        "next_validators_hash": compute_validators_hash(signing if following is None else following),
    }
    return encode_struct(Header(**fields | changes))


def sign(
    header: bytes, signing: Validators, places: Iterable[int] | None = None, *, vote: Vote | None = None, view: int = 0
) -> bytes:
    """A certificate with the signatures of those at these places of the set, of all if None."""
    fields = decode_struct(header, Header, BYTES_MAX)
    word = vote or Vote(fields.height, view, 2, hash_header(header))
    chosen = range(len(signing)) if places is None else places
    listed = [[i, get_signature(seal(word, KEYS[signing[i].address]))] for i in chosen]
    return write_certificate(view, listed)


def write_certificate(view: int, listed: Sequence[Sequence[Any]]) -> bytes:
    """A certificate with whatever stands in the list."""
    data: bytes = cbor2.dumps([view, [list(item) for item in listed]], canonical=True)
    return data


def read_signatures(certificate: bytes) -> list[list[Any]]:
    """The list of a certificate."""
    listed: list[list[Any]] = [list(item) for item in cbor2.loads(certificate)[1]]
    return listed


@dataclass(frozen=True)
class Page:
    """One height of a real chain, with all that devices may ask for."""

    before: ChainState
    after: ChainState
    header: bytes
    body: bytes
    certificate: bytes
    sets: bytes
    light_body: bytes

    @property
    def fields(self) -> Header:
        """The header's fields."""
        return decode_struct(self.header, Header, BYTES_MAX)

    def head(self, **changes: bytes) -> dict[str, Any]:
        """The header as it travels, as input of a vector."""
        given = {"header": self.header, "certificate": self.certificate, "sets": self.sets}
        return given | changes | {"clock_ms": self.fields.time_ms}

    def snapshot(self) -> dict[str, Any]:
        """Model and what is carried, as input of a vector."""
        return {"vector": encode_vector(self.after.model), "carried": build_carried_proof(self.after)}


class Chronicle:
    """Rounds 17 to 20 after the world's state, from height 132 on; the validators change after round 18."""

    def __init__(self) -> None:
        self._story = Story(None, WORLD)
        self.pages: list[Page] = []
        story = self._story
        stake = [order(HOLDERS[3], Delegate, MINERS[4].address, 20_011)]
        self._write(story.commits(EVERYBODY), stake)
        self._write(story.reveals((0, 1, 2, 3)))
        self._write(story.reveals((4, 5, 6, 7)))
        self._score({1: -500})
        self._write(story.commits(EVERYBODY))
        self._write(story.reveals(EVERYBODY))
        self._score(dict.fromkeys(EVERYBODY, -900))  # nobody is accepted: the model stays
        self._write(story.commits(EVERYBODY))
        self._write(story.reveals((0, 2)))
        self._write(story.reveals((1, 3, 4, 5, 6, 7)))
        self._score({})
        self._write(story.commits(EVERYBODY))
        self._write(story.reveals(EVERYBODY))
        self._score({7: -500})
        self._write(story.commits(EVERYBODY))

    def at(self, height: int) -> Page:
        """The page of a height."""
        return self.pages[height - HEIGHT - 1]

    def _score(self, scores: Mapping[int, int]) -> None:
        seated = [KEYS[validator.address] for validator in self._story.state.validators]
        self._write(self._story.score_commits(seated, scores))
        self._write(self._story.score_reveals(seated, scores))

    def _write(self, transactions: Iterable[bytes], orders: Iterable[bytes] = ()) -> None:
        before = self._story.state
        proposer = KEYS[before.validators[0].address]
        header, data = self._story.block("", "", transactions, orders, proposer=proposer)
        after, fields = self._story.state, decode_struct(header, Header, BYTES_MAX)
        body = decode_struct(data, Body, BYTES_MAX)
        signing = tuple(Validator(v.address, v.public_key, v.power) for v in before.validators)
        is_change = fields.validators_hash != fields.next_validators_hash
        self.pages.append(
            Page(
                before=before,
                after=after,
                header=header,
                body=data,
                certificate=sign(header, signing),
                sets=encode_sets(before.validators, after.validators) if is_change else b"",
                light_body=build_light_body(body, after.payload) if is_settling(fields) else b"",
            )
        )
