"""Questions among nodes: one that is behind asks for blocks, headers or the model; the others answer within limits."""

from __future__ import annotations

from flchain.base.fixedpoint import encode_vector
from flchain.base.frozen import replace
from flchain.base.types import Address, Height
from flchain.ledger.block import hash_header
from flchain.ledger.snapshot import build_carried_proof
from flchain.ledger.state import compute_validators_hash, find_candidate, find_device
from flchain.light.trust import CertifiedHeader
from flchain.wire import messages
from flchain.wire.envelope import HEADER_BYTES_MAX, Letter, decode_struct
from flchain.wire.messages import Header, Want
from flchain.wire.packets import Packet, PacketType, encode_packet
from miner.core import agreement, announce, state_sync
from miner.core.state import Ahead, MinerState, Transition
from miner.core.values import Effect, Publish, SendBlocks, StartTimer, Timer

BLOCKS_PER_ANSWER_MAX = 64
CHANGES_PER_ANSWER_MAX = 16
ASK_AFTER_MS = 300
"""How long this node waits before it asks for blocks that a peer has: usually its own decision is about to come."""
ASK_AGAIN_MS = 1_000
ASK_STATE_AGAIN_MS = 5_000
ANSWER_AGAIN_MS = 250
"""A node that asks again sooner than this gets no answer. Otherwise a few short questions would fill the link, and
votes and proposals would not get out."""
ANSWER_STATE_AGAIN_MS = 4_000
TIP_AGAIN_MS = 1_000
"""The shortest time between two repeats of the newest header for peers that still vote below it."""


def on_ask(state: MinerState, letter: Letter) -> Transition:
    """Answer a node that asks for what it lacks. Raises InvalidMessage's subclasses."""
    message = agreement.verify_known(state.chain, letter).message
    me = state.config.identity.address
    if not isinstance(message, messages.Ask) or message.to != me:
        return state, ()
    is_gone = message.want is Want.BLOCKS and message.height <= state.ledger.base
    want = Want.STATE if is_gone else message.want  # limits count what is sent, not what was asked for
    key = (letter.sender, want)
    again_ms = ANSWER_STATE_AGAIN_MS if want is Want.STATE else ANSWER_AGAIN_MS
    before_ms = state.answers.answered_ms.get(key)
    if before_ms is not None and state.now_ms - before_ms < again_ms:
        return state, ()
    if want in (Want.BLOCKS, Want.STATE) and find_device(state.chain, letter.sender) is not None:
        return state, ()  # these are long, and devices have no use for them
    answered_ms = {**state.answers.answered_ms, key: state.now_ms}
    state = replace(state, answers=replace(state.answers, answered_ms=answered_ms))
    topic = state.topics.miner_to(me, letter.sender)
    return state, _build_answer(state, want, message, topic)


def _build_answer(state: MinerState, want: Want, ask: messages.Ask, topic: str) -> tuple[Effect, ...]:
    height = Height(ask.height)
    if want is Want.STATE:
        packet = state_sync.build_state_packet(state)
        return (Publish(topic, packet),) if packet is not None else ()
    if want is Want.BLOCKS:
        return (SendBlocks(topic, height, BLOCKS_PER_ANSWER_MAX),)
    if state.ledger.tip is None:
        return ()
    head = state.ledger.tip.head
    if want is Want.CHANGES:
        missed = [change for at, change in state.ledger.changes if at >= height][:CHANGES_PER_ANSWER_MAX]
        return tuple(_publish_head(topic, each) for each in dict.fromkeys((*missed, head)))
    if want is Want.HEAD:
        return (_publish_head(topic, head),)
    return (Publish(topic, _build_model_packet(state, head, want, ask.model_round), is_pulled=True),)


def _build_model_packet(state: MinerState, head: CertifiedHeader, want: Want, model_round: int) -> bytes:
    """Return the payloads since the asker's round if they are kept, as they are while shorter than the model; or it."""
    parts = (head.header, head.certificate, head.sets)
    kept = state.ledger.payloads
    if want is Want.MODEL and kept and kept[0][0] <= model_round + 1:
        payloads = [payload for number, payload in kept if number > model_round]
        return encode_packet(PacketType.PAYLOADS, *parts, model_round + 1, payloads)
    carried = build_carried_proof(state.chain) if want is Want.FULL_MODEL else b""
    return encode_packet(PacketType.MODEL, *parts, encode_vector(state.chain.model), carried)


def _publish_head(topic: str, head: CertifiedHeader) -> Publish:
    return Publish(topic, encode_packet(PacketType.HEAD, head.header, head.certificate, head.sets))


def on_head(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Take a peer's newest header. If this node stays behind it, it will ask that peer for the blocks between.

    The certificate is checked, so that nobody can make this node ask for blocks that do not exist. If the validators
    have changed since, a candidate's header is reason enough to ask for blocks, but a state needs proof.
    Raises InvalidMessage's subclasses.
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
    before, ahead = state.catch_up.ahead, Ahead(height, owner)
    if before is not None:
        return _set_ahead(state, max(before, ahead)), asks
    return _set_ahead(state, ahead), (*asks, StartTimer(Timer.ASK, ASK_AFTER_MS))


def _set_ahead(state: MinerState, ahead: Ahead | None) -> MinerState:
    return replace(state, catch_up=replace(state.catch_up, ahead=ahead))


def on_ask_timer(state: MinerState) -> Transition:
    """Ask a peer for the blocks that are missing here, if this node is still behind."""
    ahead = state.catch_up.ahead
    if ahead is None or ahead.height <= state.chain.height:
        return _set_ahead(state, None), ()
    proved = max(ahead.height, state_sync.get_trust(state).height)
    is_far = proved > state.chain.height + state_sync.BEHIND_HEIGHTS
    ask = state_sync.build_ask(state, ahead.peer, Want.STATE if is_far else Want.BLOCKS)
    # If this peer does not answer, ask the next one: its header may have arrived long ago, or be the same.
    ahead = Ahead(ahead.height, _get_next_peer(state, ahead.peer))
    again_ms = ASK_STATE_AGAIN_MS if is_far else ASK_AGAIN_MS
    return _set_ahead(state, ahead), (ask, StartTimer(Timer.ASK, again_ms))


def _get_next_peer(state: MinerState, owner: Address) -> Address:
    me = state.config.identity.address
    peers = sorted({v.address for v in state.chain.validators} - {me} | {owner})
    return peers[(peers.index(owner) + 1) % len(peers)]


def on_block(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Take a final block that a peer answers with; its certificate proves it. Raises InvalidMessage's subclasses."""
    header, certificate, body = packet.fields
    if decode_struct(header, Header, HEADER_BYTES_MAX).height <= state.chain.height:
        return state, ()
    return agreement.on_final_block(state, header, certificate, body)


def repeat_tip(state: MinerState) -> Transition:
    """Publish the newest header again: a peer still votes on a final height, so it may have lost the header."""
    if state.now_ms - state.answers.tip_ms < TIP_AGAIN_MS:
        return state, ()  # usually a late vote of the last height
    return replace(state, answers=replace(state.answers, tip_ms=state.now_ms)), announce.publish_tip(state)[:1]
