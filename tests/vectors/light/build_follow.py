"""Vectors of devices that follow a chain header by header, and compute or take each round's model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import cbor2

from flchain.ledger.block import compute_body_root
from flchain.ledger.limits import compute_body_bytes_max, compute_light_body_bytes_max
from flchain.light.follow import LightState
from flchain.wire.envelope import decode_struct, encode_struct
from flchain.wire.messages import Body, Commit, Phase, Reveal, Settlement
from tests.vectors.light.recorder import LightRecorder
from tests.vectors.light.world import BASE, Chronicle, make_header, make_light, sign
from tests.vectors.transitions.story import BYTES_MAX, Story, replace_body
from tests.vectors.transitions.world import DEVICES, HEIGHT, HOLDERS, TIME_MS, WORLD, make_vector, seal, untyped

HEAD, BODY = "process_head", "process_body"
INVALID, MALFORMED = "invalid-block", "malformed"
CHRONICLE = Chronicle()
FULL, LIGHT = BASE, make_light(WORLD, is_full=False)
SETTLED = (136, 140, 145, 149)
REVEALED = (133, 134, 138, 142, 143, 147)
HEADERS_WANTED, BODIES_WAITING = 64, 8


def build(to: LightRecorder) -> None:
    """All vectors of following."""
    _tell_all(to)
    _build_order(to)
    _build_gaps(to)
    _build_wrong_bodies(to)
    _build_light_bodies(to)
    _build_mismatches(to)
    _build_odd_updates(to)
    _build_limits(to)


def hear(to: LightRecorder, label: str, claim: str, before: LightState, heights: Iterable[int]) -> LightState:
    """These headers, one after another."""
    for height in heights:
        before = to.add(f"{label}, header {height}", claim, HEAD, before, **CHRONICLE.at(height).head())
    return before


def get_body(light: LightState, height: int) -> bytes:
    """What a device of this kind takes."""
    page = CHRONICLE.at(height)
    return page.body if light.is_full else page.light_body


def take(to: LightRecorder, label: str, claim: str, before: LightState, heights: Iterable[int]) -> LightState:
    """The bodies of these heights, one after another."""
    for height in heights:
        given: dict[str, Any] = {"height": height, "body": get_body(before, height)}
        before = to.add(f"{label}, body {height}", claim, BODY, before, **given)
    return before


def _tell_all(to: LightRecorder) -> None:
    """Every header and every body in order, to both kinds of device."""
    for label, light, wanted in (("full", FULL, (*REVEALED, *SETTLED)), ("light", LIGHT, SETTLED)):
        claim = "With each header and body in order a device has each model as soon as it is final."
        for page in CHRONICLE.pages:
            height = page.fields.height
            light = hear(to, f"told, {label}", claim, light, [height])
            if height in wanted:
                light = take(to, f"told, {label}", claim, light, [height])
        assert light.is_synced
    write = {f"light body {height}": CHRONICLE.at(height) for height in SETTLED}
    for name, page in write.items():
        given: dict[str, Any] = {"body": page.body, "payload": page.after.payload}
        to.add(name, "A light body proves who was accepted.", "write_light_body", LIGHT, **given)


def _build_order(to: LightRecorder) -> None:
    """Bodies after all headers, in any order, and before them."""
    claim = "Bodies that come in any order are taken in order of height."
    for label, light, order in (("full", FULL, (136, 134, 133)), ("light", LIGHT, (140, 136))):
        light = hear(to, f"late, {label}", claim, light, range(132, 137 if light.is_full else 141))
        light = take(to, f"late, {label}", claim, light, order)
        assert light.is_synced
    claim = "A body that comes before its header waits for it."
    for label, light, ahead in (("full", FULL, (133, 134, 136)), ("light", LIGHT, (140, 136))):
        light = take(to, f"early, {label}", claim, light, ahead)
        light = hear(to, f"early, {label}", claim, light, range(132, 137 if light.is_full else 141))
        assert light.is_synced
    claim = "A body that comes again, or that nobody wants, changes nothing."
    light = read_through(FULL, 136)
    for height in (132, 133, 136):
        take(to, f"again, after {light.height}", claim, light, [height])
    claim = "A header that is not newer is refused."
    for height in (135, 136):
        given = CHRONICLE.at(height).head()
        to.add(f"again, header {height}", claim, HEAD, light, error="wrong-round", **given)


def read_through(light: LightState, last: int) -> LightState:
    """What a device knows that has had everything up to a height; recorded nowhere."""
    silent = LightRecorder(BASE)
    for height in range(light.height + 1, last + 1):
        light = hear(silent, "", "", light, [height])
        if height in ((*REVEALED, *SETTLED) if light.is_full else SETTLED):
            light = take(silent, "", "", light, [height])
    return light


def _build_gaps(to: LightRecorder) -> None:
    """Headers that were missed: whether all updates of the round can be known."""
    cases = {
        "the start": ((135,), ()),
        "an empty one": ((132, 133, 134), (133, 134)),
        "one of updates": ((132, 134, 135), (134,)),
        "after the updates": ((132, 133, 135), (133,)),
        "none, a body is missing": ((132, 133, 134, 135), (134,)),
        "all up to scores": ((132, 133, 134, 135), (133, 134)),
    }
    for label, (headers, bodies) in cases.items():
        claim = "All updates of a round are known only if no header was missed and each body is here."
        light = hear(to, f"gap, {label}", claim, FULL, headers)
        light = take(to, f"gap, {label}", claim, light, bodies)
        claim = "A device that lacks an accepted update keeps its model and waits for a snapshot."
        light = hear(to, f"gap, {label}", claim, light, [136])
        light = take(to, f"gap, {label}", claim, light, [136])
        hear(to, f"gap, {label}", "The next round begins anew.", light, [137])
    claim = "A device that is a round behind takes no settlement of the next."
    for label, light, bodies in (("full", FULL, (138, 140)), ("light", LIGHT, (140,))):
        light = hear(to, f"behind, {label}", claim, light, (132, 137, 138, 140))
        take(to, f"behind, {label}", claim, light, bodies)
    unknown = replace(FULL, carried=None)
    claim = "Without what is carried a full device computes nothing."
    light = read_through(unknown, 135)
    light = hear(to, "nothing carried", claim, light, [136])
    take(to, "nothing carried", claim, light, [136])


def _build_wrong_bodies(to: LightRecorder) -> None:
    """Bodies that are not the header's, known before and after it."""
    page = CHRONICLE.at(136)
    before = read_through(FULL, 135)
    light = hear(LightRecorder(BASE), "", "", before, [136])
    decoded = decode_struct(page.body, Body, BYTES_MAX)
    assert decoded.settlement is not None
    accepted = decoded.settlement.accepted
    wrong: dict[str, tuple[bytes, str]] = {
        "of another height": (CHRONICLE.at(135).body, INVALID),
        "one accepted less": (replace_body(page.body, settlement=Settlement(accepted[1:]), is_settled=True), INVALID),
        "no settlement": (replace_body(page.body, is_settled=False), INVALID),
        "one message less": (replace_body(page.body, transactions=decoded.transactions[1:]), INVALID),
        "messages swapped": (replace_body(page.body, transactions=decoded.transactions[::-1]), INVALID),
        "a message among the orders": (replace_body(page.body, orders=decoded.transactions[:1]), INVALID),
        "a light body": (page.light_body, MALFORMED),
        "garbage": (b"\xa0", MALFORMED),
        "no bytes": (b"", "truncated"),
    }
    for name, (body, error) in wrong.items():
        claim = "A body is the one that its header names."
        to.add(f"wrong, {name}", claim, BODY, light, error=error, height=136, body=body)
        claim = "One that came before the header is forgotten with it, and does not keep the true one out."
        waiting = to.add(f"wrong and early, {name}", "It waits.", BODY, before, height=136, body=body)
        waiting = to.add(f"wrong and early, {name}, header", claim, HEAD, waiting, **page.head())
        assert 136 not in waiting.waiting
        take(to, f"wrong and early, {name}", "The true one is taken.", waiting, [136])


