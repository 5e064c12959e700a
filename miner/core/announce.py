"""What a miner publishes about its newest final block."""

from __future__ import annotations

from flchain.ledger.certificate import trim_certificate
from flchain.light.trust import decode_sets
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header, Phase
from flchain.wire.packets import PacketType, encode_packet
from miner.core.state import MinerState
from miner.core.values import Effect, Publish


def publish_tip(state: MinerState, is_again: bool = False) -> tuple[Effect, ...]:
    """Return the effects that publish the newest header and certificate, retained, and its body if devices need it.

    `is_again` after a lost link: light devices may have missed any header, so they get this one even if it would not
    be news to them.
    """
    me, tip = state.config.identity.address, state.ledger.tip
    if tip is None:
        return ()
    sets = tip.head.sets if tip.is_change else b""
    head = encode_packet(PacketType.HEAD, tip.head.header, tip.head.certificate, sets)
    effects: tuple[Effect, ...] = (Publish(state.topics.miner_head(me), head, retain=True),)
    header = decode_struct(tip.head.header, Header, HEADER_BYTES_MAX)
    if is_again or _is_news_for_light_devices(header):
        signing, _ = decode_sets(header, tip.head.sets)
        certificate = trim_certificate(signing, tip.head.certificate)
        head = encode_packet(PacketType.HEAD, tip.head.header, certificate, sets)
        effects += (Publish(state.topics.miner_light(me), head, retain=True),)
    if tip.body is not None:
        body = encode_packet(PacketType.BODY, state.chain.height, tip.body)
        effects += (Publish(state.topics.miner_body(me), body),)
    if tip.light_body is not None:
        light_body = encode_packet(PacketType.LIGHT_BODY, state.chain.height, tip.light_body)
        effects += (Publish(state.topics.miner_light(me), light_body),)
    return effects


def _is_news_for_light_devices(header: Header) -> bool:
    """True if light devices need the header: it opens or ends what they take part in, or changes the validators."""
    is_opening = header.next_phase is not header.phase and header.next_phase is not Phase.SETTLE
    return is_opening or header.validators_hash != header.next_validators_hash
