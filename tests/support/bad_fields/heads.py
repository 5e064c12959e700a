"""Bad input, third room: what a device hears, headers with their certificates and the validators beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from flchain.base.crypto import Identity
from flchain.base.types import UnixMillis, View
from flchain.ledger.block import hash_header
from flchain.ledger.certificate import PRECOMMIT, build_certificate
from flchain.ledger.state import Validator, compute_validators_hash
from flchain.light.body import LightBody
from flchain.light.follow import LightState, build_light_state, process_body, process_head
from flchain.light.trust import CertifiedHeader, encode_sets
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    decode_struct,
    encode,
    encode_struct,
    get_signature,
    seal,
)
from flchain.wire.messages import Certificate, Header, Phase, Settlement, Vote
from tests.support.bad_fields.messages import STRANGER
from tests.support.bad_fields.nodes import CHAIN, HOLDER, drive
from tests.support.bad_fields.table import (
    OTHER_20,
    OTHER_32,
    Bench,
    Effect,
    Line,
    Outcome,
    Row,
    attempt,
    build_rows,
    build_shape_rows,
)
from tests.support.builders.chain import NO_CLOCK
from tests.support.builders.stake import StakeDriver, accuse
from tests.support.light.driver import as_value, light_body_of

DROPPED = Effect.DROPPED
LIGHT = "head, to a device"
FAR_MS = 10**15
HEADER_SHAPES = {
    "version": "one",
    "chain": "hash",
    "height": "positive",
    "time_ms": "counter",
    "round": "counter",
    "phase": "phase",
    "next_round": "counter",
    "next_phase": "phase",
    "previous": "hash",
    "proposer": "address",
    "body_root": "hash",
    "state_root": "hash",
    "model_hash": "hash",
    "validators_hash": "hash",
    "next_validators_hash": "hash",
}
CERTIFICATE_SHAPES = {"view": "counter", "signatures": "list"}


def certify(
    header_bytes: bytes, height: object, signers: tuple[Identity, ...] = CHAIN.miners[:4], view: int = 0
) -> bytes:
    """The precommits of the four miners under these very bytes; the right height where there is none to sign for."""
    number = height if type(height) is int else 1
    vote = Vote(number, view, PRECOMMIT, hash_header(header_bytes))
    places = {key.address: place for place, key in enumerate(CHAIN.miners[:4])}
    signed = [(places[key.address], get_signature(seal(vote, CHAIN.id, key))) for key in signers]
    return encode_struct(Certificate(view, tuple(signed)))


def change(header: Header, **changes: Any) -> Header:
    return Header(**({name: getattr(header, name) for name in header.__struct_fields__} | changes))


# --- what a device hears --------------------------------------------------------------------------------------------


@lru_cache
def get_change() -> StakeDriver:
    """A chain whose fourth header changes the validators: one is jailed. A calm block follows."""
    driver = StakeDriver(CHAIN)
    for _ in range(3):
        driver.extend()
    driver.extend(orders=[accuse(driver.state, HOLDER, CHAIN.miners[3])])
    driver.extend()
    return driver


@lru_cache
def build_light(height: int = 1) -> LightState:
    light = build_light_state(CHAIN.genesis, CHAIN.model)
    for number in range(1, height + 1):
        light = process_head(light, get_change().get_head(number), NO_CLOCK)
    return light


def hear(head: CertifiedHeader, height: int = 1, clock_ms: UnixMillis = NO_CLOCK) -> Outcome:
    light = build_light(height)
    before = as_value(light)
    outcome = attempt(lambda: process_head(light, head, clock_ms))
    assert as_value(light) == before
    return outcome


def hear_unsigned(header: Header) -> Outcome:
    """A header changed after it was certified."""
    return hear(replace(get_change().get_head(2), header=encode_struct(header)))


def hear_signed(header: Header) -> Outcome:
    """A header that all validators have signed as it is: more than two thirds of the power lies."""
    header_bytes = encode_struct(header)
    return hear(CertifiedHeader(header_bytes, certify(header_bytes, header.height), b""))


def get_second() -> Header:
    return get_change().blocks[1].header


HEARD = Bench("Header", LIGHT, get_second, hear_unsigned)
CERTIFIED = Bench("Header", LIGHT + ", certified by liars", get_second, hear_signed)


def build_heard_lines() -> list[Line]:
    """Whatever is changed after a header was certified, the certificate is not that of the header any more."""
    others: dict[str, Any] = {name: OTHER_32 for name in ("previous", "body_root", "state_root", "model_hash")}
    others |= {"time_ms": FAR_MS, "round": 9, "phase": Phase.SETTLE, "next_round": 9, "next_phase": Phase.SETTLE}
    others |= {"proposer": OTHER_20}
    lines: list[Line] = [(name, "another", value, "bad-certificate", DROPPED) for name, value in others.items()]
    return [
        *lines,
        ("chain", "another", OTHER_32, "invalid-block", DROPPED, "another chain"),
        ("height", "another", 3, "bad-certificate", DROPPED),
        ("height", "not newer", 1, "wrong-round", DROPPED),
        ("validators_hash", "another", OTHER_32, "malformed", DROPPED, "not the validators"),
        ("next_validators_hash", "another", OTHER_32, "malformed", DROPPED, "not the next validators"),
    ]


CERTIFIED_LINES: list[Line] = [
    ("chain", "another", OTHER_32, "invalid-block", DROPPED, "another chain"),
    ("height", "not newer", 1, "wrong-round", DROPPED),
    ("time_ms", "not later", 0, "invalid-block", DROPPED, "older time"),
    ("previous", "another", OTHER_32, "invalid-block", DROPPED, "does not extend"),
    ("validators_hash", "another", OTHER_32, "unknown-validators", DROPPED),
    ("next_validators_hash", "another", OTHER_32, "unknown-validators", DROPPED),
]


# --- light bodies ---------------------------------------------------------------------------------------------------

END = 5
"""The height that settles the first round."""


def get_light_body() -> LightBody:
    return decode_struct(light_body_of(drive(Phase.COMMIT, 1), END), LightBody, BODY_BYTES_MAX)


def take_light_body(body: LightBody) -> Outcome:
    """What a light device that has the header makes of a light body."""
    light = build_light_state(CHAIN.genesis, CHAIN.model, is_full=False)
    light = process_head(light, drive(Phase.COMMIT, 1).get_head(END), NO_CLOCK)
    before = as_value(light)
    outcome = attempt(lambda: process_body(light, END, encode_struct(body)))
    assert as_value(light) == before
    return outcome


LIGHT_BODY_BENCH = Bench("LightBody", "light, to a light device", get_light_body, take_light_body)
LIGHT_BODY_SHAPES = {"transactions_root": "hash", "orders_root": "hash", "payload": "bytes"}
LIGHT_BODY_LINES: list[Line] = [
    ("transactions_root", "another", OTHER_32, "invalid-block", DROPPED, "not the one the header names"),
    ("orders_root", "another", OTHER_32, "invalid-block", DROPPED, "not the one the header names"),
    (
        "settlement",
        "others accepted",
        Settlement((OTHER_20,)),
        "invalid-block",
        DROPPED,
        "not the one the header names",
    ),
    ("settlement", "null", None, "malformed", DROPPED, "$[2]"),
    ("settlement", "a list of text", [["x"]], "malformed", DROPPED, "$[2]"),
    ("payload", "empty", b"", "malformed", DROPPED, "not the payload"),
    ("payload", "garbage", b"\xff" * 20, "malformed", DROPPED, "not the payload"),
    ("payload", "a byte after its end", lambda body: body.payload + b"\0", "malformed", DROPPED, "not the payload"),
]


# --- certificates and sets ------------------------------------------------------------------------------------------


def get_certificate() -> Certificate:
    return decode_struct(get_change().certificates[1], Certificate, CERTIFICATE_BYTES_MAX)


def hear_certificate(certificate: Certificate) -> Outcome:
    return hear(replace(get_change().get_head(2), certificate=encode_struct(certificate)))


CERTIFICATE_BENCH = Bench("Certificate", LIGHT, get_certificate, hear_certificate)


def _sign(kind: int, height: int, block: int, signers: int = 4, view: int = 0) -> Callable[[Any], Any]:
    """Signatures of votes of this kind, height and block."""

    def build(_: Certificate) -> tuple[tuple[int, bytes], ...]:
        vote = Vote(height, view, kind, get_change().blocks[block - 1].hash)
        return tuple((n, get_signature(seal(vote, CHAIN.id, CHAIN.miners[n]))) for n in range(signers))

    return build


def _swap(certificate: Certificate) -> tuple[tuple[int, bytes], ...]:
    first, second, *others = certificate.signatures
    return ((0, second[1]), (1, first[1]), *others)


CERTIFICATE_LINES: list[Line] = [
    ("view", "another", 1, "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "none", (), "bad-certificate", DROPPED, "only power"),
    (
        "signatures",
        "of exactly half of the power",
        lambda c: c.signatures[:2],
        "bad-certificate",
        DROPPED,
        "only power",
    ),
    ("signatures", "one twice", lambda c: (c.signatures[0], *c.signatures), "bad-certificate", DROPPED, "out of order"),
    ("signatures", "falling", lambda c: c.signatures[::-1], "bad-certificate", DROPPED, "out of order"),
    (
        "signatures",
        "of no validator",
        lambda c: (*c.signatures, (4, b"s" * 64)),
        "bad-certificate",
        DROPPED,
        "no validator",
    ),
    ("signatures", "one wrong among enough", lambda c: (*c.signatures[:3], (3, b"s" * 64)), "bad-certificate", DROPPED),
    ("signatures", "two exchanged", _swap, "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of prevotes", _sign(1, 2, 2), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of another height", _sign(2, 3, 2), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of another block", _sign(2, 2, 3), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of another view", _sign(2, 2, 2, view=1), "bad-certificate", DROPPED, "is wrong"),
    ("signatures", "of 63 bytes", ((0, b"s" * 63),), "malformed", DROPPED, "$[1][0][1]"),
    ("signatures", "of validator -1", ((-1, b"s" * 64),), "malformed", DROPPED, "$[1][0][0]"),
    ("signatures", "of validator 64", ((64, b"s" * 64),), "malformed", DROPPED, "$[1][0][0]"),
    ("signatures", "of validator true", ((True, b"s" * 64),), "malformed", DROPPED, "$[1][0][0]"),
]

SetRow = list[Any]
Sets = tuple[list[SetRow], list[SetRow]]


def get_sets() -> Sets:
    before, after = get_change().states[3].validators, get_change().states[4].validators
    return _list(before), _list(after)


def _list(validators: tuple[Validator, ...]) -> list[SetRow]:
    return [[v.address, v.public_key, v.power] for v in validators]


def hear_sets(sets: object) -> Outcome:
    data = sets if isinstance(sets, bytes) else encode(sets)
    return hear(replace(get_change().get_head(4), sets=data), 3)


SETS_BENCH = Bench("Validators", LIGHT, get_sets, hear_sets)
SET_FIELDS = ("address", "public_key", "power")


def build_sets_rows() -> list[Row]:
    """Both sets of validators beside a header that changes them."""
    rows = []

    def add(
        field: str, wrong: str, change: Callable[[Sets], object], code: str = "malformed", detail: str = ""
    ) -> None:
        rows.append(Row(SETS_BENCH, field, wrong, change, code, DROPPED, detail))

    for place, (field, values) in enumerate(
        zip(SET_FIELDS, ((OTHER_20, b"", 1), (OTHER_32, b"", None), (101, 0, -1, True, "1", 2**53 + 1)), strict=True)
    ):
        for value in values:
            for which in (0, 1):
                wrong_set = partial(_change_set, which=which, place=place, value=value)
                name = "another" if value in (OTHER_20, OTHER_32, 101) else repr(value)
                add(field, f"{name}, of who {'signs' if which == 0 else 'follows'}", wrong_set)
    add("set", "none", lambda sets: b"", "unknown-validators")
    add("set", "empty", lambda sets: ([], sets[1]), detail="not a set")
    add("set", "one missing", lambda sets: (sets[0][1:], sets[1]), detail="not the validators")
    add("set", "one missing of who follows", lambda sets: (sets[0], sets[1][1:]), detail="not the next validators")
    add("set", "in another order", lambda sets: (sets[0][::-1], sets[1]), detail="in order of address")
    add("set", "one twice", lambda sets: ([sets[0][0], *sets[0]], sets[1]), detail="distinct")
    add("set", "65 validators", lambda sets: ([sets[0][0]] * 65, sets[1]), detail="not a set")
    add("set", "exchanged", lambda sets: (sets[1], sets[0]), detail="not the validators")
    add("set", "three of them", lambda sets: (*sets, sets[0]), detail="length 2")
    add("set", "no array", lambda sets: encode(1))
    add("set", "longer than any", lambda sets: b"x" * 9_217, "oversized")
    return rows


def _change_set(sets: Sets, which: int, place: int, value: object) -> Sets:
    first, *others = sets[which]
    changed = [[*first[:place], value, *first[place + 1 :]], *others]
    return (changed, sets[1]) if which == 0 else (sets[0], changed)


Heard = tuple[CertifiedHeader, int]
"""A header as it travels, and what the device's clock says when it comes."""


