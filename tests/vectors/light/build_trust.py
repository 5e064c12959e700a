"""Vectors of trust: which headers a device believes, and whom it trusts to sign after them."""

from __future__ import annotations

from typing import Any

import cbor2

from flchain.ledger.block import hash_header
from flchain.ledger.state import Validator
from flchain.light.follow import LightState
from flchain.light.trust import encode_sets
from flchain.wire.messages import Vote
from tests.vectors.light.recorder import LightRecorder
from tests.vectors.light.world import (
    GUARDS,
    TRUSTING_MS,
    Validators,
    make_header,
    make_set,
    read_signatures,
    sign,
    trusting,
    write_certificate,
)
from tests.vectors.transitions.world import HEIGHT, MINERS, TIME_MS, untyped

OP = "verify_final"
BAD, INVALID, MALFORMED = "bad-certificate", "invalid-block", "malformed"
UNKNOWN, UNTRUSTED, EXPIRED = "unknown-validators", "untrusted-validators", "trust-expired"
FORM_ERRORS = {"no bytes": "truncated", "something behind": "not-canonical"}
NOW = TIME_MS + 5_000
OLD = make_set({0: 3, 1: 4, 2: 2, 3: 3})
"""Of 12 more than 8 have to sign a block, and more than 4 of those who are trusted have to be among them."""


def build(to: LightRecorder) -> None:
    """All vectors of trust."""
    _build_powers(to)
    _build_trimmed(to)
    _build_signatures(to)
    _build_skipping(to)
    _build_overlaps(to)
    _build_ages(to)
    _build_sets(to)
    _build_positions(to)


def ask(
    to: LightRecorder,
    name: str,
    claim: str,
    before: LightState,
    signed: tuple[bytes, bytes],
    *,
    sets: bytes = b"",
    clock_ms: int = NOW,
    error: str | None = None,
) -> None:
    """One header that a device hears of, with its certificate."""
    given: dict[str, Any] = {"header": signed[0], "certificate": signed[1], "sets": sets, "clock_ms": clock_ms}
    to.add(name, claim, OP, before, error=error, **given)


def _build_powers(to: LightRecorder) -> None:
    """More than two thirds of the power, counted exactly."""
    cases: tuple[tuple[str, dict[int, int], tuple[int, ...], str | None], ...] = (
        ("8 of 12", {0: 3, 1: 5, 2: 2, 3: 2}, (0, 1), BAD),
        ("9 of 12", {0: 4, 1: 5, 2: 1, 3: 2}, (0, 1), None),
        ("7 of 10", {0: 3, 1: 4, 2: 2, 3: 1}, (0, 1), None),
        ("6 of 10", {0: 3, 1: 3, 2: 2, 3: 2}, (0, 1), BAD),
        ("2 of 3", {0: 1, 1: 1, 2: 1}, (0, 2), BAD),
        ("3 of 3", {0: 1, 1: 1, 2: 1}, (0, 1, 2), None),
        ("3 of 4", {0: 1, 1: 1, 2: 1, 3: 1}, (1, 2, 3), None),
        ("one of one", {0: 7}, (0,), None),
        ("nobody", {0: 7}, (), BAD),
        ("large, two thirds", {0: 2**40, 1: 2**40, 2: 2**40}, (0, 1), BAD),
        ("large, one more", {0: 2**40, 1: 2**40 + 1, 2: 2**40 - 1}, (0, 1), None),
        ("many without power", {0: 7, 1: 1, 2: 1, 3: 1, 4: 1}, (1, 2, 3, 4), BAD),
    )
    for name, powers, places, error in cases:
        signing = make_set(powers)
        header = make_header(signing)
        claim = "A header is final with more than two thirds of its own validators' power, not with two thirds."
        ask(to, f"power, {name}", claim, trusting(signing), (header, sign(header, signing, places)), error=error)


def _build_trimmed(to: LightRecorder) -> None:
    """For a slow link: as few signatures as are enough, those of the most powerful."""
    for name, powers in {
        "two thirds are one too few": {0: 3, 1: 5, 2: 2, 3: 2},
        "one more than two thirds": {0: 4, 1: 5, 2: 1, 3: 2},
        "all alike": {0: 1, 1: 1, 2: 1, 3: 1},
        "three alike": {0: 1, 1: 1, 2: 1},
        "one alone": {0: 5},
    }.items():
        signing = make_set(powers)
        before, data = trusting(signing), sign(make_header(signing), signing)
        claim = "What is left is more than two thirds of the power, in as few signatures as can be."
        to.add(f"trimmed, {name}", claim, "trim_certificate", before, certificate=data)


