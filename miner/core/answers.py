"""Questions among nodes: who is behind asks for blocks, headers or the model; who has them answers, not too often."""

from __future__ import annotations

from flchain.base.fixedpoint import vector_bytes
from flchain.base.frozen import replace
from flchain.base.types import Address, Height
from flchain.ledger.snapshot import encode_carried
from flchain.ledger.state import compute_validators_hash, find_candidate, find_device
from flchain.light.trust import Head
from flchain.rules.blocks import hash_header
from flchain.wire import messages
from flchain.wire.envelope import HEADER_BYTES_MAX, Letter, decode_struct
from flchain.wire.messages import Header, Want
from flchain.wire.packets import Packet, PacketType, encode_packet
from miner.core import agreement, announce, state_sync
from miner.core.values import Effect, MinerState, Publish, SendBlocks, StartTimer, Timer

BLOCKS_PER_ANSWER_MAX = 64
CHANGES_PER_ANSWER_MAX = 16
ASK_AFTER_MS = 300
"""How long this node may lag behind a peer's head before it asks: mostly its own decision is under way."""
ASK_AGAIN_MS = 1_000
ASK_STATE_AGAIN_MS = 5_000
ANSWER_AGAIN_MS = 250
"""Questions of one node that come sooner after an answer get none: a few short ones would else fill the link, and votes
and proposals would not get out."""
ANSWER_STATE_AGAIN_MS = 4_000
TIP_AGAIN_MS = 1_000
"""How often at most a miner tells its newest header again to those who still vote below it."""

Transition = tuple[MinerState, tuple[Effect, ...]]


def on_ask(state: MinerState, letter: Letter) -> Transition:
    """A node asks this one for what it lacks."""
    message = agreement.verify_known(state.chain, letter).message
    me = state.config.identity.address
    if not isinstance(message, messages.Ask) or message.to != me:
        return state, ()
    is_gone = message.want is Want.BLOCKS and message.height <= state.base
    want = Want.STATE if is_gone else message.want  # what it gets, not what it asked for, is what it costs
    key = (letter.sender, want)
    again_ms = ANSWER_STATE_AGAIN_MS if want is Want.STATE else ANSWER_AGAIN_MS
    if key in state.answered_ms and state.now_ms - state.answered_ms[key] < again_ms:
        return state, ()
    if want in (Want.BLOCKS, Want.STATE) and find_device(state.chain, letter.sender) is not None:
        return state, ()  # much to send, and devices have no use for it
    state = replace(state, answered_ms={**state.answered_ms, key: state.now_ms})
    topic = state.topics.miner_to(me, letter.sender)
    return state, _build_answer(state, want, message, topic)


def _build_answer(state: MinerState, want: Want, ask: messages.Ask, topic: str) -> tuple[Effect, ...]:
    height = Height(ask.height)
    if want is Want.STATE:
        packet = state_sync.build_state_packet(state)
        return (Publish(topic, packet),) if packet is not None else ()
    if want is Want.BLOCKS:
        return (SendBlocks(topic, height, BLOCKS_PER_ANSWER_MAX),)
    if state.tip is None:
        return ()
    head = state.tip.head
    if want is Want.CHANGES:
        missed = [change for at, change in state.changes if at >= height][:CHANGES_PER_ANSWER_MAX]
        return tuple(_publish_head(topic, each) for each in dict.fromkeys((*missed, head)))
    if want is Want.HEAD:
        return (_publish_head(topic, head),)
    return (Publish(topic, _build_model_packet(state, head, want, ask.model_round), is_pulled=True),)


def _build_model_packet(state: MinerState, head: Head, want: Want, model_round: int) -> bytes:
    """The changes since the asker's round, which are kept only while they are shorter than the model; or the model."""
    parts = (head.header, head.certificate, head.sets)
    if want is Want.MODEL and state.deltas and state.deltas[0][0] <= model_round + 1:
        deltas = [delta for number, delta in state.deltas if number > model_round]
        return encode_packet(PacketType.DELTAS, *parts, model_round + 1, deltas)
    carried = encode_carried(state.chain) if want is Want.FULL_MODEL else b""
    return encode_packet(PacketType.MODEL, *parts, vector_bytes(state.chain.model), carried)


def _publish_head(topic: str, head: Head) -> Publish:
    return Publish(topic, encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets))


def on_head(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """A peer's newest header: if it stays beyond this node's, that peer is asked for the blocks between.

    Its certificate is checked, so that nobody can send this node after blocks that do not exist; unless the validators
    have changed since: then a candidate's word is enough for questions, but a state is asked for on proof only.
    """
    header_bytes, certificate, _ = packet.fields
    header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
    if header.height <= state.chain.height:
        return state, ()
    chain, height = state.chain, Height(header.height)
    asks: tuple[Effect, ...] = ()
    if header.validators_hash == compute_validators_hash(chain.validators):
        agreement.verify_certificate_here(state, height, hash_header(header_bytes), certificate)
    elif find_candidate(chain, owner) is None:
        return state, ()
    else:
        if height > state_sync.get_trust(state).height + state_sync.BEHIND_HEIGHTS:
            asks = (state_sync.build_ask(state, owner, Want.CHANGES),)
        height = min(height, Height(chain.height + state_sync.BEHIND_HEIGHTS))
    if state.ahead is not None:
        return replace(state, ahead=max(state.ahead, (height, owner))), asks
    return replace(state, ahead=(height, owner)), (*asks, StartTimer(Timer.ASK, ASK_AFTER_MS))


def on_ask_timer(state: MinerState) -> Transition:
    """Still behind: ask the peer for the blocks that are missing here."""
    if state.ahead is None or state.ahead[0] <= state.chain.height:
        return replace(state, ahead=None), ()
    owner = state.ahead[1]
    proved = max(state.ahead[0], state_sync.get_trust(state).height)
    is_far = proved > state.chain.height + state_sync.BEHIND_HEIGHTS
    ask = state_sync.build_ask(state, owner, Want.STATE if is_far else Want.BLOCKS)
    # Should this peer not answer, the next one is asked: its head may have come long ago, or be the same.
    ahead = (state.ahead[0], _get_next_peer(state, owner))
    again_ms = ASK_STATE_AGAIN_MS if is_far else ASK_AGAIN_MS
    return replace(state, ahead=ahead), (ask, StartTimer(Timer.ASK, again_ms))


def _get_next_peer(state: MinerState, owner: Address) -> Address:
    me = state.config.identity.address
    peers = sorted({v.address for v in state.chain.validators} - {me} | {owner})
    return peers[(peers.index(owner) + 1) % len(peers)]


def on_block(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """A peer's answer: a final block that proves itself."""
    header, certificate, body = packet.fields
    if decode_struct(header, Header, HEADER_BYTES_MAX).height <= state.chain.height:
        return state, ()
    return agreement.on_final_block(state, header, certificate, body)


def tell_tip_again(state: MinerState) -> Transition:
    """A peer votes on what is final here: the header that would have told it may be lost."""
    if state.now_ms - state.tip_told_ms < TIP_AGAIN_MS:
        return state, ()  # a late vote of the last height, mostly
    return replace(state, tip_told_ms=state.now_ms), announce.publish_tip(state)[:1]
