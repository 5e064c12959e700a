"""Bad input, fourth room: the envelope of a signed message, before anybody reads its fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cbor2
import msgspec

from flchain.base.crypto import Identity
from flchain.wire.envelope import encode, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import AnyMessage, Ask, Commit, Phase, Proposal, Receipt, Vote, Want
from flchain.wire.packets import PacketType, encode_packet
from tests.support.bad_fields.messages import (
    BFT,
    STRANGER,
    TO,
    UP,
    VOTER,
    get_receipt,
    get_round_message,
    get_waiting_agent,
)
from tests.support.bad_fields.nodes import CHAIN, DEVICE, HOLDER, MINER, TOPICS, ask_agent, ask_miner, build_miner
from tests.support.bad_fields.table import OTHER_32, Bench, Effect, Outcome, Row, always
from tests.support.builders.wire import build_word

DROPPED = Effect.DROPPED
UP_TOPIC = TOPICS.device_up(DEVICE.address)
ME, PEER = CHAIN.miners[0].address, CHAIN.miners[1].address


def get_commit() -> bytes:
    return seal(get_round_message(Kind.COMMIT, DEVICE), CHAIN.id, DEVICE)


def send_raw(raw: bytes) -> Outcome:
    return ask_miner(build_miner(Phase.COMMIT), UP_TOPIC, encode_packet(PacketType.MESSAGE, raw))


# --- envelopes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """What a signed message is made of. What is given is what is sent, correctly signed unless a signature is given."""

    signer: Identity
    kind: int
    protected: object
    payload: object
    unprotected: object = None
    signature: object = None
    chain: bytes = CHAIN.id
    tag: int = 18
    after: bytes = b""


def take_apart(message: AnyMessage, signer: Identity) -> Parts:
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    return Parts(signer, message.kind, {1: -8, 4: signer.address}, [int(message.kind), CHAIN.id[:8], *fields])


def put_together(parts: Parts) -> bytes:
    protected = parts.protected if isinstance(parts.protected, bytes) else encode(parts.protected)
    payload = parts.payload if isinstance(parts.payload, bytes) else encode(parts.payload)
    signed = encode(["Signature1", protected, parts.chain + bytes((parts.kind,)), payload])
    signature = parts.signer.sign(signed) if parts.signature is None else parts.signature
    unprotected = {} if parts.unprotected is None else parts.unprotected
    value = [protected, unprotected, payload, signature]
    return encode(cbor2.CBORTag(parts.tag, value) if parts.tag else value) + parts.after


def _field(place: int, value: object) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        assert isinstance(parts.payload, list)
        return replace(parts, payload=[*parts.payload[:place], value, *parts.payload[place + 1 :]])

    return change


def _with(**changes: Any) -> Callable[[Parts], Parts]:
    return lambda parts: replace(parts, **changes)


def _protect(**changes: Any) -> Callable[[Parts], Parts]:
    """Another protected header: algorithm and the key it stands under, key id, keys more and less."""

    def change(parts: Parts) -> Parts:
        right = parts.signer.address
        header: dict[Any, Any] = {changes.get("key", 1): changes.get("algorithm", -8)}
        header[4] = changes["sender"](right) if "sender" in changes else right
        for key in changes.get("without", ()):
            del header[key]
        return replace(parts, protected=header | changes.get("more", {}))

    return change


def _unsort(parts: Parts) -> Parts:
    return replace(parts, protected=b"\xa2\x04\x54" + parts.signer.address + b"\x01\x27")


def _send_up(parts: Parts) -> Outcome:
    return send_raw(put_together(parts))


def _send_vote(parts: Parts) -> Outcome:
    packet = encode_packet(PacketType.MESSAGE, put_together(parts))
    return ask_miner(build_miner(Phase.COMMIT), TOPICS.miner_bft(VOTER.address), packet)


def _send_receipt(parts: Parts) -> Outcome:
    topic = TOPICS.miner_to(CHAIN.miners[0].address, DEVICE.address)
    return ask_agent(get_waiting_agent(), topic, encode_packet(PacketType.MESSAGE, put_together(parts)))


ENVELOPES = (
    Bench("Signed message", UP, lambda: take_apart(get_round_message(Kind.COMMIT, DEVICE), DEVICE), _send_up),
    Bench("Signed message", BFT, lambda: take_apart(Vote(2, 0, 1, OTHER_32), VOTER), _send_vote),
    Bench("Signed message", TO, lambda: take_apart(get_receipt(), CHAIN.miners[0]), _send_receipt),
)
"""A commitment, a vote and a receipt."""
ENVELOPE_ROWS: tuple[tuple[str, str, Callable[[Parts], Parts], str], ...] = (
    ("tag", "none", _with(tag=0), "unsigned"),
    ("tag", "another", _with(tag=17), "malformed"),
    ("after the end", "a byte", _with(after=b"\0"), "not-canonical"),
    ("protected header", "empty", _with(protected={}), "malformed"),
    ("protected header", "no map", _with(protected=[]), "malformed"),
    ("protected header", "no CBOR", _with(protected=b""), "truncated"),
    ("protected header", "no key id", _protect(without=(4,)), "malformed"),
    ("protected header", "no algorithm", _protect(without=(1,)), "malformed"),
    ("protected header", "one key more", _protect(more={5: b""}), "malformed"),
    ("protected header", "keys in another order", _unsort, "not-canonical"),
    ("protected header", "the key `true` for 1", _protect(key=True), "not-canonical"),
    ("algorithm", "another", _protect(algorithm=-7), "bad-signature"),
    ("algorithm", "null", _protect(algorithm=None), "bad-signature"),
    ("sender", "19 bytes", _protect(sender=lambda right: right[1:]), "malformed"),
    ("sender", "text", _protect(sender=lambda right: "a" * 20), "malformed"),
    ("sender", "a stranger", _protect(sender=lambda right: STRANGER.address), "unknown-sender"),
    ("unprotected header", "not empty", _with(unprotected={4: DEVICE.address}), "malformed"),
    ("unprotected header", "a list", _with(unprotected=[]), "malformed"),
    ("payload", "no list", _with(payload={0: 1}), "malformed"),
    ("payload", "two fields", _with(payload=[1, CHAIN.id[:8]]), "malformed"),
    ("payload", "a byte after it", lambda p: replace(p, payload=encode(p.payload) + b"\0"), "not-canonical"),
    ("payload", "one field less", lambda p: replace(p, payload=as_list(p.payload)[:-1]), "malformed"),
    ("payload", "one field more", lambda p: replace(p, payload=[*as_list(p.payload), 0]), "malformed"),
    ("kind", "0", _field(0, 0), "malformed"),
    ("kind", "18", _field(0, 18), "malformed"),
    ("kind", "true", _field(0, True), "malformed"),
    ("kind", "text", _field(0, "COMMIT"), "malformed"),
    ("kind", "another than was signed", _field(0, 3), "bad-signature"),
    ("chain prefix", "another chain's", _field(1, OTHER_32[:8]), "wrong-chain"),
    ("chain prefix", "7 bytes", _field(1, CHAIN.id[:7]), "wrong-chain"),
    ("chain prefix", "the whole id", _field(1, CHAIN.id), "wrong-chain"),
    ("chain prefix", "null", _field(1, None), "wrong-chain"),
    ("number", "a list", _field(2, [1]), "malformed"),
    ("number", "2^64-1", _field(2, 2**64 - 1), "malformed"),
    ("signature", "empty", _with(signature=b""), "unsigned"),
    ("signature", "false", _with(signature=False), "malformed"),
    ("signature", "63 bytes", _with(signature=b"s" * 63), "bad-signature"),
    ("signature", "zeros", _with(signature=bytes(64)), "bad-signature"),
    ("signature", "for another kind", _with(kind=3), "bad-signature"),
    ("signature", "for another chain of the same prefix", _with(chain=CHAIN.id[:8] + bytes(24)), "bad-signature"),
    ("signature", "of another message", _with(signature=get_commit()[-64:-1] + b"\0"), "bad-signature"),
)


def as_list(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value


RAW = Bench("Signed message", UP, get_commit, send_raw)
RAW_ROWS: tuple[tuple[str, str, Callable[[bytes], bytes], str], ...] = (
    ("form", "empty", lambda raw: b"", "truncated"),
    ("form", "cut off", lambda raw: raw[:-1], "truncated"),
    ("form", "three parts", lambda raw: b"\xd2" + encode(cbor2.loads(raw).value[:3]), "malformed"),
    ("form", "a number in more bytes than it needs", lambda raw: b"\xd8\x12" + raw[1:], "not-canonical"),
    ("form", "a float", lambda raw: encode([1.5]), "malformed"),
    (
        "form",
        "longer than its kind may be",
        lambda raw: seal(Commit(1, b"c" * 500, False), CHAIN.id, DEVICE),
        "oversized",
    ),
)

# --- kinds where nobody takes them ----------------------------------------------------------------------------------


def build_channel_rows() -> list[Row]:
    """A kind on a channel, or from a sender, that it is not for."""
    vote, proposal = Vote(2, 0, 1, None), Proposal(2, 0, -1, OTHER_32)
    status, receipt = build_word(), Receipt(1, OTHER_32, "ok")
    ask = Ask(2, ME, Want.HEAD, 0)
    bft = TOPICS.miner_bft(PEER)
    cases: list[tuple[str, str, str, bytes, str]] = [
        ("Commit", "on a miner's channel", bft, get_commit(), "malformed"),
        ("Vote", "on a device's channel", UP_TOPIC, seal(vote, CHAIN.id, DEVICE), "malformed"),
        ("Vote", "of a device", bft, seal(vote, CHAIN.id, DEVICE), "unknown-sender"),
        ("Proposal", "without its block", bft, seal(proposal, CHAIN.id, MINER), "malformed"),
        ("Proposal", "on a device's channel", UP_TOPIC, seal(proposal, CHAIN.id, DEVICE), "malformed"),
        ("Status", "to a miner", UP_TOPIC, seal(status, CHAIN.id, DEVICE), "malformed"),
        ("Receipt", "of a device", UP_TOPIC, seal(receipt, CHAIN.id, DEVICE), "malformed"),
        ("Receipt", "among miners", bft, seal(receipt, CHAIN.id, MINER), "malformed"),
        ("Commit", "of a holder", TOPICS.device_up(HOLDER.address), seal(Commit(1, OTHER_32, False), CHAIN.id, HOLDER),
         "unknown-sender"),
        ("Ask", "of a stranger", TOPICS.device_up(STRANGER.address), seal(ask, CHAIN.id, STRANGER), "unknown-sender"),
        ("Ask", "of a stranger, repeated by a miner", bft, seal(ask, CHAIN.id, STRANGER), "unknown-sender"),
    ]  # fmt: skip
    rows = []
    for what, wrong, topic, raw, code in cases:
        bench = Bench(what, "to a miner", lambda: (UP_TOPIC, get_commit()), _send_topic)
        rows.append(Row(bench, "sender and channel", wrong, always((topic, raw)), code, DROPPED))
    return rows


def build_status_row() -> Row:
    """What a device hears from miners are receipts."""
    status = take_apart(build_word(), CHAIN.miners[0])
    bench = Bench("Status", "to, to a device", ENVELOPES[2].get_right, _send_receipt)
    return Row(bench, "sender and channel", "to a device", always(status), "malformed", DROPPED)


def _send_topic(said: tuple[str, bytes]) -> Outcome:
    return ask_miner(build_miner(Phase.COMMIT), said[0], encode_packet(PacketType.MESSAGE, said[1]))


def build_envelope_rows() -> list[Row]:
    """Every part of a signed message before its fields are read, and channels on which it is refused."""
    rows = [Row(bench, *row, DROPPED) for bench in ENVELOPES for row in ENVELOPE_ROWS]
    other = _protect(sender=lambda right: CHAIN.miners[2].address)
    for bench, code in zip(ENVELOPES, ("unknown-sender", "bad-signature", "unknown-sender"), strict=True):
        rows.append(Row(bench, "sender", "another one that is known", other, code, DROPPED))
    rows += [Row(RAW, field, wrong, change, code, DROPPED) for field, wrong, change, code in RAW_ROWS]
    return [*rows, *build_channel_rows(), build_status_row()]
