"""Vectors of devices that follow the chain of `light_story`: what they hear, in what order, and what they then know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cbor2

from flchain.ledger.block import hash_header
from flchain.ledger.genesis import Genesis, encode_genesis
from flchain.ledger.limits import compute_body_bytes_max, compute_light_body_bytes_max
from flchain.wire.messages import Commit, Phase, Reveal
from tests.vectors.transitions.light_story import DEVICE_PLACES, MODEL, Told, make_head, tell
from tests.vectors.transitions.recorder import Recorder
from tests.vectors.transitions.story import forge, replace_body
from tests.vectors.transitions.world import DEVICES, STRANGER, TIME_MS, seal

Event = Mapping[str, Any]
SETTLED = (6, 10, 14, 18)
CHANGED = (10, 11, 17, 18, 19)
"""Heights whose headers name another set than one that was known before."""


class Follower:
    """Records sequences of events of one chain."""

    def __init__(self, to: Recorder, made: Genesis) -> None:
        self._to, self._made = to, made

    def follow(self, name: str, claim: str, events: Sequence[Event], *, is_full: bool = True, **more: Any) -> None:
        """One device from the genesis on."""
        given: dict[str, Any] = {"genesis": encode_genesis(self._made), "model": MODEL, "is_full": is_full}
        outcome = self._to.add(name, claim, "follow", events=tuple(events), **given, **more)
        assert len(outcome["steps"]) == len(events)


def build(to: Recorder) -> None:
    """All vectors of light and full devices."""
    made, told = tell()
    follower = Follower(to, made)
    _build_full(follower, told)
    _build_light(follower, told)
    _build_bounds(follower, told)
    _build_false(follower, told)
    _build_models(follower, told)
    _build_restored(follower, told)


def head(told: Told, height: int) -> dict[str, Any]:
    """The event of a header, with its sets where they are needed."""
    return told.head(has_sets=height in CHANGED)


def _build_full(follower: Follower, told: dict[int, Told]) -> None:
    in_order: list[Event] = []
    for height, at in told.items():
        in_order += [head(at, height), at.body_event()]
    claim = "A full device computes every model itself."
    follower.follow("full, in order", claim, in_order)
    claim = "Bodies that come late, early or the wrong way round are taken in order of height."
    some = [head(told[h], h) for h in range(1, 5)]
    late = [told[4].body_event(), told[3].body_event(), told[6].body_event(), head(told[5], 5), head(told[6], 6)]
    follower.follow("full, bodies late", claim, [*some, *late])
    early = [told[h].body_event() for h in (6, 4, 3, 2)] + [head(told[h], h) for h in range(1, 7)]
    follower.follow("full, bodies early", claim, early)
    claim = "A header that was missed costs the certainty that all updates are here, not the model."
    gap = [head(told[h], h) for h in (1, 3)]
    gap += [told[3].body_event(), head(told[4], 4), told[4].body_event(), head(told[6], 6), told[6].body_event()]
    follower.follow("full, a header missed", claim, gap)
    lost = [head(told[h], h) for h in (1, 2, 4)] + [told[4].body_event(), head(told[6], 6), told[6].body_event()]
    follower.follow("full, updates missed", "Without all updates the model waits for a snapshot.", lost)
    claim = "What is not the header's body is refused, and what nobody wants ignored."
    wrong = [head(told[h], h) for h in (1, 2, 3)]
    wrong += [told[4].body_event() | {"height": 3}, told[1].body_event(), told[2].body_event()]
    wrong += [{"kind": "body", "height": 3, "body": bytes(100)}, {"kind": "body", "height": 3, "body": bytes(2**20)}]
    follower.follow("full, other bodies", claim, [*wrong, told[3].body_event()])
    claim = "Of an early body that is anybody's invention the true one takes the place."
    fake = [told[4].body_event() | {"height": 3}, *(head(told[h], h) for h in (1, 2, 3)), told[3].body_event()]
    follower.follow("full, a false body early", claim, fake)
    claim = "Only so many bodies wait, the lowest."
    crowd = [{"kind": "body", "height": h, "body": bytes((h,))} for h in (30, 22, 23, 24, 25, 26, 27, 28, 29, 21, 31)]
    follower.follow("full, too many wait", claim, crowd)
    claim = "A certified header with another model: this device says so and keeps its own."
    bad = [head(told[h], h) for h in range(1, 5)] + [told[3].body_event(), told[4].body_event(), head(told[5], 5)]
    follower.follow("full, a mismatch", claim, [*bad, told[6].head(model_hash=b"m" * 32), told[6].body_event()])


def _build_light(follower: Follower, told: dict[int, Told]) -> None:
    claim = "A light device takes a short payload for each settled round."
    events: list[Event] = []
    for height in (1, 3, 6, 7, 10, 13, 14, 18, 20):
        events.append(told[height].head())
        if height in SETTLED:
            events.append(told[height].body_event(False))
    follower.follow("light, in order", claim, events, is_full=False)
    claim = "A payload that comes early waits for its header."
    early = [told[6].body_event(False), told[10].body_event(False), head(told[6], 6), told[10].head()]
    follower.follow("light, early", claim, early, is_full=False)
    claim = "A payload that leads to another model, or a settlement that is not the header's, is refused."
    proof = cbor2.loads(told[6].light_body)
    other, empty = [*proof[:3], told[10].after.payload], [*proof[:3], b""]
    accepted = [*proof[:2], [[DEVICES[i].address for i in DEVICE_PLACES]], proof[3]]
    bodies = [cbor2.dumps(parts, canonical=True) for parts in (other, empty, accepted)]
    bodies += [b"nothing", told[6].body]
    wrong: list[Event] = [head(told[6], 6), *({"kind": "body", "height": 6, "body": body} for body in bodies)]
    follower.follow("light, other payloads", claim, [*wrong, told[6].body_event(False)], is_full=False)
    claim = "A payload of a later round is no use without the ones before."
    later = [head(told[6], 6), told[10].head(), told[10].body_event(False), told[6].body_event(False)]
    follower.follow("light, the second first", claim, later, is_full=False)


def _build_bounds(follower: Follower, told: dict[int, Told]) -> None:
    """How long a body may be, and how many headers wait for theirs."""
    params = told[1].after.params
    longest = {True: compute_body_bytes_max(params, 3, 4), False: compute_light_body_bytes_max(params)}
    for is_full, size in longest.items():
        name = "full" if is_full else "light"
        bodies = [{"kind": "body", "height": 9, "body": bytes(size + more)} for more in (1, 0)]
        known = {"kind": "body", "height": 1, "body": bytes(size + 1)}
        claim = "No body is longer than an honest one can be; what is not wanted is not even looked at."
        follower.follow(f"bounds, {name}", claim, [*bodies, head(told[1], 1), known], is_full=is_full)
    events: list[Event] = []
    for height in range(1, 67):
        fields: dict[str, Any] = {"height": height, "next_round": 9, "time_ms": TIME_MS + height, "previous": b"p" * 32}
        if height > 1:
            fields["previous"] = hash_header(events[-1]["header"])
        else:
            fields["previous"] = told[1].before.head
        events.append(told[1].head(has_sets=False, **fields))
    claim = "Only so many headers wait for their bodies, the newest."
    follower.follow("bounds, headers", claim, events, is_full=False)


def _build_false(follower: Follower, told: dict[int, Told]) -> None:
    """Final blocks that no honest majority makes, and headers that do not close a phase."""
    claim = "A block of commitments that does not close their phase gives no certainty."
    stays = told[1].head(has_sets=False, phase=Phase.COMMIT, next_phase=Phase.COMMIT)
    follower.follow("false, a phase goes on", claim, [stays])
    chain = told[1].after.chain
    sender = DEVICES[DEVICE_PLACES[0]]
    update = cbor2.loads(told[3].body)[0][0]
    cases = {
        "of a stranger": seal(Reveal(1, bytes(16), 5, b"u" * 48), STRANGER, chain),
        "of another round": seal(Reveal(2, bytes(16), 5, b"u" * 48), sender, chain),
        "no update": seal(Commit(1, bytes(32), False), sender, chain),
        "badly signed": update[:-1] + bytes((update[-1] ^ 1,)),
        "undecodable": seal(Reveal(1, bytes(16), 5, b"u"), sender, chain),
        "of the largest claim": seal(Reveal(1, bytes(16), 998, b"u" * 48), sender, chain),
    }
    for name, raw in cases.items():
        forged = forge(told[3].header, replace_body(told[3].body, transactions=[raw]), previous=told[1].after.head)
        event = make_head(forged["header"], told[3].before.validators, told[3].after.validators, has_sets=False)
        body = {"kind": "body", "height": 3, "body": forged["body"]}
        claim = "What two thirds have signed is looked at all the same."
        follower.follow(f"false, {name}", claim, [event, body])
    events = [told[10].head(), told[10].body_event(False)]
    claim = "The payload of a later round changes nothing."
    follower.follow("light, a round missed", claim, events, is_full=False)
    claim = "Between two that are awaited a body waits as well."
    events = [head(told[h], h) for h in range(1, 7)]
    events += [told[4].body_event(), told[3].body_event(), told[6].body_event()]
    follower.follow("full, three awaited", claim, events)


def _build_models(follower: Follower, told: dict[int, Told]) -> None:
    claim = "A whole model, which its header proves, stands in for the rounds that were missed."
    for is_full in (True, False):
        name = "full" if is_full else "light"
        events = [head(told[1], 1), told[13].snapshot(is_full), told[14].head(), told[14].body_event(is_full)]
        events += [told[18].head(), told[18].snapshot(is_full), told[18].snapshot(is_full), told[10].snapshot(is_full)]
        follower.follow(f"model, {name}", claim, events, is_full=is_full)
    claim = "A model alone does not say whose updates are in it."
    events = [head(told[6], 6), told[6].body_event(False), told[13].snapshot(False)]
    follower.follow("model, after a round", claim, events, is_full=False)
    claim = "Another model, or something else carried, is refused."
    at = told[6].snapshot()
    wrong = [at | {"vector": at["vector"][:-1] + b"\1"}, at | {"vector": at["vector"][:-4]}]
    wrong += [at | {"carried": at["carried"][:-1]}, at | {"carried": told[10].snapshot()["carried"]}, at]
    follower.follow("model, another", claim, wrong)
    claim = "Payloads are taken that lead from the model here to the header's."
    payloads = [told[h].after.payload for h in SETTLED]
    cases: dict[str, tuple[int, int, Sequence[object]]] = {
        "all": (18, 1, payloads),
        "one more in front": (18, 0, [b"before", *payloads]),
        "one missing in front": (18, 2, payloads[1:]),
        "one missing behind": (18, 1, payloads[:-1]),
        "swapped": (18, 1, [payloads[1], payloads[0], *payloads[2:]]),
        "no bytes": (18, 1, [*payloads[:-1], 5]),
        "garbage": (18, 1, [*payloads[:-1], b"\xff" * 9]),
        "two rounds": (13, 1, payloads[:2]),
    }
    for name, (height, first, given) in cases.items():
        events = [told[height].deltas(first, given), told[6].deltas(1, payloads[:1])]
        follower.follow(f"payloads, {name}", claim, events, is_full=False)
    claim = "For a full device they are not enough."
    follower.follow("payloads, for a full device", claim, [told[6].deltas(1, payloads[:1])])
    claim = "One that changes nothing must be there too, and what is known already is ignored."
    short = told[18].deltas(1, [payloads[0], payloads[1], payloads[3]])
    events = [short, told[18].deltas(1, payloads), told[18].deltas(2, payloads)]
    follower.follow("payloads, the empty one", claim, events, is_full=False)
    claim = "In the place of a model come at most so many."
    for first, count in ((1, 1_024), (1, 1_025), (0, 1_025), (0, 1_026)):
        at = told[6].deltas(first, [b""] * count)
        header = told[6].head(next_round=first + count, model_hash=told[1].after.model_hash)
        name = f"payloads, {count} from {first} on"
        follower.follow(name, claim, [at | header | {"kind": "deltas"}], is_full=False)


def _build_restored(follower: Follower, told: dict[int, Told]) -> None:
    claim = "After a restart a device stands where it stood, if nothing was damaged."
    at = told[13].snapshot() | {"kind": "restore"}
    carried = b"".join(part.astype("<i4").tobytes() for part in told[13].after.carried)
    for name, events in {
        "with what is carried": [at | {"carried": carried}],
        "without": [at | {"carried": b""}],
        "a damaged model": [at | {"carried": carried, "vector": at["vector"][::-1]}],
        "damaged in what is carried": [at | {"carried": carried[:-1]}],
        "without sets": [at | {"carried": carried, "sets": b""}],
        "a damaged certificate": [at | {"carried": carried, "certificate": at["certificate"][:-1] + b"\0"}],
    }.items():
        then = [told[14].head(), told[14].body_event()]
        follower.follow(f"restored, {name}", claim, [*events, *then])
    follower.follow("restored, a light one", claim, [at | {"carried": carried}, told[14].head()], is_full=False)
