"""Send an order under the sender's own address, read the miners' answers, and find it in a final block."""

from __future__ import annotations

import time
from dataclasses import dataclass

from flchain.base.crypto import Identity, compute_address
from flchain.base.errors import FlchainError, InvalidMessage
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.ledger.genesis import Genesis
from flchain.ledger.state import find_account
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain.wire.messages import Receipt
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics, read_topic_owner
from flchain_edge.mqtt.inbox import Inbox, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings, with_client_id
from flchain_edge.newer_python import timeout
from tools.inspect.stake_view import LedgerView

POLL_S = 0.25
GRACE_S = 3.0
"""Seconds to wait after a refusal: a miner that is behind may refuse what others accept."""
REPEAT_S = 5.0
HINTS = {
    "wrong-sequence": "already done, or --sequence is too low: see flchain stake show",
    "pool-full": "too many orders are waiting, try again later",
}


class OrderFailed(FlchainError):
    """The miners refuse an order, do not answer, or have not made it final in time; the text says what to do."""


@dataclass(frozen=True)
class Access:
    """What an order needs: the chain, the signing key, where the broker is, and a ledger if there is one."""

    genesis: Genesis
    identity: Identity
    mqtt: MqttSettings
    ledger: LedgerView | None


def get_miners(access: Access) -> dict[Address, bytes]:
    """Return the miners whose receipts count: the validators, by the ledger if there is one."""
    keys = [entry.public_key for entry in access.genesis.validators]
    if access.ledger is not None:
        keys = [validator.public_key for validator in access.ledger.state.validators]
    return {compute_address(key): key for key in keys}


def read_receipt(
    event: object, access: Access, miners: dict[Address, bytes], digest: bytes
) -> tuple[Address, str] | None:
    """Return which miner says what about the order; None for another message, or one that the miner has not signed."""
    if not isinstance(event, Received):
        return None
    try:
        owner, packet = read_topic_owner(event.topic), decode_packet(event.payload)
        if packet.type is not PacketType.MESSAGE or owner not in miners:
            return None
        envelope = open_envelope(packet.fields[0], access.genesis.compute_id())
        message = verify_envelope(envelope, access.genesis.compute_id(), miners[owner]).message
    except InvalidMessage:
        return None
    if not isinstance(message, Receipt) or message.digest != digest or envelope.sender != owner:
        return None
    return owner, message.code


async def publish(access: Access, raw: bytes, timeout_s: float) -> dict[Address, str]:
    """Send an order until a miner accepts it, all refuse it, or the time is over; return what each has said.

    Raise OrderFailed when the broker cannot be reached.
    """
    me, chain = access.identity.address, access.genesis.compute_id()
    topics, miners = Topics.of_chain(chain), get_miners(access)
    digest = open_envelope(raw, chain).digest()
    inbox = Inbox()
    # The node itself may be connected under its address, and a broker keeps one connection for each client id.
    link = MqttLink(with_client_id(replace(access.mqtt, client_id=""), f"{me.hex()}-stake"), inbox.put)
    link.subscribe(topics.answers_to(me))
    packet = encode_packet(PacketType.MESSAGE, raw)
    said: dict[Address, str] = {}
    until, repeat_at, was_connected = time.monotonic() + timeout_s, 0.0, False
    await link.start()
    try:
        while time.monotonic() < until and "ok" not in said.values() and len(said) < len(miners):
            if link.is_subscribed and time.monotonic() >= repeat_at:
                was_connected |= link.publish(topics.device_up(me), packet)
                repeat_at = time.monotonic() + REPEAT_S
            try:
                async with timeout(POLL_S):
                    receipt = read_receipt(await inbox.get(), access, miners, digest)
            except TimeoutError:
                continue
            if receipt is not None:
                said.setdefault(*receipt)
                until = min(until, time.monotonic() + GRACE_S)
    finally:
        await link.stop()
    if not was_connected:
        raise OrderFailed(
            f"no connection to the broker at {', '.join(map(str, access.mqtt.endpoints))} in {timeout_s:.0f} s"
        )
    return said


def judge(said: dict[Address, str], timeout_s: float) -> str:
    """Return the miner that accepted the order. Raise OrderFailed."""
    for miner, code in said.items():
        if code == "ok":
            return miner.hex()
    if not said:
        raise OrderFailed(
            f"no miner answered in {timeout_s:.0f} s: is the account known on this chain, and are miners running? "
            "The order may still get into a block; sending the same one again is safe"
        )
    codes = sorted(set(said.values()))
    hints = [HINTS[code] for code in codes if code in HINTS]
    raise OrderFailed(f"refused by {len(said)} miners: {', '.join(codes)}" + "".join(f"; {hint}" for hint in hints))


def wait_until_final(ledger: LedgerView, raw: bytes, me: Address, sequence: int, timeout_s: float) -> int:
    """Return the height of the block with the order. Raise OrderFailed if none comes, or another took its number."""
    until = time.monotonic() + timeout_s
    while True:
        height = ledger.read_on(raw)
        if height is not None:
            return height
        account = find_account(ledger.state, me)
        if account is not None and account.sequence > sequence:
            raise OrderFailed(f"another order of this account has number {sequence}")
        if time.monotonic() >= until:
            raise OrderFailed(f"not final after {timeout_s:.0f} s, at height {ledger.state.height}; it still waits")
        time.sleep(POLL_S)
