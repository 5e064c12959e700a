"""Vectors of the model's step: every codec, every way of aggregating, every downstream rule; and the arithmetic below.

The privacy step of a device is here too, on numbers whose squares are exact, so that no machine's floats differ.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flchain import codecs
from flchain.ledger.state import ChainState, RevealedUpdate
from flchain.wire.messages import Phase
from tests.vectors.transitions.builders.messages import CODEC_LEVELS
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.world import DEVICES, WORLD, make_payload, make_vector, with_params, with_round

SIZE = 40
LIMIT = 2**31 - 1
DOWN_LEVELS = {"identity": 1, "sparse-ternary": 5, "top-k": 6, "delta-entropy": 4, "adaptive": 5_005}
RULES = ("weighted-sum", "median", "trimmed-mean")
WEIGHTS = (3, 997, 101, 1, 500, 7, 29, 444)


def build(to: Recorder) -> None:
    """All vectors of steps of the model."""
    _build_codecs(to)
    _build_rules(to)
    _build_sketches(to)
    _build_counts(to)
    _build_rounding(to)
    _build_fixed_point(to)
    _build_privacy(to)


def make_state(size: int, payloads: Sequence[bytes], **changes: Any) -> ChainState:
    """A state with updates of the first devices and distinct weights, a model and something carried."""
    before = with_params(WORLD, parameters_count=size, **changes)
    reveals = tuple(
        RevealedUpdate(key.address, weight, payload)
        for key, weight, payload in zip(DEVICES, WEIGHTS, payloads, strict=False)
    )
    params = before.params
    start = codecs.DOWNSTREAM_RULES[params.downstream_codec].start(size, params.downstream_level)
    carried = tuple(make_vector(70 + i, len(part)) // 1_000 for i, part in enumerate(start))
    before = replace(before, model=make_vector(99, size), carried=carried)
    return with_round(before, phase=Phase.SETTLE, reveals=reveals)


def step(to: Recorder, name: str, claim: str, before: ChainState, accepted: Sequence[int] | None = None) -> None:
    """One step; the devices at these places are accepted, all if None."""
    there = [reveal.sender for reveal in before.round.reveals]
    given = there if accepted is None else [DEVICES[i].address for i in accepted]
    to.add(name, claim, "step", before, accepted=tuple(given))


def _build_codecs(to: Recorder) -> None:
    claim = "Updates of each codec are decoded with the seed of their sender and aggregated."
    for codec, level in CODEC_LEVELS.items():
        if codec == "count-sketch":
            continue
        payloads = [make_payload(i, codec, level, DEVICES[i].address, SIZE) for i in range(4)]
        before = make_state(SIZE, payloads, codec=codec, codec_level=level)
        step(to, f"codec, {codec}", claim, before, (0, 2, 3))
        other = with_round(before, number=before.round.number + 1)
        step(to, f"codec, {codec}, another round", "The seed is of the round.", other, (0, 2, 3))


def _build_rules(to: Recorder) -> None:
    payloads = [make_payload(i, size=SIZE) for i in range(6)]
    for rule in RULES:
        for down, level in DOWN_LEVELS.items():
            before = make_state(SIZE, payloads, aggregation=rule, downstream_codec=down, downstream_level=level)
            claim = "What was left out before is added, what is left out now is carried on."
            step(to, f"rule, {rule}, {down}", claim, before)
            step(to, f"rule, {rule}, {down}, some", "Only accepted updates count.", before, (1, 2, 4, 5))
            step(to, f"rule, {rule}, {down}, none", "With none nothing changes.", before, ())


def _build_sketches(to: Recorder) -> None:
    for level in (1, 2):
        payloads = [make_payload(i, "count-sketch", level, size=SIZE) for i in range(3)]
        changes = {"codec": "count-sketch", "codec_level": level}
        down = {"downstream_codec": "count-sketch", "downstream_level": level}
        before = make_state(SIZE, payloads, **changes, **down)
        claim = "Sketches are added up as tables, and momentum and error carried."
        step(to, f"sketch, level {level}", claim, before)
        step(to, f"sketch, level {level}, one", claim, before, (1,))


def write(*values: int) -> bytes:
    """A payload of the identity codec."""
    return struct.pack(f"<{len(values)}i", *values)


def _build_counts(to: Recorder) -> None:
    """From one update to ten: a fifth is trimmed at each end from five on, and of an even number two are the middle."""
    payloads = [write(*(int(v) for v in make_vector(20 + i))) for i in range(8)]
    for rule in RULES:
        for count in range(1, 9):
            before = make_state(7, payloads[:count], aggregation=rule)
            step(to, f"count, {rule} of {count}", "Every number of updates.", before)
    claim = "Two are trimmed at each end from ten on."
    for count in (9, 10):
        listed = tuple(
            RevealedUpdate(address, 1 + i, write(*(int(v) for v in make_vector(40 + i))))
            for i, address in enumerate(_list_addresses(count))
        )
        before = with_round(make_state(7, (), aggregation="trimmed-mean"), reveals=listed)
        to.add(f"count, {count} trimmed", claim, "step", before, accepted=tuple(r.sender for r in listed))


def _list_addresses(count: int) -> list[Any]:
    return [bytes((i, i + 1)) * 10 for i in range(count)]


def _build_rounding(to: Recorder) -> None:
    nothing = (np.zeros(7, dtype=np.int32),)
    pair = (write(1, -1, 3, -3, 2, 7, -7), write(0, 0, 0, 0, 1, -2, 2))
    for rule in RULES:
        before = replace(make_state(7, pair, aggregation=rule), carried=nothing)
        equal = tuple(replace(reveal, samples=5) for reveal in before.round.reveals)
        before = with_round(before, reveals=equal)
        step(to, f"rounding, {rule}", "Halves are rounded away from zero, on both sides.", before)
        edge = (write(LIMIT, -LIMIT, LIMIT, -LIMIT, LIMIT, 1, -1),) * 2
        before = replace(make_state(7, edge, aggregation=rule), carried=nothing)
        claim = "The model saturates at the limits of its range, and never wraps around."
        step(to, f"saturated, {rule}", claim, replace(before, model=np.array(EDGE, dtype=np.int32)))
    carried = (np.array([LIMIT, -LIMIT, -1, 1, 5, -5, 0], dtype=np.int32),)
    before = replace(make_state(7, (write(LIMIT, -LIMIT, 1, -1, 0, 0, 3),)), carried=carried)
    step(to, "saturated, carried", "So does what was carried.", before)


EDGE = (1, -1, LIMIT, -LIMIT, -5, LIMIT, -LIMIT)


def _build_fixed_point(to: Recorder) -> None:
    def ask(name: str, claim: str, function: str, *arguments: Any, error: str | None = None) -> None:
        to.add(name, claim, "call", function=function, arguments=arguments, error=error)

    floats = np.array([0.0, 1.0, -1.0, 0.5**21, 3 * 0.5**21, -(0.5**21), 2_047.0, 2_048.0, -2_048.0, 1e30])
    ask("fixed, floats", "Nearest, halves to even, saturated.", "to_fixed", floats.astype(np.float32))
    bad = np.array([1.0, np.nan], dtype=np.float32)
    ask("fixed, not a number", "No form for what is none.", "to_fixed", bad, error="ValueError")
    wide = np.array([2**24, 2**24 + 1, 2**24 + 3, -(2**24) - 1, LIMIT, -LIMIT, 7, 0], dtype=np.int32)
    ask("fixed, back", "Nearest float, halves to even.", "to_float", wide)
    numbers = np.array([5, -5, 4, -4, 6, -6, 0, 2**62, -(2**62), 7, -7], dtype=np.int64)
    for divisor in (1, 2, 3, 4, 10, 2**40):
        ask(f"fixed, by {divisor}", "Nearest, halves away from zero.", "divide_rounded", numbers, divisor)
    ask("fixed, by nothing", "Not by zero.", "divide_rounded", numbers, 0, error="ValueError")
    ask("fixed, saturated", "Limited to the range.", "saturate", np.array([2**31, -(2**31), LIMIT, -LIMIT, 3]))


def _build_privacy(to: Recorder) -> None:
    """A delta of norm 5 exactly, and of 5/4096."""
    delta = np.array([3.0, 0.0, -4.0, 0.0], dtype=np.float32)
    normals = np.array([0.5, -1.25, 2.0, -0.0625], dtype=np.float32)
    for name in ("none", "gaussian"):
        for clip in (4_999, 5_000, 5_001, 1):
            for noise in (0, 1, 1_409):
                claim = "Clipped to the norm, then noise in units of it."
                given: dict[str, Any] = {"mechanism": name, "clip_thousandths": clip, "noise_thousandths": noise}
                to.add(f"privacy, {name}, {clip}, {noise}", claim, "privatise", delta=delta, normals=normals, **given)
    claim = "Noise needs a normal for each parameter."
    few: dict[str, Any] = {"mechanism": "gaussian", "clip_thousandths": 1_000, "noise_thousandths": 0}
    to.add("privacy, too few", claim, "privatise", delta=delta, normals=normals[:3], error="ValueError", **few)
