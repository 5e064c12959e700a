"""Vectors of trust in headers: who must have signed, whom a device has to know already, and what is too old."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flchain.ledger import state
from flchain.ledger.state import Validator
from flchain.light import trust
from tests.vectors.transitions.builders.light import Follower, head
from tests.vectors.transitions.light_story import Told, make_head, tell
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.story import forge
from tests.vectors.transitions.world import MINERS, STRANGER, TIME_MS, WORLD, make_keys, untyped

TRUSTING_MS = 50_021_000
"""As in the world's parameters."""


def build(to: Recorder) -> None:
    """All vectors of trust."""
    made, told = tell()
    follower = Follower(to, made)
    _build_order(follower, told)
    _build_sets(follower, told)
    _build_named_sets(follower, told)
    claim = "Who signs and who signs next, as they travel."
    to.add("sets, written", claim, "write_sets", WORLD)
    _build_overlaps(follower, told)
    _build_ages(follower, told)


def _build_order(follower: Follower, told: dict[int, Told]) -> None:
    claim = "Headers are newer, later, of this chain, and extend what is known."
    first = told[3].head(has_sets=False)
    same = told[3].head(has_sets=False, time_ms=TIME_MS + 77)
    events = [first, first, told[2].head(has_sets=False), same, told[4].head(has_sets=False, previous=b"p" * 32)]
    events += [told[4].head(has_sets=False, time_ms=told[3].after.time_ms), told[4].head(has_sets=False)]
    events += [told[6].head(has_sets=False, time_ms=told[4].after.time_ms)]
    events += [told[6].head(has_sets=False, time_ms=told[4].after.time_ms + 1)]
    follower.follow("order, one after the other", claim, events)
    foreign = told[5].head(has_sets=False, chain=bytes(32))
    follower.follow("order, another chain", claim, [foreign])
    at = told[4].head(has_sets=False)
    cut = [at | {"header": at["header"][:-1]}, at | {"certificate": at["certificate"][:-1]}]
    follower.follow("order, cut off", "Nothing is cut off.", [*cut, at | {"header": bytes(2_000)}, at])
    quorums: list[dict[str, Any]] = []
    for places in ((0, 1), (0, 2, 3), (1, 2, 3), (0, 1, 3)):
        signers = [MINERS[i] for i in places]
        sets = told[4].before.validators
        quorums.append(make_head(told[4].header, sets, sets, has_sets=False, signers=signers))
    claim = "More than two thirds of the power make a header final: of 15,000 10,000 do not, 10,001 do."
    follower.follow("order, quorums", claim, [quorums[0], quorums[2], quorums[1], at])
    follower.follow("order, a quorum", claim, [quorums[3]])


def _build_sets(follower: Follower, told: dict[int, Told]) -> None:
    claim = "Where the validators change their sets come with the header."
    at = told[10].head()
    signing, following = told[10].before.validators, told[10].after.validators
    plain = tuple(Validator(v.address, v.public_key, v.power) for v in following)
    heavier = _make_heavier(plain)
    renamed = (replace(plain[0], address=STRANGER.address), *plain[1:])
    cases: dict[str, bytes] = {
        "missing": b"",
        "signed by heavier": trust.encode_sets(_make_heavier(signing), plain),
        "swapped": trust.encode_sets(following, signing),
        "heavier": trust.encode_sets(signing, heavier),
        "of another name": trust.encode_sets(signing, renamed),
        "out of order": trust.encode_sets(signing, plain[::-1]),
        "one left out": trust.encode_sets(signing, plain[1:]),
        "nobody": trust.encode_sets(signing, ()),
        "garbage": b"sets",
    }
    for name, sets in cases.items():
        events = [head(told[9], 9), at | {"sets": sets}, at]
        follower.follow(f"sets, {name}", claim, events, is_full=False)
    claim = "The next set signs the next header, and no other does."
    old = make_head(told[11].header, told[9].before.validators, following)
    events = [head(told[9], 9), at, old, told[11].head(has_sets=False)]
    follower.follow("sets, the next one", claim, events, is_full=False)
    forged = forge(told[11].header, told[11].body, validators_hash=_hash(signing), next_validators_hash=_hash(signing))
    stale = make_head(forged["header"], signing, signing)
    claim = "The set before has no power any more."
    follower.follow("sets, the last one", claim, [head(told[9], 9), at, stale], is_full=False)


def _make_heavier(validators: Sequence[Validator]) -> tuple[Validator, ...]:
    first = validators[0]
    return (Validator(first.address, first.public_key, untyped(first.power + 1)), *validators[1:])