def _build_light_bodies(to: LightRecorder) -> None:
    """A light body's settlement proves itself, its payload only by the model."""
    page, other = CHRONICLE.at(136), CHRONICLE.at(145)
    before = read_through(LIGHT, 135)
    light = hear(LightRecorder(BASE), "", "", before, [136])
    transactions, orders, settlement, payload = cbor2.loads(page.light_body)
    wrong: dict[str, tuple[list[Any], str]] = {
        "another payload": ([transactions, orders, settlement, other.after.payload], MALFORMED),
        "no payload": ([transactions, orders, settlement, b""], MALFORMED),
        "a payload that is none": ([transactions, orders, settlement, payload[:-1]], "malformed-update"),
        "another settlement": ([transactions, orders, [settlement[0][1:]], payload], INVALID),
        "other messages": ([bytes(32), orders, settlement, payload], INVALID),
        "other orders": ([transactions, bytes(32), settlement, payload], INVALID),
        "roots swapped": ([orders, transactions, settlement, payload], INVALID),
        "three parts": ([transactions, orders, settlement], MALFORMED),
    }
    for name, (parts, error) in wrong.items():
        body = cbor2.dumps(parts, canonical=True)
        claim = "A light body leads to the header's model by the header's settlement."
        known = error if error == INVALID or name == "three parts" else MALFORMED
        to.add(f"light, {name}", claim, BODY, light, error=known, height=136, body=body)
        waiting = to.add(f"light and early, {name}", "It waits.", BODY, before, height=136, body=body)
        claim = "What was invented is forgotten, and the true one still wanted."
        waiting = to.add(f"light and early, {name}, header", claim, HEAD, waiting, **page.head())
        take(to, f"light and early, {name}", "The true one is taken.", waiting, [136])


