"""Long packets in part: what of a device's update is missing here, and what a node lacks of a packet sent from here."""

from __future__ import annotations

from flchain.base.errors import UnknownSender
from flchain.base.frozen import replace
from flchain.base.types import Address, Millis
from flchain.ledger.limits import compute_device_packet_bytes_max, compute_miner_packet_bytes_max
from flchain.ledger.state import ChainState, find_candidate, find_device
from flchain.rules.phases import get_missing
from flchain.wire import messages
from flchain.wire.chunks import Assembly, Partial, list_missing, process_chunk
from flchain.wire.envelope import Letter, seal
from flchain.wire.messages import Phase
from flchain.wire.packets import Packet, PacketType, encode_packet
from miner.core import agreement
from miner.core.values import Effect, MinerState, Publish, SendChunks

ASK_AGAIN_MS = 1_000
"""How often at most one device is asked for what is missing of its update."""
CHUNKS_AGAIN_MS = 20
"""How often at most one node gets chunks that it asks for."""
PATIENCE_EXTENSIONS_MAX = 8
"""So many times the usual patience at most for updates that are still coming in."""

Transition = tuple[MinerState, tuple[Effect, ...]]


def on_chunk(state: MinerState, owner: Address, packet: Packet) -> tuple[MinerState, Packet | None, tuple[Effect, ...]]:
    """A piece of a packet; the packet when it is whole. Raises InvalidMessage's subclasses.

    The last chunk of a device's packet says that the others were sent: if some are missing they are asked for.
    """
    is_device = find_device(state.chain, owner) is not None
    known, bytes_max = state.assemblies.get(owner, Assembly()), _get_packet_bytes_max(state.chain, owner)
    assembly, whole = process_chunk(known, packet, bytes_max, is_kept=is_device)
    state = replace(state, assemblies={**state.assemblies, owner: assembly})
    if not is_device:
        return state, whole, ()
    state = replace(state, arrived_ms={**state.arrived_ms, owner: state.now_ms})
    digest, index, count, _ = packet.fields
    if whole is not None or index < count - 1 or digest not in assembly.partial:
        return state, whole, ()
    state, effects = _ask_for_missing(state, owner, digest, assembly.partial[digest])
    return state, None, effects


def _get_packet_bytes_max(chain: ChainState, owner: Address) -> int:
    """How much this sender can honestly have to say at once. Raises UnknownSender."""
    if find_candidate(chain, owner) is not None:
        return compute_miner_packet_bytes_max(chain.params, len(chain.devices), len(chain.validators))
    if find_device(chain, owner) is not None:
        return compute_device_packet_bytes_max(chain.params)
    raise UnknownSender(f"chunks of {owner.hex()}")


def _ask_for_missing(state: MinerState, owner: Address, digest: bytes, partial: Partial) -> Transition:
    if state.now_ms - state.asked_ms.get(owner, Millis(-ASK_AGAIN_MS)) < ASK_AGAIN_MS:
        return state, ()
    me = state.config.identity
    ask = messages.Resume(state.chain.height + 1, owner, digest, list_missing(partial))
    topic = state.topics.miner_to(me.address, owner)
    packet = encode_packet(PacketType.MESSAGE, seal(ask, state.chain.chain, me))
    return replace(state, asked_ms={**state.asked_ms, owner: state.now_ms}), (Publish(topic, packet),)


def ask_all(state: MinerState) -> Transition:
    """After a break of this miner's own link: the newest update of each device that came in part."""
    effects: tuple[Effect, ...] = ()
    for owner, assembly in state.assemblies.items():
        if assembly.partial and find_device(state.chain, owner) is not None:
            digest, partial = list(assembly.partial.items())[-1]
            state, asked = _ask_for_missing(state, owner, digest, partial)
            effects += asked
    return state, effects


def on_resume(state: MinerState, letter: Letter) -> Transition:
    """A node lacks chunks of a packet that this miner has sent: to it, or to all."""
    message, me = agreement.verify_known(state.chain, letter).message, state.config.identity.address
    if not isinstance(message, messages.Resume) or message.to != me:
        return state, ()
    before_ms = state.resumed_ms.get(letter.sender)
    if before_ms is not None and state.now_ms - before_ms < CHUNKS_AGAIN_MS:
        return state, ()
    state = replace(state, resumed_ms={**state.resumed_ms, letter.sender: state.now_ms})
    return state, (SendChunks(state.topics.miner_to(me, letter.sender), message.digest, message.ranges),)


def is_update_arriving(state: MinerState) -> bool:
    """True while an update that the phase waits for comes in, chunk after chunk: its device has a slow link."""
    if state.chain.round.phase is not Phase.REVEAL or state.patience_extensions >= PATIENCE_EXTENSIONS_MAX:
        return False
    since_ms = state.now_ms - state.chain.params.patience_ms
    coming = (a for a in get_missing(state.chain) if state.assemblies.get(a, Assembly()).partial)
    return any(state.arrived_ms.get(a, since_ms - 1) >= since_ms for a in coming)
