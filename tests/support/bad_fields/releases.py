"""Bad input, eighth room: an operator's releases, as a device hears them."""

from __future__ import annotations

from functools import lru_cache

from agent.core import values as av
from agent.core.machine import step as agent_step
from agent.core.state import AgentState
from flchain.base.crypto import Identity
from flchain.wire.envelope import seal
from flchain.wire.messages import AnyMessage, Unjail
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.release import Package, Release, ReleaseState
from tests.support.bad_fields.messages import SHAPES, STRANGER
from tests.support.bad_fields.nodes import CHAIN, NOW, OPERATOR, TOPICS, ask_agent, build_agent, say
from tests.support.bad_fields.table import (
    OTHER_32,
    Bench,
    Effect,
    Line,
    Outcome,
    Row,
    always,
    build_rows,
    build_shape_rows,
    replace,
)
from tests.support.builders.chain import NO_CLOCK

DROPPED, IGNORED = Effect.DROPPED, Effect.IGNORED
TOPIC, WHERE = TOPICS.operator_release(OPERATOR.address), "release, to a device"
PACKAGE_SHAPES = {"suite": "word", "architecture": "word", "sha256": "hash", "size_bytes": "package size"}


def get_release(sequence: int = 5) -> Release:
    amd64, arm64 = (Package("trixie", name, b"h" * 32, 1_000) for name in ("amd64", "arm64"))
    return Release(sequence, "0.2.0", (amd64, arm64), 500, ReleaseState.ROLLING, 900, 0)


@lru_cache
def get_agent() -> AgentState:
    """Device 0 that has heard release 4."""
    return agent_step(build_agent(), av.PacketReceived(TOPIC, say(get_release(4), OPERATOR)), NOW, NO_CLOCK)[0]


def send(message: AnyMessage, sender: Identity = OPERATOR, topic: str = TOPIC, chain: bytes = CHAIN.id) -> Outcome:
    return ask_agent(get_agent(), topic, say(message, sender, chain))


def send_with(package: Package) -> Outcome:
    return send(replace(get_release(), "packages", (package, get_release().packages[1])))


RELEASE = Bench("Release", WHERE, get_release, send)
PACKAGE = Bench("Package", WHERE, lambda: get_release().packages[0], send_with)
LINES: list[Line] = [
    ("sequence", "0: the first is 1", 0, "malformed", DROPPED, "$[0]"),
    ("sequence", "one that is over", 3, "wrong-sequence", DROPPED),
    ("sequence", "the known one again", 4, "", IGNORED),
    ("packages", "in another order", lambda m: m.packages[::-1], "malformed", DROPPED, "out of order"),
    ("packages", "two for the same boards", lambda m: m.packages[:1] * 2, "malformed", DROPPED, "out of order"),
]


def build_release_rows() -> list[Row]:
    """All rows of releases."""
    other = Bench("Release", WHERE, lambda: (get_release(), OPERATOR, TOPIC, CHAIN.id), lambda said: send(*said))
    beside = TOPICS.operator_release(STRANGER.address)
    senders = [
        ("of a stranger, under the operator's topic", (get_release(), STRANGER, TOPIC, CHAIN.id), "unknown-sender"),
        ("of a stranger, under its own topic", (get_release(), STRANGER, beside, CHAIN.id), "unknown-sender"),
        ("of the operator, for another chain", (get_release(), OPERATOR, TOPIC, OTHER_32), "wrong-chain"),
        ("another release under the known number", (_change_window(), OPERATOR, TOPIC, CHAIN.id), "wrong-sequence"),
    ]
    packet = Bench("Release", WHERE, lambda: say(get_release(), OPERATOR), lambda p: ask_agent(get_agent(), TOPIC, p))
    wrong = [
        ("an order of the operator's", encode_packet(PacketType.MESSAGE, seal(Unjail(1), CHAIN.id, OPERATOR))),
        ("a header", encode_packet(PacketType.HEAD, b"", b"", b"")),
    ]
    return [
        *build_rows(RELEASE, LINES),
        *build_shape_rows(RELEASE, Release, SHAPES[Release]),
        *build_shape_rows(PACKAGE, Package, PACKAGE_SHAPES, prefix="$[2][0]"),
        *(Row(other, "sender and channel", text, always(said), code, DROPPED) for text, said, code in senders),
        *(Row(packet, "packet", text, always(data), "malformed", DROPPED) for text, data in wrong),
    ]


def _change_window() -> Release:
    changed: Release = replace(get_release(4), "window_s", 901)
    return changed
