"""Vectors of devices that were away: payloads of missed rounds, whole models, restarts, and the very start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flchain.base.fixedpoint import encode_vector
from flchain.codecs import encode_carried
from flchain.ledger.genesis import encode_genesis
from flchain.light.follow import LightState
from flchain.light.trust import encode_sets
from tests.support.builders.chain import build_chain
from tests.vectors.light.build_follow import CHRONICLE, FULL, LIGHT, hear, read_through, take
from tests.vectors.light.recorder import LightRecorder
from tests.vectors.light.world import BASE, TRUSTING_MS, Page, make_header, sign
from tests.vectors.transitions.world import ROUND, TIME_MS, WORLD, make_vector

TAKE, SNAPSHOT, RESTORE = "process_payloads", "process_snapshot", "restore"
MALFORMED, EXPIRED = "malformed", "trust-expired"
PAYLOADS_MAX = 1_024
PAYLOADS = tuple(CHRONICLE.at(height).after.payload for height in (136, 140, 145, 149))
"""What rounds 17 to 20 change; nothing in round 18."""


def build(to: LightRecorder) -> None:
    """All vectors of catching up."""
    _build_payloads(to)
    _build_many_payloads(to)
    _build_snapshots(to)
    _build_restarts(to)
    _build_starts(to)


def ask_head(page: Page) -> dict[str, Any]:
    """A header with its sets, as it comes with an answer."""
    return page.head(sets=encode_sets(page.before.validators, page.after.validators))


def _build_payloads(to: LightRecorder) -> None:
    """Payloads from a round on to the one before the open round."""

    def ask(
        name: str,
        claim: str,
        height: int,
        first: int,
        payloads: Sequence[object],
        *,
        before: LightState = LIGHT,
        error: str | None = None,
        clock_ms: int = TIME_MS,
    ) -> None:
        more = {"clock_ms": clock_ms}
        given = ask_head(CHRONICLE.at(height)) | {"first": first, "payloads": tuple(payloads)} | more
        to.add(f"payloads, {name}", claim, TAKE, before, error=error, **given)

    claim = "The payloads of all rounds that were missed lead to the header's model."
    ask("one round", claim, 136, 17, PAYLOADS[:1])
    ask("one round, later header", claim, 138, 17, PAYLOADS[:1])
    ask("two rounds", claim, 140, 17, PAYLOADS[:2])
    ask("all rounds", claim, 150, 17, PAYLOADS)
    after_one = read_through(LIGHT, 136)
    claim = "Payloads of rounds whose model is here are passed over."
    ask("one too many", claim, 150, 17, PAYLOADS, before=after_one)
    ask("an invention too many", claim, 150, 16, (b"x", *PAYLOADS))
    claim = "There must be one for each round, from the first that is missing on."
    ask("begins too late", claim, 150, 18, PAYLOADS[1:], error=MALFORMED)
    ask("begins too late, as many", claim, 150, 18, PAYLOADS, error=MALFORMED)
    ask("begins too late, leads there", claim, 140, 18, PAYLOADS[:1], error=MALFORMED)
    ask("one is missing", claim, 150, 17, PAYLOADS[:3], error=MALFORMED)
    ask("one more", claim, 149, 17, (*PAYLOADS, b""), error=MALFORMED)
    ask("none", claim, 150, 17, (), error=MALFORMED)
    claim = "The last model is the header's."
    ask("another order", claim, 150, 17, (PAYLOADS[0], PAYLOADS[2], PAYLOADS[2], PAYLOADS[3]), error=MALFORMED)
    ask("the first is empty", claim, 150, 17, (b"", *PAYLOADS[1:]), error=MALFORMED)
    ask("a number", "A payload is bytes.", 136, 17, (7,), error=MALFORMED)
    ask("no payload", "Each decodes.", 136, 17, (b"x",), error="malformed-update")
    claim = "A device that has the model already keeps it, whatever comes."
    ask("known already", claim, 136, 17, (b"x",), before=after_one)
    ask("known already, an older round", claim, 132, 16, (b"x",))
    claim = "A full device needs what is carried, which payloads do not say."
    ask("full", claim, 136, 17, PAYLOADS[:1], before=FULL, error=MALFORMED)
    ahead = hear(LightRecorder(BASE), "", "", LIGHT, (136, 138, 139))
    claim = "Headers that were followed before stay; bodies that are no longer needed are not awaited."
    ask("headers are ahead", claim, 136, 17, PAYLOADS[:1], before=ahead)
    ask("headers are there", claim, 139, 17, PAYLOADS[:1], before=ahead)
    ask("headers are behind", claim, 145, 17, PAYLOADS[:3], before=ahead)
    late = TIME_MS + TRUSTING_MS + 1
    ask("late", "They need a header that is trusted.", 136, 17, PAYLOADS[:1], error=EXPIRED, clock_ms=late)
    ahead = hear(LightRecorder(BASE), "", "", ahead, [140])
    waiting = take(LightRecorder(BASE), "", "", ahead, [140])
    claim = "A body that waited for the model is taken then; after a change no older header is believed."
    ask("a body waits, too old", claim, 139, 17, PAYLOADS[:1], before=waiting, error="bad-certificate")
    again = replace(waiting, trust=replace(waiting.trust, validators=LIGHT.validators))
    ask("a body waits", claim, 139, 17, PAYLOADS[:1], before=again)


def _build_many_payloads(to: LightRecorder) -> None:
    """As many rounds as a model may be replaced by."""
    for count, error in ((PAYLOADS_MAX, None), (PAYLOADS_MAX + 1, "oversized")):
        validators = LIGHT.trust.validators
        header = make_header(validators, ahead=4_000, round=ROUND + count, next_round=ROUND + count)
        given: dict[str, Any] = {"header": header, "certificate": sign(header, validators), "sets": b""}
        given |= {"clock_ms": TIME_MS, "first": ROUND, "payloads": (b"",) * count}
        claim = "So many rounds that changed nothing are as good as the model; one more is not."
        to.add(f"payloads, {count}", claim, TAKE, LIGHT, error=error, **given)


def _build_snapshots(to: LightRecorder) -> None:
    """A model that comes whole; a full device also takes what is carried, with its proof."""

    def ask(
        name: str, claim: str, before: LightState, height: int, error: str | None = None, **more: Any
    ) -> LightState:
        page = CHRONICLE.at(height)
        given = ask_head(page) | page.snapshot() | more
        return to.add(f"snapshot, {name}", claim, SNAPSHOT, before, error=error, **given)

    for label, light in (("full", FULL), ("light", LIGHT)):
        claim = "The model of a final header is taken, and the rounds after it follow."
        for height in (136, 138, 140, 150):
            ask(f"{label}, {height}", claim, light, height)
        after = ask(f"{label}, and on", claim, light, 141)
        after = hear(to, f"snapshot, {label}", claim, after, range(142, 146))
        take(to, f"snapshot, {label}", claim, after, (142, 143, 145) if light.is_full else (145,))
        claim = "Its hash is the one the header holds."
        other = encode_vector(make_vector(5))
        ask(f"{label}, another model", claim, light, 136, MALFORMED, vector=other)
        ask(f"{label}, an older model", claim, light, 136, MALFORMED, vector=encode_vector(WORLD.model))
        ask(f"{label}, a shorter model", "Of its length.", light, 136, "malformed-update", vector=other[:-4])
        claim = "A model that is not newer changes nothing."
        known = read_through(light, 140)
        ask(f"{label}, the same one", claim, known, 140)
        ask(f"{label}, an older one", claim, read_through(light, 139), 136)
        ask(f"{label}, before a change", "Nor is it believed after a change.", known, 136, "bad-certificate")
        claim = "Headers that were followed before stay."
        ahead = hear(LightRecorder(BASE), "", "", light, range(132, 140))
        ask(f"{label}, headers are ahead", claim, ahead, 136)
        ask(f"{label}, headers are there", claim, ahead, 139)
        late = TIME_MS + TRUSTING_MS + 1
        ask(f"{label}, late", "It needs a header that is trusted.", light, 136, EXPIRED, clock_ms=late)
        weak = sign(CHRONICLE.at(136).header, light.trust.validators, (0, 1))
        ask(f"{label}, too few signed", "And final.", light, 136, "bad-certificate", certificate=weak)
    claim = "What is carried is proved by the header."
    ask("another round's carried", claim, FULL, 136, MALFORMED, carried=CHRONICLE.at(145).snapshot()["carried"])
    ask("nothing carried", claim, FULL, 136, "truncated", carried=b"")
    ask("light, nothing carried", "A light device does not need it.", LIGHT, 136, carried=b"")


def _build_restarts(to: LightRecorder) -> None:
    """What a device finds on its own disk when it starts again."""

    def ask(
        name: str, claim: str, before: LightState, height: int, error: str | None = None, **more: Any
    ) -> LightState:
        page = CHRONICLE.at(height)
        given = ask_head(page) | {
            "vector": encode_vector(page.after.model),
            "carried": encode_carried(page.after.carried),
        }
        return to.add(f"restart, {name}", claim, RESTORE, before, error=error, **given | more)

    for label, light in (("full", FULL), ("light", LIGHT)):
        claim = "A device stands where it stood, with no clock, and believes its disk about the validators."
        for height in (136, 140, 145, 150):
            after = ask(f"{label}, {height}", claim, light, height)
        hear(to, f"restart, {label}, again", claim, ask(f"{label}, again", claim, light, 140), [141])
        assert after.is_synced
        ask(f"{label}, another model", "Damage shows.", light, 136, MALFORMED, vector=encode_vector(WORLD.model))
        signed = CHRONICLE.at(137).certificate
        ask(f"{label}, another certificate", "Damage shows.", light, 136, "bad-certificate", certificate=signed)
        claim = "Without its validators a header proves nothing."
        ask(f"{label}, no sets", claim, light, 136, "unknown-validators", sets=b"")
    claim = "A full device that does not know what is carried has the model alone."
    ask("full, nothing carried", claim, FULL, 145, carried=b"")
    ask("full, half of it", "Damage shows.", FULL, 145, "malformed-update", carried=b"\x00" * 24)


def _build_starts(to: LightRecorder) -> None:
    """What the genesis says; it is the anchor of trust."""
    chain = build_chain(2, 3, seed=5, powers=(7, 9))
    given: dict[str, Any] = {"genesis": encode_genesis(chain.genesis), "model": encode_vector(chain.model)}
    for label, is_full in (("full", True), ("light", False)):
        for name, checkpoint in (("", None), (", checkpoint", b"c" * 32)):
            parts = given | {"checkpoint": checkpoint, "is_full": is_full}
            to.add(f"start, {label}{name}", "A device begins with the genesis.", "start", BASE, **parts)
    other = bytes(4) + given["model"][4:]
    parts = given | {"model": other, "checkpoint": None, "is_full": True}
    claim = "With the model that the genesis names."
    to.add("start, another model", claim, "start", BASE, error="ConfigError", **parts)
