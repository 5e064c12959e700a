"""An adversary with old keys against a light client, as plain data: a plan of moves, played on a real chain.

What the adversary has at each moment: the keys of everybody who has no seat in the set that the device trusts, and of
those who have one, any with no more than a third of the power; all keys once the device's own clock says that its trust
is too old. That is what the trusting period is for: who has unbonded has nothing left to lose, and may sell its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Any, TypeAlias

import msgspec

from flchain.base.crypto import Identity
from flchain.base.errors import InvalidMessage
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Address, Power, UnixMillis
from flchain.ledger.block import compute_body_roots, hash_header, is_settling
from flchain.ledger.certificate import PRECOMMIT
from flchain.ledger.snapshot import build_carried_proof
from flchain.ledger.state import Validator, compute_validators_hash, hash_carried, hash_model
from flchain.light.body import LightBody
from flchain.light.follow import (
    LightState,
    build_light_state,
    process_body,
    process_head,
    process_payloads,
    process_snapshot,
)
from flchain.light.trust import CertifiedHeader, Trust, encode_sets
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    decode_struct,
    encode_struct,
    get_signature,
    seal,
)
from flchain.wire.messages import Body as DecodedBody
from flchain.wire.messages import Certificate, Register, Settlement, Undelegate, Vote
from tests.support.builders.chain import build_identity
from tests.support.builders.stake import StakeDriver, accuse, build_stake_chain

VARIANTS = 6
ROUNDS = 6
MINUTE_MS = 60_000
TRUSTING_S = 7_200
STRANGERS = tuple(build_identity(9, number) for number in range(3))
SET_CHOICES = 6
FAULTS = ("none", "none", "cut", "swapped", "pasted", "twice")


@dataclass(frozen=True)
class Honest:
    """A real header, perhaps with the certificate or the sets of another one, or with the adversary's next set."""

    height: int
    certificate: int | None = None
    sets: int | None = None
    is_following_forged: bool = False


@dataclass(frozen=True)
class Forge:
    """A header that never was, signed with the keys that the adversary has."""

    base: int
    ahead: int
    """Its height above that of the device."""
    late_ms: int
    signing: int
    following: int
    bought: int
    """With which of the trusted validators it begins to buy keys."""
    fault: str = "none"
    as_snapshot: bool = False
    extends: bool = True


@dataclass(frozen=True)
class Snapshot:
    """A real header with the model of perhaps another one, and what is carried at perhaps a third."""

    height: int
    model: int
    carried: int | None = None


@dataclass(frozen=True)
class Payloads:
    """A real header with payloads of real rounds, perhaps of others than lead to it, or garbage among them."""

    height: int
    first: int
    claimed: int
    """The round from which on they are said to be."""
    count: int
    garbage: int | None = None


@dataclass(frozen=True)
class Body:
    """A real body, perhaps under another height, or garbage."""

    height: int
    body: int | None


@dataclass(frozen=True)
class Light:
    """A light body under perhaps another height, its settlement and its payload of perhaps other rounds."""

    height: int
    body: int
    payload: int | None


@dataclass(frozen=True)
class Clock:
    """The device's clock jumps to this long after the time of the header that it trusts."""

    after_ms: int


Move: TypeAlias = Honest | Forge | Snapshot | Payloads | Body | Light | Clock


class Violation(AssertionError):
    """The device believes something that is not so."""


@lru_cache(maxsize=VARIANTS)
def build_turning_chain(variant: int) -> StakeDriver:
    """Six rounds with an election each: seats are won by higher bonds, given up, and lost by signing twice."""
    chooser = Random(variant)
    powers = [chooser.randrange(50, 200) for _ in range(4)]
    rules: dict[str, Any] = {"seats": chooser.choice((3, 4, 5)), "epoch_rounds": 1, "powers": powers}
    rules |= {"trusting_s": TRUSTING_S, "unbonding_s": 2 * TRUSTING_S}
    made = StakeDriver(build_stake_chain(holders=6, **rules))
    made.open()
    for number in range(ROUNDS):
        clock_ms = made.state.time_ms + chooser.randrange(5, 60) * MINUTE_MS
        newcomer = made.chain.holders[number]
        made.order(newcomer, Register, 1_000, chooser.randrange(60, 900), clock_ms=clock_ms)
        if number % 3 == 1 and len(made.state.validators) > 1:
            made.extend(orders=[accuse(made.state, newcomer, made.chain.miners[chooser.choice(made.seated)])])
        if number % 3 == 2:
            leaver = made.chain.miners[chooser.choice(made.seated)]
            own = sum(d.amount for d in made.state.delegations if d.delegator == d.candidate == leaver.address)
            made.order(leaver, Undelegate, leaver.address, own)
        made.run_round()
    return made


def count_changes(driver: StakeDriver) -> int:
    """Headers at which validators change."""
    return sum(b.header.validators_hash != b.header.next_validators_hash for b in driver.blocks)