def _build_signatures(to: LightRecorder) -> None:
    """Every signature is a precommit for this header, by its validator, in order and once."""
    header = make_header(OLD)
    good = read_signatures(sign(header, OLD))
    block = hash_header(header)
    height = HEIGHT + 1
    votes = {
        "prevotes": Vote(height, 0, 1, block),
        "nil": Vote(height, 0, 2, None),
        "another block": Vote(height, 0, 2, untyped(b"c" * 32)),
        "another height": Vote(height - 1, 0, 2, block),
        "another view": Vote(height, 1, 2, block),
    }
    for name, vote in votes.items():
        data = sign(header, OLD, vote=vote)
        signed = header, sign(header, OLD, vote=vote)
        ask(to, f"signed, {name}", "Nothing else counts.", trusting(OLD), signed, error=BAD)
    claim = "A block of a later view is as final."
    ask(to, "signed, view 3", claim, trusting(OLD), (header, sign(header, OLD, view=3)))
    damaged = [[i, s[:-1] + bytes((s[-1] ^ 1,)) if i == 3 else s] for i, s in good]
    wrong: dict[str, list[list[Any]]] = {
        "one is damaged beyond need": damaged,
        "another's signature": [good[0], good[1], [2, good[0][1]], good[3]],
        "one twice": [good[0], good[1], good[1], good[2], good[3]],
        "out of order": [good[1], good[0], good[2], good[3]],
        "nobody's place": [*good, [4, good[0][1]]],
    }
    for name, listed in wrong.items():
        data = write_certificate(0, listed)
        ask(to, f"signed, {name}", "All of them are valid.", trusting(OLD), (header, data), error=BAD)
    claim = "Any validator whose power is not needed may be missing."
    ask(to, "signed, the first is left out", claim, trusting(OLD), (header, sign(header, OLD, (1, 2, 3))))
    for name, data in {
        "no bytes": b"",
        "no certificate": b"\xa0",
        "a negative view": cbor2.dumps([-1, good], canonical=True),
        "an index too far": write_certificate(0, [[64, good[0][1]]]),
        "a short signature": write_certificate(0, [[0, good[0][1][:-1]]]),
        "something behind": sign(header, OLD) + b"\x00",
    }.items():
        error = FORM_ERRORS.get(name, MALFORMED)
        ask(to, f"signed, {name}", "Its form is exact.", trusting(OLD), (header, data), error=error)


def _build_skipping(to: LightRecorder) -> None:
    """Headers of the same validators: heights may be skipped, and nobody has to say who they are."""
    for ahead in (1, 2, 1_000):
        header = make_header(OLD, ahead=ahead)
        claim = "Where the validators are those already trusted, no sets are needed and heights may be skipped."
        ask(to, f"ahead, {ahead}", claim, trusting(OLD), (header, sign(header, OLD)))
    other = make_set({1: 5, 4: 3, 5: 2})
    for ahead in (1, 5):
        header = make_header(OLD, other, ahead)
        claim = "A header that names other validators for the next block brings both sets, and these are trusted then."
        signed, sets = (header, sign(header, OLD)), encode_sets(OLD, other)
        ask(to, f"change, {ahead} ahead", claim, trusting(OLD), signed, sets=sets)
        claim = "Without the sets they have to be asked for."
        ask(to, f"change, {ahead} ahead, unknown", claim, trusting(OLD), signed, error=UNKNOWN)
    header = make_header(other, ahead=1)
    claim = "After a change the new validators sign."
    ask(to, "change, the next", claim, trusting(other, OLD), (header, sign(header, other)))
    claim = "Those who signed the trusted header do not sign the one after a change."
    header = make_header(OLD, other)
    ask(to, "change, the old again", claim, trusting(other, OLD), (header, sign(header, OLD)), error=UNKNOWN)
    sets = encode_sets(OLD, other)
    ask(
        to,
        "change, the old again, known",
        claim,
        trusting(other, OLD),
        (header, sign(header, OLD)),
        sets=sets,
        error=BAD,
    )
    claim = "The same validators with other powers are another set."
    heavier = make_set({0: 3, 1: 4, 2: 2, 3: 4})
    header = make_header(heavier)
    sets = encode_sets(heavier, heavier)
    ask(to, "change, other powers", claim, trusting(OLD), (header, sign(header, heavier)), sets=sets, error=BAD)