def build_trust_rows() -> list[Row]:
    """Headers that are in order in themselves, but of validators whom this device has no reason to trust."""
    bench = Bench(
        "CertifiedHeader",
        LIGHT,
        lambda: (get_change().get_head(5), 0),
        lambda heard: hear(heard[0], 4, UnixMillis(heard[1])),
    )
    late_ms = get_change().states[4].time_ms + CHAIN.genesis.params.trusting_s * 1_000 + 1
    cases: tuple[tuple[str, Callable[[Heard], Heard], str], ...] = (
        ("have lost their seats, next height", lambda heard: (_forge(5), 0), "bad-certificate"),
        ("hold a third of the trusted power or less", lambda heard: (_forge(9), 0), "untrusted-validators"),
        ("were trusted longer ago than `trusting_s`", lambda heard: (heard[0], late_ms), "trust-expired"),
    )
    return [Row(bench, "signers", wrong, change, code, DROPPED) for wrong, change, code in cases]


def _forge(height: int) -> CertifiedHeader:
    """A header of strangers and one validator that has lost its seat, certified by all of these."""
    keys = sorted((STRANGER, CHAIN.miners[3]), key=lambda key: key.address)
    made = tuple(Validator(key.address, key.public_key, get_change().states[0].validators[0].power) for key in keys)
    hashes = compute_validators_hash(made)
    header = change(
        get_change().blocks[4].header,
        height=height,
        time_ms=FAR_MS,
        validators_hash=hashes,
        next_validators_hash=hashes,
    )
    header_bytes = encode_struct(header)
    vote = Vote(height, 0, PRECOMMIT, hash_header(header_bytes))
    signed = [(key.address, get_signature(seal(vote, CHAIN.id, key))) for key in keys]
    return CertifiedHeader(header_bytes, build_certificate(made, View(0), signed), encode_sets(made, made))


# --- the rows ------------------------------------------------------------------------------------------------------


def build_head_rows() -> list[Row]:
    """Everything that a light client checks of a header."""
    rows: list[Row] = []
    for bench, lines in ((HEARD, build_heard_lines()), (CERTIFIED, CERTIFIED_LINES)):
        rows += build_rows(bench, lines) + build_shape_rows(bench, Header, HEADER_SHAPES)
    rows += build_rows(CERTIFICATE_BENCH, CERTIFICATE_LINES)
    rows += build_shape_rows(CERTIFICATE_BENCH, Certificate, CERTIFICATE_SHAPES)
    rows += build_rows(LIGHT_BODY_BENCH, LIGHT_BODY_LINES)
    rows += build_shape_rows(LIGHT_BODY_BENCH, LightBody, LIGHT_BODY_SHAPES)
    return rows + build_sets_rows() + build_trust_rows()