@dataclass
class Game:
    """A device, the chain that is real, and what the adversary may do. `is_bounded` is False for one with too much."""

    driver: StakeDriver
    is_bounded: bool = True
    is_full: bool = True

    def __post_init__(self) -> None:
        chain = self.driver.chain
        self.light: LightState = build_light_state(chain.genesis, chain.model, is_full=self.is_full)
        self.clock_ms = self.light.trust.time_ms
        self.keys: dict[Address, Identity] = {key.address: key for key in (*chain.miners, *STRANGERS)}
        self.settled = [b.header.height for b in self.driver.blocks if is_settling(b.header)]
        self.models = {state.round.number - 1: state.model_hash for state in self.driver.states}

    @property
    def trust(self) -> Trust:
        """What the device trusts now."""
        return self.light.trust

    def play(self, moves: Sequence[Move]) -> None:
        """All moves; the device must stand on the real chain after each. Raises Violation."""
        for move in moves:
            if isinstance(move, Clock):
                self.clock_ms = UnixMillis(max(0, self.trust.time_ms + move.after_ms))
                continue
            try:
                self.light = self._hear(move)
            except InvalidMessage:
                continue
            finally:
                self.check()

    def check(self) -> None:
        """The header is real, the next validators are its own, and so is the model."""
        height = self.light.height
        if height > self.driver.state.height or self.driver.states[height].head != self.trust.head:
            raise Violation(f"stands at height {height}, which is not the chain's")
        real = [(v.address, v.public_key, v.power) for v in self.driver.states[height].validators]
        if [(v.address, v.public_key, v.power) for v in self.trust.validators] != real:
            raise Violation(f"believes others than the validators after height {height}")
        if not self.models[self.light.model_round] == self.light.model_hash == hash_model(self.light.model):
            raise Violation(f"holds another model than that of round {self.light.model_round}")
        end = self.driver.states[self.settled[self.light.model_round - 1]] if self.light.model_round else None
        real_carried = self.driver.states[0].carried_hash if end is None else end.carried_hash
        if self.light.carried is not None and hash_carried(self.light.carried) != real_carried:
            raise Violation(f"carries something else than the chain after round {self.light.model_round}")
        if self.light.accepted and self.light.accepted != self._get_settlement(self.light.model_round).accepted:
            raise Violation(f"believes others to be accepted in round {self.light.model_round}")

    def come_home(self) -> None:
        """What an honest miner answers: the headers at which validators changed, the newest, its model."""
        clock_ms = UnixMillis(self.trust.time_ms + self.trust.trusting_s * 1_000)  # as late as can be
        top = self.driver.state.height
        for block in self.driver.blocks:
            header = block.header
            is_change = header.validators_hash != header.next_validators_hash
            if header.height > self.light.height and (is_change or header.height == top):
                self.light = process_head(self.light, self.driver.get_head(header.height), clock_ms)
        model, carried = encode_vector(self.driver.state.model), build_carried_proof(self.driver.state)
        self.light = process_snapshot(self.light, self.driver.get_head(top), model, carried, clock_ms)
        self.check()
        if self.light.height != top or not self.light.is_synced:
            raise Violation(f"an honest miner brings it to height {self.light.height} only")

    def _hear(self, move: Honest | Forge | Snapshot | Payloads | Body | Light) -> LightState:
        match move:
            case Honest():
                return process_head(self.light, self._mix(move), self.clock_ms)
            case Snapshot(height, model, carried):
                return self._hear_snapshot(height, model, carried)
            case Payloads(height, first, claimed, count, garbage):
                payloads = [self._get_payload(number) for number in range(first, first + count)]
                said: list[object] = [b"x" if place == garbage else each for place, each in enumerate(payloads)]
                head = self.driver.get_head(self._place(height))
                return process_payloads(self.light, head, claimed, said, self.clock_ms)
            case Light(height, body, payload):
                roots = compute_body_roots(self._get_body(body))
                chosen = b"x" if payload is None else self._get_payload(payload)
                return process_body(
                    self.light, height, encode_struct(LightBody(*roots, self._get_settlement(body), chosen))
                )
            case Body(height, body):
                data = b"garbage" if body is None else self.driver.blocks[self._place(body) - 1].body_bytes
                return process_body(self.light, height, data)
        head = forge(self, move)
        if move.as_snapshot:
            return process_snapshot(self.light, head, encode_vector(self.driver.chain.model), b"", self.clock_ms)
        return process_head(self.light, head, self.clock_ms)

    def _hear_snapshot(self, height: int, model: int, carried: int | None) -> LightState:
        vector = encode_vector(self.driver.states[self._place(model)].model)
        proof = b"" if carried is None else build_carried_proof(self.driver.states[self._place(carried)])
        return process_snapshot(self.light, self.driver.get_head(self._place(height)), vector, proof, self.clock_ms)

    def _get_body(self, number: int) -> DecodedBody:
        """The body that settled a round."""
        block = self.driver.blocks[self.settled[(number - 1) % ROUNDS] - 1]
        return decode_struct(block.body_bytes, DecodedBody, BODY_BYTES_MAX)

    def _get_settlement(self, number: int) -> Settlement:
        settlement = self._get_body(number).settlement
        assert settlement is not None
        return settlement

    def _get_payload(self, number: int) -> bytes:
        """The payload of a round."""
        return self.driver.states[self.settled[(number - 1) % ROUNDS]].payload

    def _place(self, number: int) -> int:
        """A height of the chain."""
        return 1 + (number - 1) % len(self.driver.blocks)

    def _mix(self, move: Honest) -> CertifiedHeader:
        head = self.driver.get_head(self._place(move.height))
        if move.certificate is not None:
            head = replace(head, certificate=self.driver.certificates[self._place(move.certificate) - 1])
        if move.sets is not None:
            head = replace(head, sets=b"" if move.sets == 0 else self.driver.get_head(self._place(move.sets)).sets)
        if move.is_following_forged:
            keys = self.get_keys(0)
            own = tuple(Validator(key.address, key.public_key, Power(10)) for key in keys)
            head = replace(head, sets=encode_sets(self.driver.states[self._place(move.height) - 1].validators, own))
        return head

    def get_keys(self, bought: int) -> list[Identity]:
        """The keys that the adversary has at this moment, in order of address."""
        trusted = self.trust.validators
        seated = {validator.address for validator in trusted}
        is_expired = self.clock_ms > self.trust.time_ms + self.trust.trusting_s * 1_000
        own = {address for address in self.keys if address not in seated or is_expired}
        total, power = sum(v.power for v in trusted), 0
        for place in range(len(trusted)):
            validator = trusted[(place + bought) % len(trusted)]
            is_enough = 3 * (power + validator.power) > total if self.is_bounded else 3 * power > total
            if not is_enough:
                own.add(validator.address)
                power += validator.power
        return [self.keys[address] for address in sorted(own)]