def _build_overlaps(to: LightRecorder) -> None:
    """Of the trusted validators more than a third of the power must have signed where others sign."""
    cases: tuple[tuple[str, dict[int, int], tuple[int, ...], str | None], ...] = (
        # powers of the signing set, who of it signs; OLD has 3, 4, 2, 3
        ("a third", {1: 1, 4: 5, 5: 6}, (0, 1, 2), UNTRUSTED),
        ("a third that is heavy now", {1: 100, 4: 5, 5: 6}, (0, 1, 2), UNTRUSTED),
        ("more than a third", {0: 1, 2: 1, 4: 5, 5: 6}, (0, 1, 2, 3), None),
        ("more than a third, one silent", {0: 1, 2: 1, 4: 5, 5: 6}, (0, 2, 3), UNTRUSTED),
        ("more than a third, all heavy", {1: 50, 2: 50, 4: 5}, (0, 1), None),
        ("nobody", {4: 5, 5: 6, 6: 7}, (0, 1, 2), UNTRUSTED),
        ("everybody and one", {0: 3, 1: 4, 2: 2, 3: 3, 4: 1}, (0, 1, 2, 3), None),
        ("two thirds of their own are missing", {0: 1, 1: 1, 4: 7}, (0, 1), BAD),
    )
    for name, powers, places, error in cases:
        signing = make_set(powers)
        claim = "One honest of those trusted is among the signers only if more than a third of their power signed."
        for ahead in (1, 2):
            header = make_header(signing, ahead=ahead)
            data, sets = sign(header, signing, places), encode_sets(signing, signing)
            label = f"overlap, {name}, {ahead} ahead"
            ask(to, label, claim, trusting(OLD), (header, data), sets=sets, error=BAD if ahead == 1 else error)
    signing, following = make_set({0: 5, 1: 5, 4: 1}), make_set({4: 1, 5: 1})
    header = make_header(signing, following, 7)
    data, sets = sign(header, signing), encode_sets(signing, following)
    claim = "Of a header that is skipped to, the next validators are trusted from then on."
    ask(to, "overlap, and a change", claim, trusting(OLD), (header, data), sets=sets)
    ask(to, "overlap, unknown", "The signers must come with it.", trusting(OLD), (header, data), error=UNKNOWN)
    thirds = make_set({0: 1, 1: 1, 2: 1})
    signing = make_set({1: 1, 4: 1})
    header = make_header(signing, ahead=3)
    data, sets = sign(header, signing), encode_sets(signing, signing)
    ask(to, "overlap, 1 of 3", "A third is too little.", trusting(thirds), (header, data), sets=sets, error=UNTRUSTED)
    quarters = make_set({0: 1, 1: 2, 2: 2})
    ask(to, "overlap, 2 of 5", "Two fifths are enough.", trusting(quarters), (header, data), sets=sets)


def _build_ages(to: LightRecorder) -> None:
    """Trust grows old by the device's clock, but a checkpoint and the trusted header itself are always believed."""
    header = make_header(OLD, ahead=3)
    data = sign(header, OLD)
    last = TIME_MS + TRUSTING_MS
    claim = "At the end of the trusting period the trust still holds, a millisecond later it does not."
    ask(to, "age, the last moment", claim, trusting(OLD), (header, data), clock_ms=last)
    ask(to, "age, one more", claim, trusting(OLD), (header, data), clock_ms=last + 1, error=EXPIRED)
    claim = "A clock that is behind proves no age."
    ask(to, "age, no clock", claim, trusting(OLD), (header, data), clock_ms=0)
    shorter = trusting(OLD, trusting_s=2)
    ask(to, "age, two seconds", "The period is in seconds.", shorter, (header, data), clock_ms=TIME_MS + 2_000)
    ask(to, "age, over", "It is.", shorter, (header, data), clock_ms=TIME_MS + 2_001, error=EXPIRED)
    believed = trusting(OLD, checkpoint=hash_header(header))
    claim = "A header that the operator vouches for is believed however old the trust is."
    ask(to, "checkpoint, late", claim, believed, (header, data), clock_ms=last + 1)
    wrong = trusting(OLD, checkpoint=untyped(b"c" * 32))
    claim = "Another header is not."
    ask(to, "checkpoint, of another", claim, wrong, (header, data), clock_ms=last + 1, error=EXPIRED)
    others = make_set({4: 1, 5: 1, 6: 1})
    foreign = make_header(others, ahead=3)
    data, sets = sign(foreign, others), encode_sets(others, others)
    believed = trusting(OLD, checkpoint=hash_header(foreign))
    claim = "It may be signed by validators that nobody here knows, if these are more than two thirds."
    ask(to, "checkpoint, by others", claim, believed, (foreign, data), sets=sets, clock_ms=last + 1)
    data = sign(foreign, others, (0, 2))
    ask(to, "checkpoint, too few", claim, believed, (foreign, data), sets=sets, error=BAD)
    again = make_header(OLD, ahead=0, height=HEIGHT, time_ms=TIME_MS)
    here = trusting(make_set({5: 1}), OLD, head=hash_header(again))
    data, sets = sign(again, OLD), encode_sets(OLD, OLD)
    claim = "The trusted header itself may come again, signed by those before, at any time."
    ask(to, "again, the same", claim, here, (again, data), sets=sets, clock_ms=last + 1)