def _build_named_sets(follower: Follower, told: dict[int, Told]) -> None:
    """Sets that the header names, as more than two thirds of the power have signed it, and that still are none."""
    signing = told[10].before.validators
    crowd = [Validator(key.address, key.public_key, untyped(3 + i)) for i, key in enumerate(make_keys("crowd", 65))]
    renamed = Validator(crowd[0].address, crowd[1].public_key, untyped(5))
    cases: dict[str, list[Validator]] = {
        "nobody": [],
        "one": crowd[:1],
        "the most": crowd[:64],
        "one too many": crowd,
        "of another name": [renamed, *crowd[2:5]],
        "out of order": [crowd[1], crowd[0]],
        "one twice": [crowd[0], crowd[0]],
    }
    for name, following in cases.items():
        forged = forge(told[10].header, told[10].body, next_validators_hash=_hash(following))
        event = make_head(forged["header"], signing, following)
        claim = "One validator up to so many, distinct, in order, each under its key's address."
        follower.follow(f"named sets, {name}", claim, [head(told[9], 9), event], is_full=False)


def _hash(validators: Sequence[Validator]) -> bytes:
    return state.compute_validators_hash(validators)


def _build_overlaps(follower: Follower, told: dict[int, Told]) -> None:
    """Of the genesis' power 15,000 the first miner has 5,000, the third and fourth 5,001 together."""

    def claim_set(keys: Sequence[Any], signers: Sequence[Any], height: int = 18) -> dict[str, Any]:
        rows = [Validator(key.address, key.public_key, untyped(7)) for key in sorted(keys, key=lambda k: k.address)]
        named: dict[str, Any] = {"validators_hash": _hash(rows), "next_validators_hash": _hash(rows)}
        header = forge(told[height].header, told[height].body, **named)["header"]
        return make_head(header, rows, rows, signers=sorted(signers, key=lambda k: k.address))

    others = (*MINERS[4:6], STRANGER)
    claim = "A set of others is believed if more than a third of those that are known have signed with it."
    known = {"a third": [MINERS[0]], "more": [MINERS[2], MINERS[3]], "nobody": []}
    for name, keys in known.items():
        event = claim_set([*keys, *others], [*keys, *others])
        follower.follow(f"overlap, {name}", claim, [event], is_full=False)
    claim = "It is not enough to be in it: they sign."
    event = claim_set([MINERS[2], MINERS[3], *others, MINERS[6], MINERS[0]], [MINERS[3], *others, MINERS[6]])
    follower.follow("overlap, unsigned", claim, [event], is_full=False)
    claim = "At the very next height the set is known, whoever signs."
    event = claim_set([*MINERS[1:4], *others], [*MINERS[1:4], *others], 1)
    follower.follow("overlap, the next height", claim, [event], is_full=False)
    claim = "The chain's own sets lead on by what they have in common."
    for heights in ((11,), (19,), (10, 19), (17, 19), (18, 20)):
        events = [told[height].head() for height in heights]
        follower.follow(f"overlap, heights {heights}", claim, events, is_full=False)


def _build_ages(follower: Follower, told: dict[int, Told]) -> None:
    claim = "What is trusted grows old: then only the operator's word helps."
    for late in (0, 1):
        event = told[3].head(has_sets=False, clock_ms=TIME_MS + TRUSTING_MS + late)
        follower.follow(f"age, {late} too old", claim, [event])
    newer = told[3].after.time_ms
    for late in (0, 1):
        events = [head(told[3], 3), told[6].head(has_sets=False, clock_ms=newer + TRUSTING_MS + late)]
        follower.follow(f"age, {late} too old after another", claim, events)
    claim = "The operator names a header, which is believed, and then those after it."
    late = TIME_MS + 2 * TRUSTING_MS
    block = told[11].after.head
    for name, checkpoint in (("of this", block), ("of another", told[10].after.head)):
        events = [told[11].head(clock_ms=late), told[12].head(clock_ms=TIME_MS + 5)]
        follower.follow(f"checkpoint, {name}", claim, events, is_full=False, checkpoint=checkpoint)
    claim = "A clock that is behind proves no age."
    follower.follow("age, a clock behind", claim, [told[3].head(clock_ms=0)])
    claim = "The trusted header may come again beside a model, however late it is."
    events = [told[6].head(has_sets=False), told[6].snapshot() | {"clock_ms": late}]
    follower.follow("age, the trusted header", claim, events)