def forge(game: Game, move: Forge) -> CertifiedHeader:
    """A header of the adversary's making, with sets and a certificate as good as its keys allow."""
    keys = game.get_keys(move.bought)
    sets = [_choose_set(game, keys, move, choice) for choice in (move.signing, move.following)]
    hashes = [compute_validators_hash(validators) for validators in sets]
    block = game.driver.blocks[move.base % len(game.driver.blocks)]
    height = max(1, game.trust.height + move.ahead)
    header = msgspec.structs.replace(
        block.header,
        height=height,
        time_ms=max(0, game.trust.time_ms + move.late_ms),
        previous=game.trust.head if move.extends else block.header.previous,
        model_hash=b"f" * 32,
        validators_hash=hashes[0],
        next_validators_hash=hashes[1],
    )
    header_bytes = encode_struct(header)
    vote = Vote(height, 0, PRECOMMIT, hash_header(header_bytes))
    return CertifiedHeader(header_bytes, _sign(game, vote, sets[0], keys, move), encode_sets(*sets))


def _choose_set(game: Game, keys: list[Identity], move: Forge, choice: int) -> tuple[Validator, ...]:
    """The adversary's own, the trusted one, a real one of before or after, or one mixed of these, its own grown."""
    own = {key.address: Validator(key.address, key.public_key, Power(10)) for key in keys}
    trusted = {v.address: Validator(v.address, v.public_key, v.power) for v in game.trust.validators}
    great = {a: replace(v, power=Power(10**6)) for a, v in own.items()}
    if choice == 1:
        made = trusted
    elif choice == 2:
        state = game.driver.states[move.base % len(game.driver.states)]
        made = {v.address: Validator(v.address, v.public_key, v.power) for v in state.validators}
    elif choice == 3:
        made = {a: great.get(a, v) for a, v in trusted.items()}
    elif choice == 4:
        made = trusted | great
    elif choice == 5:
        made = {a: v for a, v in own.items() if a in trusted} or own
    else:
        made = own
    return tuple(made[address] for address in sorted(made))


def _sign(game: Game, vote: Vote, signing: tuple[Validator, ...], keys: list[Identity], move: Forge) -> bytes:
    own = {key.address: key for key in keys}
    signed = [
        (place, get_signature(seal(vote, game.driver.chain.id, own[validator.address])))
        for place, validator in enumerate(signing)
        if validator.address in own
    ]
    if move.fault == "cut":
        signed = signed[:-1]
    elif move.fault == "swapped" and len(signed) > 1:
        signed[0], signed[1] = (signed[0][0], signed[1][1]), (signed[1][0], signed[0][1])
    elif move.fault == "twice":
        signed = sorted(signed * 2)
    elif move.fault == "pasted":  # real signatures of another block for the validators whose keys are missing
        real = game.driver.certificates[move.base % len(game.driver.certificates)]
        found = dict(decode_struct(real, Certificate, CERTIFICATE_BYTES_MAX).signatures)
        missing = [place for place in range(len(signing)) if place not in dict(signed) and place in found]
        signed = sorted((*signed, *((place, found[place]) for place in missing)))
    return encode_struct(Certificate(0, tuple(signed)))
