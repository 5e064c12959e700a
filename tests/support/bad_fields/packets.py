"""Bad input, fifth room: packets, chunks and topics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from agent.core import values as av
from agent.core.machine import step as agent_step
from agent.core.state import AgentState
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Height
from flchain.ledger.limits import compute_packet_bytes_max
from flchain.ledger.snapshot import build_carried_proof, encode_state
from flchain.wire.chunks import CHUNK_BYTES, DEVICE_CHUNK_BYTES
from flchain.wire.envelope import encode, seal
from flchain.wire.messages import Phase, Proposal
from flchain.wire.packets import PacketType, encode_packet
from miner.core.machine import build_miner_state
from miner.core.state import MinerState
from miner.core.tip import Standing
from miner.core.values import MinerConfig
from tests.support.bad_fields.blocks import get_first, get_follower, get_leader, get_settling
from tests.support.bad_fields.envelopes import UP_TOPIC, get_commit
from tests.support.bad_fields.heads import certify
from tests.support.bad_fields.messages import STRANGER, UP
from tests.support.bad_fields.nodes import (
    CHAIN,
    DEVICE,
    NOW,
    TOPICS,
    ask_agent,
    ask_miner,
    build_agent,
    build_miner,
    drive,
)
from tests.support.bad_fields.table import OTHER_32, SHAPES, Bench, Effect, Outcome, Row, always
from tests.support.builders.chain import NO_CLOCK
from tests.support.light.driver import light_body_of

DROPPED, IGNORED, TAKEN = Effect.DROPPED, Effect.IGNORED, Effect.TAKEN
ME, HOME = CHAIN.miners[0].address, CHAIN.miners[0].address
PEER = CHAIN.miners[1].address


# --- packets --------------------------------------------------------------------------------------------------------

Sent = tuple[str, PacketType, tuple[Any, ...]]
"""Topic, type and fields of a packet."""
FIELDS: dict[PacketType, tuple[str, ...]] = {
    PacketType.MESSAGE: ("message",),
    PacketType.PROPOSAL: ("proposal", "header", "body"),
    PacketType.HEAD: ("header", "certificate", "validators"),
    PacketType.BODY: ("height", "body"),
    PacketType.MODEL: ("header", "certificate", "validators", "model", "carried"),
    PacketType.BLOCK: ("header", "certificate", "body"),
    PacketType.STATE: ("header", "certificate", "validators", "state"),
    PacketType.LIGHT_BODY: ("height", "light body"),
    PacketType.PAYLOADS: ("header", "certificate", "validators", "first", "payloads"),
    PacketType.CHUNK: ("digest", "index", "count", "piece"),
}


def _send_miner(sent: Sent) -> Outcome:
    topic, kind, fields = sent
    match kind:
        case PacketType.PROPOSAL:
            before = get_follower()
        case PacketType.BLOCK:
            before = build_miner(Phase.SETTLE)
        case PacketType.STATE:
            before = get_late_miner()
        case _:
            before = build_miner(Phase.COMMIT)
    return ask_miner(before, topic, encode_packet(kind, *fields))


def _send_agent(sent: Sent) -> Outcome:
    topic, kind, fields = sent
    before = get_waiting() if kind is PacketType.BODY else build_agent()
    return ask_agent(before, topic, encode_packet(kind, *fields))


def _send_light_agent(sent: Sent) -> Outcome:
    topic, kind, fields = sent
    before = get_waiting_light() if kind is PacketType.LIGHT_BODY else build_agent(is_full=False)
    return ask_agent(before, topic, encode_packet(kind, *fields))


@lru_cache
def get_late_miner() -> MinerState:
    """A miner that has no block yet."""
    return build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(drive(Phase.OPEN).state))


SETTLED = 5
"""The height that settles the first round; 3 is the block with its updates."""


@lru_cache
def get_waiting() -> AgentState:
    """Device 0 that has the headers up to that of the updates, and lacks their body."""
    state, head = build_agent(2), drive(Phase.COMMIT, 1).get_head(3)
    packet = encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets)
    return agent_step(state, av.PacketReceived(TOPICS.miner_head(HOME), packet), NOW, NO_CLOCK)[0]


@lru_cache
def get_waiting_light() -> AgentState:
    """Light device 0 that has the header of the first settlement, and lacks its light body."""
    state, head = build_agent(is_full=False), drive(Phase.COMMIT, 1).get_head(SETTLED)
    packet = encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets)
    return agent_step(state, av.PacketReceived(TOPICS.miner_light(HOME), packet), NOW, NO_CLOCK)[0]


@lru_cache
def get_packets() -> dict[tuple[PacketType, str], Sent]:
    """One valid packet of every type, for its receiver."""
    driver, device = drive(Phase.COMMIT, 1), TOPICS.miner_to(HOME, DEVICE.address)
    head, to_me = driver.get_head(SETTLED), TOPICS.miner_to(PEER, ME)
    parts = (head.header, head.certificate, head.sets)
    leader, first, last = get_leader(), get_first(), get_settling()
    proposal = seal(Proposal(1, 0, -1, first.hash), CHAIN.id, leader)
    settled = driver.states[SETTLED]
    return {
        (PacketType.MESSAGE, "up, to a miner"): (UP_TOPIC, PacketType.MESSAGE, (get_commit(),)),
        (PacketType.PROPOSAL, "bft, to a miner"): (
            TOPICS.miner_bft(leader.address),
            PacketType.PROPOSAL,
            (proposal, first.header_bytes, first.body_bytes),
        ),
        (PacketType.BLOCK, "to, to a miner"): (
            to_me,
            PacketType.BLOCK,
            (last.header_bytes, certify(last.header_bytes, last.header.height), last.body_bytes),
        ),
        (PacketType.HEAD, "head, to a miner"): (TOPICS.miner_head(PEER), PacketType.HEAD, parts),
        (PacketType.STATE, "to, to a miner"): (to_me, PacketType.STATE, (*parts, encode_state(settled))),
        (PacketType.CHUNK, "bft, to a miner"): (
            TOPICS.miner_bft(PEER),
            PacketType.CHUNK,
            (OTHER_32, 0, 2, bytes(DEVICE_CHUNK_BYTES)),
        ),
        (PacketType.HEAD, "head, to a device"): (TOPICS.miner_head(HOME), PacketType.HEAD, parts),
        (PacketType.HEAD, "to, to a device"): (device, PacketType.HEAD, parts),
        (PacketType.BODY, "body, to a device"): (
            TOPICS.miner_body(HOME),
            PacketType.BODY,
            (Height(3), driver.blocks[2].body_bytes),
        ),
        (PacketType.MODEL, "to, to a device"): (
            device,
            PacketType.MODEL,
            (*parts, encode_vector(settled.model), build_carried_proof(settled)),
        ),
        (PacketType.HEAD, "light, to a light device"): (TOPICS.miner_light(HOME), PacketType.HEAD, parts),
        (PacketType.LIGHT_BODY, "light, to a light device"): (
            TOPICS.miner_light(HOME),
            PacketType.LIGHT_BODY,
            (Height(SETTLED), light_body_of(driver, SETTLED)),
        ),
        (PacketType.MODEL, "to, to a light device"): (
            device,
            PacketType.MODEL,
            (*parts, encode_vector(settled.model), b""),
        ),
        (PacketType.PAYLOADS, "to, to a light device"): (device, PacketType.PAYLOADS, (*parts, 1, [settled.payload])),
        (PacketType.CHUNK, "body, to a device"): (
            TOPICS.miner_body(HOME),
            PacketType.CHUNK,
            (OTHER_32, 0, 2, bytes(DEVICE_CHUNK_BYTES)),
        ),
    }


_SENDERS = {"miner": _send_miner, "device": _send_agent, "light device": _send_light_agent}


def _put(place: int, value: Any) -> Callable[[Sent], Sent]:
    """The packet with another field; `value` may be a function of the field."""

    def change(sent: Sent) -> Sent:
        topic, kind, fields = sent
        made = value(fields[place]) if callable(value) else value
        return topic, kind, (*fields[:place], made, *fields[place + 1 :])

    return change


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


CONTENT: dict[tuple[PacketType, str], list[tuple[str, Any, str, Effect]]] = {
    (PacketType.MESSAGE, "message"): [("cut off", _cut, "truncated", DROPPED)],
    (PacketType.PROPOSAL, "proposal"): [
        ("cut off", _cut, "truncated", DROPPED),
        ("a device's commitment", lambda _: get_commit(), "unknown-sender", DROPPED),
    ],
    (PacketType.PROPOSAL, "header"): [
        ("empty", b"", "truncated", DROPPED),
        ("another block's", lambda _: get_settling().header_bytes, "invalid-block", DROPPED),
    ],
    (PacketType.PROPOSAL, "body"): [("another block's", lambda _: get_settling().body_bytes, "invalid-block", DROPPED)],
    (PacketType.BLOCK, "header"): [("cut off", _cut, "truncated", DROPPED)],
    (PacketType.BLOCK, "certificate"): [
        ("a bit flipped", _flip, "bad-certificate", DROPPED),
        ("longer than any", lambda c: c + bytes(8_192), "oversized", DROPPED),
    ],
    (PacketType.BLOCK, "body"): [("another block's", lambda _: get_first().body_bytes, "invalid-block", DROPPED)],
    (PacketType.HEAD, "header"): [
        ("cut off", _cut, "truncated", DROPPED),
        ("longer than any", lambda h: h + bytes(1_024), "oversized", DROPPED),
    ],
    (PacketType.HEAD, "certificate"): [("a bit flipped", _flip, "bad-certificate", DROPPED)],
    (PacketType.STATE, "header"): [("cut off", _cut, "truncated", DROPPED)],
    (PacketType.STATE, "certificate"): [("a bit flipped", _flip, "bad-certificate", DROPPED)],
    (PacketType.STATE, "state"): [
        ("cut off", _cut, "truncated", DROPPED),
        ("a bit flipped", _flip, "malformed", DROPPED),
        ("longer than this chain's can be", lambda s: s + bytes(8_000_000), "oversized", DROPPED),
    ],
    (PacketType.BODY, "height"): [
        ("one that is over", 1, "", IGNORED),
        ("-1", -1, "", IGNORED),
        ("one to come: it waits", 9, "", TAKEN),
    ],
    (PacketType.BODY, "body"): [
        ("cut off", _cut, "truncated", DROPPED),
        ("another block's", lambda _: get_first().body_bytes, "invalid-block", DROPPED),
        ("longer than this chain's can be", lambda b: bytes(300_000), "oversized", DROPPED),
    ],
    (PacketType.MODEL, "header"): [("cut off", _cut, "truncated", DROPPED)],
    (PacketType.MODEL, "certificate"): [("a bit flipped", _flip, "bad-certificate", DROPPED)],
    (PacketType.MODEL, "model"): [
        ("another", lambda m: bytes(len(m)), "malformed", DROPPED),
        ("of another length", _cut, "malformed-update", DROPPED),
        ("a value out of range", lambda m: b"\0\0\0\x80" + m[4:], "malformed-update", DROPPED),
    ],
    (PacketType.MODEL, "carried"): [
        ("none, to a full device", b"", "truncated", DROPPED),
        ("cut off, to a full device", _cut, "truncated", DROPPED),
    ],
    (PacketType.LIGHT_BODY, "height"): [
        ("one that is over", 1, "", IGNORED),
        ("-1", -1, "", IGNORED),
        ("one to come: it waits", 9, "", TAKEN),
    ],
    (PacketType.LIGHT_BODY, "light body"): [
        ("cut off", _cut, "truncated", DROPPED),
        ("a body", lambda _: get_settling().body_bytes, "malformed", DROPPED),
        ("longer than this chain's can be", lambda b: bytes(300_000), "oversized", DROPPED),
    ],
    (PacketType.PAYLOADS, "header"): [("cut off", _cut, "truncated", DROPPED)],
    (PacketType.PAYLOADS, "certificate"): [("a bit flipped", _flip, "bad-certificate", DROPPED)],
    (PacketType.PAYLOADS, "first"): [
        ("a later round", 2, "malformed", DROPPED),
        ("-1", -1, "malformed", DROPPED),
    ],
    (PacketType.PAYLOADS, "payloads"): [
        ("none", [], "malformed", DROPPED),
        ("one more", lambda p: [*p, b""], "malformed", DROPPED),
        ("one that is text", ["x"], "malformed", DROPPED),
        ("an empty one", [b""], "malformed", DROPPED),
        ("garbage", [b"\xff" * 20], "malformed-update", DROPPED),
    ],
    (PacketType.CHUNK, "digest"): [("31 bytes", OTHER_32[1:], "malformed", DROPPED)],
    (PacketType.CHUNK, "index"): [("-1", -1, "malformed", DROPPED), ("the count", 2, "malformed", DROPPED)],
    (PacketType.CHUNK, "count"): [
        ("0", 0, "malformed", DROPPED),
        ("more than this sender can have to say", 2**40, "oversized", DROPPED),
    ],
    (PacketType.CHUNK, "piece"): [
        ("empty", b"", "malformed", DROPPED),
        ("shorter than any but the last may be", bytes(DEVICE_CHUNK_BYTES - 1), "malformed", DROPPED),
        ("longer than a chunk", bytes(CHUNK_BYTES + 1), "malformed", DROPPED),
    ],
}
"""What is wrong with a packet's field beyond its type; what is in a field has rows of its own."""


