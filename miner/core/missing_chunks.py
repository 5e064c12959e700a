"""Chunks of long packets: those missing here of a device's update, and those that a node lacks of an answer."""

from __future__ import annotations

from flchain.base.errors import UnknownSender
from flchain.base.frozen import replace
from flchain.base.types import Address, Millis
from flchain.ledger.limits import compute_device_packet_bytes_max, compute_miner_packet_bytes_max
from flchain.ledger.state import ChainState, find_candidate, find_device
from flchain.rules.phases import get_missing
from flchain.wire import messages
from flchain.wire.chunks import Assembly, Partial, get_missing_ranges, process_chunk
from flchain.wire.envelope import Letter, seal
from flchain.wire.messages import Phase
from flchain.wire.packets import Packet, PacketType, encode_packet
from miner.core import agreement
from miner.core.state import PATIENCE_EXTENSIONS_MAX, MinerState, Transition, Uploads
from miner.core.values import Effect, Publish, SendChunks

ASK_AGAIN_MS = 1_000
"""The shortest time between two questions to one device for what is missing of its update."""
CHUNKS_AGAIN_MS = 20
"""The shortest time between two answers with chunks to one node."""


def on_chunk(state: MinerState, owner: Address, packet: Packet) -> tuple[MinerState, Packet | None, tuple[Effect, ...]]:
    """Take a chunk; return the packet once it is whole, otherwise None. Raises InvalidMessage's subclasses.

    A device sends the last chunk last: if others are still missing then, they are asked for.
    """
    is_device = find_device(state.chain, owner) is not None
    uploads = state.uploads
    known, bytes_max = uploads.assemblies.get(owner, Assembly()), _get_packet_bytes_max(state.chain, owner)
    assembly, whole = process_chunk(known, packet, bytes_max, is_kept=is_device)
    assemblies = uploads.assemblies.with_item(owner, assembly)
    if not is_device:
        return replace(state, uploads=replace(uploads, assemblies=assemblies)), whole, ()
    arrived_ms = uploads.arrived_ms.with_item(owner, state.now_ms)
    state = replace(state, uploads=Uploads(assemblies, arrived_ms, uploads.asked_ms))
    digest, index, count, _ = packet.fields
    if whole is not None or index < count - 1 or digest not in assembly.partial:
        return state, whole, ()
    state, effects = _ask_for_missing(state, owner, digest, assembly.partial[digest])
    return state, None, effects


def _get_packet_bytes_max(chain: ChainState, owner: Address) -> int:
    """Return the longest packet that an honest node of this kind sends. Raises UnknownSender."""
    if find_candidate(chain, owner) is not None:
        return compute_miner_packet_bytes_max(chain.params, len(chain.devices), len(chain.validators))
    if find_device(chain, owner) is not None:
        return compute_device_packet_bytes_max(chain.params)
    raise UnknownSender(f"chunks of {owner.hex()}")


def _ask_for_missing(state: MinerState, owner: Address, digest: bytes, partial: Partial) -> Transition:
    asked_ms = state.uploads.asked_ms
    if state.now_ms - asked_ms.get(owner, Millis(-ASK_AGAIN_MS)) < ASK_AGAIN_MS:
        return state, ()
    me = state.config.identity
    ask = messages.Resume(state.chain.height + 1, owner, digest, get_missing_ranges(partial))
    topic = state.topics.miner_to(me.address, owner)
    packet = encode_packet(PacketType.MESSAGE, seal(ask, state.chain.chain, me))
    uploads = replace(state.uploads, asked_ms=asked_ms.with_item(owner, state.now_ms))
    return replace(state, uploads=uploads), (Publish(topic, packet),)


def ask_every_device(state: MinerState) -> Transition:
    """Ask each device for what is missing of its newest update: this miner's own link was down."""
    effects: tuple[Effect, ...] = ()
    for owner, assembly in state.uploads.assemblies.items():
        if assembly.partial and find_device(state.chain, owner) is not None:
            digest, partial = list(assembly.partial.items())[-1]
            state, asked = _ask_for_missing(state, owner, digest, partial)
            effects += asked
    return state, effects


def on_resume(state: MinerState, letter: Letter) -> Transition:
    """Send a node the chunks that it lacks of a packet from this miner. Raises InvalidMessage's subclasses."""
    message, me = agreement.verify_known(state.chain, letter).message, state.config.identity.address
    if not isinstance(message, messages.Resume) or message.to != me:
        return state, ()
    before_ms = state.answers.resumed_ms.get(letter.sender)
    if before_ms is not None and state.now_ms - before_ms < CHUNKS_AGAIN_MS:
        return state, ()
    resumed_ms = {**state.answers.resumed_ms, letter.sender: state.now_ms}
    state = replace(state, answers=replace(state.answers, resumed_ms=resumed_ms))
    return state, (SendChunks(state.topics.miner_to(me, letter.sender), message.digest, message.ranges),)


def is_update_arriving(state: MinerState) -> bool:
    """True while chunks of an update that the phase waits for keep arriving: its device has a slow link."""
    if state.chain.round.phase is not Phase.REVEAL or state.waiting.extensions >= PATIENCE_EXTENSIONS_MAX:
        return False
    since_ms = state.now_ms - state.chain.params.patience_ms
    uploads = state.uploads
    arriving = (a for a in get_missing(state.chain) if uploads.assemblies.get(a, Assembly()).partial)
    return any(uploads.arrived_ms.get(a, since_ms - 1) >= since_ms for a in arriving)