def _build_mismatches(to: LightRecorder) -> None:
    """A full device that computes another model than the chain's says so, and keeps its own."""
    light = hear(LightRecorder(BASE), "", "", read_through(FULL, 135), [136])
    carried = light.carried
    assert carried is not None
    first = DEVICES[0].address
    update = light.reveals[first]
    changed = {
        "another base": replace(light, model=make_vector(3)),
        "something else carried": replace(light, carried=(carried[0] + carried[0],)),
        "another weight": replace(light, reveals=light.reveals | {first: replace(update, samples=3)}),
        "an update that is none": replace(light, reveals=light.reveals | {first: replace(update, update=b"x")}),
    }
    for name, odd in changed.items():
        claim = "A model that differs from the final header's is never taken."
        given: dict[str, Any] = {"height": 136, "body": CHRONICLE.at(136).body}
        to.add(f"mismatch, {name}", claim, BODY, odd, error="ModelMismatch", **given)


def _build_odd_updates(to: LightRecorder) -> None:
    """A final block with updates that are none: more than two thirds lie, and still nothing is believed."""
    before = read_through(FULL, 132)
    story = Story(None, CHRONICLE.at(132).after)
    good = story.reveals((0,))[0]
    update = story.make_reveal(0)
    values = {name: getattr(update, name) for name in Reveal.__struct_fields__}
    other = Reveal(**values | {"round": 18})
    cases: dict[str, tuple[bytes, str | None]] = {
        "an update": (good, None),
        "more samples than count": (seal(Reveal(**values | {"samples": 998}), DEVICES[0]), None),
        "as many samples as count": (seal(Reveal(**values | {"samples": 997}), DEVICES[0]), None),
        "of nobody": (seal(update, HOLDERS[0]), INVALID),
        "of another round": (seal(other, DEVICES[0]), INVALID),
        "a commitment": (seal(Commit(17, bytes(32), False), DEVICES[0]), INVALID),
        "badly signed": (good[:-1] + bytes((good[-1] ^ 1,)), "bad-signature"),
        "for another chain": (seal(update, DEVICES[0], bytes(32)), "wrong-chain"),
    }
    for name, (raw, error) in cases.items():
        body = Body((raw,), (), None)
        trust = before.trust
        changes: dict[str, Any] = {
            "previous": trust.head,
            "body_root": compute_body_root(body),
            "height": 133,
            "round": 17,
        }
        changes |= {"phase": Phase.REVEAL, "next_phase": Phase.REVEAL, "time_ms": trust.time_ms + 1}
        header = make_header(trust.validators, **changes)
        given: dict[str, Any] = {
            "header": header,
            "certificate": sign(header, trust.validators),
            "sets": b"",
            "clock_ms": TIME_MS,
        }
        light = to.add(f"final, {name}, header", "It is final.", HEAD, before, **given)
        claim = "A device checks each update's round, sender and signature once more."
        to.add(f"final, {name}", claim, BODY, light, error=error, height=133, body=encode_struct(body))


def _build_limits(to: LightRecorder) -> None:
    """How long bodies may be, how many wait, how many are awaited."""
    sizes = {
        "full": (FULL, compute_body_bytes_max(FULL.params, len(DEVICES), len(FULL.validators))),
        "light": (LIGHT, compute_light_body_bytes_max(LIGHT.params)),
    }
    for label, (light, bytes_max) in sizes.items():
        claim = "A body longer than an honest one is refused before it is kept."
        to.add(f"limit, {label}, longest", claim, BODY, light, height=140, body=bytes(bytes_max))
        given: dict[str, Any] = {"height": 140, "body": bytes(bytes_max + 1)}
        to.add(f"limit, {label}, one more", claim, BODY, light, error="oversized", **given)
    waiting = {untyped(HEIGHT + 20 + i): b"%d" % i for i in range(BODIES_WAITING)}
    for name, height in (("lower", HEIGHT + 10), ("between", HEIGHT + 21), ("higher", HEIGHT + 40)):
        claim = "Of the bodies that wait the lowest are kept."
        light = replace(FULL, waiting=waiting)
        to.add(f"limit, waiting, {name}", claim, BODY, light, height=height, body=b"another")
    page = CHRONICLE.at(133)
    wanted = {untyped(height): page.fields for height in range(HEIGHT - HEADERS_WANTED + 2, HEIGHT + 1)}
    for name, heights in (("room", wanted), ("none", wanted | {untyped(1): page.fields})):
        light = replace(read_through(FULL, 132), wanted=dict(sorted(heights.items())))
        claim = "Of the headers whose bodies are awaited the lowest is given up for a newer one."
        to.add(f"limit, wanted, {name}", claim, HEAD, light, **page.head())