def build_packet_rows() -> list[Row]:
    """Every field of every packet type: its type, and whether its content is that of the packet."""
    rows: list[Row] = []
    for (kind, where), right in get_packets().items():
        send = _SENDERS[where.rsplit(", to a ")[-1]]
        bench = Bench(f"Packet {kind.name}", where, _give(right), send)
        for place, field in enumerate(FIELDS[kind]):
            shape = {int: "any whole", bytes: "bytes", list: "list"}[type(right[2][place])]
            for wrong, value in SHAPES[shape]:
                if shape == "list" and isinstance(value, list):
                    continue  # what is in it has rows of its own
                detail = "wrong type"
                rows.append(Row(bench, field, wrong, _put(place, value), "malformed", DROPPED, detail))
            for wrong, value, code, effect in CONTENT.get((kind, field), ()):
                if wrong.endswith("to a full device") and "light" in where:
                    continue
                rows.append(Row(bench, field, wrong, _put(place, value), code, effect))
        fewer, more = _fields(lambda fields: fields[:-1]), _fields(lambda fields: (*fields, b""))
        rows.append(Row(bench, "fields", "one less", fewer, "malformed", DROPPED, "wrong type"))
        rows.append(Row(bench, "fields", "one more", more, "malformed", DROPPED, "wrong type"))
    return rows + build_whole_rows()