def _build_sets(to: LightRecorder) -> None:
    """The sets beside a header are what it names, and are sets of validators."""
    other = make_set({0: 3, 1: 4, 2: 2, 4: 9})
    header = make_header(OLD, other, 4)
    data = sign(header, OLD)

    def write(signing: Validators, following: Validators) -> bytes:
        return encode_sets(signing, following)

    keyless = (Validator(GUARDS[0].address, MINERS[0].public_key, untyped(12)),)
    for name, sets in {
        "the first is another": write(other, other),
        "the second is another": write(OLD, OLD),
        "swapped": write(other, OLD),
        "a power is another": write(make_set({0: 3, 1: 4, 2: 2, 3: 4}), other),
        "three": cbor2.dumps([*cbor2.loads(write(OLD, other)), []], canonical=True),
        "something behind": write(OLD, other) + b"\x00",
    }.items():
        claim = "Both sets have the hashes that the header names."
        error = FORM_ERRORS.get(name, MALFORMED)
        ask(to, f"sets, {name}", claim, trusting(OLD), (header, data), sets=sets, error=error)
    pair = make_set({0: 5, 1: 6})
    cases: dict[str, Validators] = {
        "empty": (),
        "a key of another": keyless,
        "out of order": pair[::-1],
        "one twice": (pair[0], pair[0], pair[1]),
    }
    for name, odd in cases.items():
        for label, signing, following in (("signing", odd, OLD), ("following", OLD, odd)):
            header = make_header(signing, following, 4)
            given: dict[str, Any] = {"header": header, "sets": write(signing, following)}
            claim = "Validators are distinct, in order, at least one, and of their own keys."
            to.add(f"set, {name}, {label}", claim, "write_sets", trusting(OLD), error=MALFORMED, **given)
    header = make_header(OLD, other)
    given = {"header": header, "sets": write(OLD, other)}
    to.add("set, both", "What was read is written the same.", "write_sets", trusting(OLD), **given)
    powerless = make_set({0: 0, 1: 4})
    given = {"header": make_header(powerless, other), "sets": write(powerless, other)}
    to.add("set, no power", "All have power.", "write_sets", trusting(OLD), error=MALFORMED, **given)


def _build_positions(to: LightRecorder) -> None:
    """Chain, height, time and what a header extends."""
    header = make_header(OLD, chain=bytes(32))
    claim = "A header is of this chain."
    ask(to, "place, another chain", claim, trusting(OLD), (header, sign(header, OLD)), error=INVALID)
    for ahead in (1, 2):
        for late, error in ((-1, INVALID), (0, INVALID), (1, None)):
            header = make_header(OLD, ahead=ahead, time_ms=TIME_MS + late)
            claim = "A newer header is of a later time."
            name = f"place, {ahead} ahead, {late} ms later"
            ask(to, name, claim, trusting(OLD), (header, sign(header, OLD)), error=error)
    header = make_header(OLD, previous=b"p" * 32)
    claim = "The next header extends the one that is trusted."
    ask(to, "place, extends another", claim, trusting(OLD), (header, sign(header, OLD)), error=INVALID)
    for ahead in (0, -1, -30):
        header = make_header(OLD, ahead=ahead, previous=b"p" * 32, time_ms=TIME_MS + ahead)
        claim = "An older header of the same validators is final, and changes no trust."
        ask(to, f"place, {-ahead} behind", claim, trusting(OLD), (header, sign(header, OLD)))
    others = make_set({0: 3, 1: 4, 4: 1})
    header = make_header(others, ahead=-1)
    claim = "At a height that is passed only those trusted can sign, whatever is left of their power."
    data, sets = sign(header, others), encode_sets(others, others)
    ask(to, "place, behind, others", claim, trusting(OLD), (header, data), sets=sets, error=BAD)
    for name, data in {"no bytes": b"", "no header": b"\xa0", "something behind": make_header(OLD) + b"\x00"}.items():
        certificate = sign(make_header(OLD), OLD)
        error = FORM_ERRORS.get(name, MALFORMED)
        ask(to, f"place, {name}", "Its form is exact.", trusting(OLD), (data, certificate), error=error)