def _give(value: Any) -> Callable[[], Any]:
    return lambda: value


def _fields(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Callable[[Sent], Sent]:
    return lambda sent: (sent[0], sent[1], change(sent[2]))


def build_whole_rows() -> list[Row]:
    """Payloads that are not packets, chunks that make none, and topics that belong to no one."""
    rows: list[Row] = []
    payload = Bench("Packet", UP, get_commit_packet, _send_payload)
    for wrong, data, code in (
        ("empty", b"", "truncated"),
        ("no CBOR", b"\xff\xff", "malformed"),
        ("no list", encode(1), "malformed"),
        ("an empty list", encode([]), "malformed"),
        ("cut off", get_commit_packet()[:-1], "truncated"),
        ("a number in more bytes than it needs", b"\x82\x18\x00" + get_commit_packet()[2:], "not-canonical"),
        ("a byte after its end", get_commit_packet() + b"\0", "not-canonical"),
    ):
        rows.append(Row(payload, "form", wrong, always(data), code, DROPPED))
    for wrong, kind in (("unknown", 99), ("true", True), ("text", "MESSAGE"), ("-1", -1)):
        rows.append(Row(payload, "type", wrong, always(encode([kind, get_commit()])), "malformed", DROPPED))
    topics = Bench("Topic", "to a miner", lambda: UP_TOPIC, _send_on)
    address = DEVICE.address.hex()
    for field, wrong, topic, code in (
        ("levels", "too few", TOPICS.prefix, "malformed"),
        ("address", "no hexadecimal digits", UP_TOPIC.replace(address, "x" * 40), "malformed"),
        ("address", "capitals", UP_TOPIC.replace(address, address.upper()), "malformed"),
        ("address", "19 bytes", UP_TOPIC.replace(address, address[2:]), "malformed"),
        ("address", "another device's", TOPICS.device_up(CHAIN.devices[1].address), "unknown-sender"),
        ("channel", "none", UP_TOPIC.removesuffix("/up"), "malformed"),
        ("channel", "unknown", UP_TOPIC.replace("/up", "/down"), "malformed"),
        ("channel", "status, which miners do not read", TOPICS.device_status(DEVICE.address), "malformed"),
    ):
        rows.append(Row(topics, field, wrong, always(topic), code, DROPPED))
    heard = Bench("Topic", "to a device", lambda: TOPICS.miner_head(HOME), _tell_on)
    rows.append(
        Row(heard, "address", "of no miner", always(TOPICS.miner_head(STRANGER.address)), "unknown-sender", DROPPED)
    )
    for field, wrong, topic in (
        ("levels", "too few", TOPICS.prefix),
        ("channel", "for another type of packet", TOPICS.miner_body(HOME)),
        ("channel", "bft, which devices do not read", TOPICS.miner_bft(HOME)),
    ):
        rows.append(Row(heard, field, wrong, always(topic), "malformed", DROPPED))
    return rows + build_chunk_rows()


def get_commit_packet() -> bytes:
    return encode_packet(PacketType.MESSAGE, get_commit())


def _send_payload(payload: bytes) -> Outcome:
    return ask_miner(build_miner(Phase.COMMIT), UP_TOPIC, payload)


def _send_on(topic: str) -> Outcome:
    return ask_miner(build_miner(Phase.COMMIT), topic, get_commit_packet())


def _tell_on(topic: str) -> Outcome:
    head = drive(Phase.COMMIT, 1).get_head(1)
    return ask_agent(build_agent(), topic, encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets))


def build_chunk_rows() -> list[Row]:
    """Chunks that are in order one by one and make no packet."""
    inner = encode_packet(PacketType.CHUNK, OTHER_32, 0, 1, b"x")
    digest = hashlib.sha256(inner).digest()
    whole = get_commit_packet()
    right = (UP_TOPIC, PacketType.CHUNK, (hashlib.sha256(whole).digest(), 0, 1, whole))
    bench = Bench("Packet CHUNK", "up, to a miner", _give(right), _send_miner)
    stranger = (TOPICS.device_up(STRANGER.address), PacketType.CHUNK, right[2])
    bytes_max = compute_packet_bytes_max(CHAIN.genesis.params, len(CHAIN.devices), 4)
    return [
        Row(bench, "digest", "not that of the pieces", _put(0, OTHER_32), "malformed", DROPPED, "do not make"),
        Row(bench, "piece", "a chunk", _fields(lambda _: (digest, 0, 1, inner)), "malformed", DROPPED, "inside chunks"),
        Row(bench, "sender", "a stranger", always(stranger), "unknown-sender", DROPPED),
        Row(bench, "count", "a packet too long", _put(2, bytes_max), "oversized", DROPPED),
    ]
