"""Long packets from miners, which come in chunks: draw them at this link's pace, and what is missing after a break.

Of a long answer a miner sends the first chunks. This device asks for more when half of what it asked for is here, for
about a second's worth at a time, so that headers and receipts wait behind no more than that.
"""

from __future__ import annotations

from agent.core.values import AgentState, Drawing, Effect, Publish, SendChunks
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.ledger.limits import compute_packet_bytes_max
from flchain.wire.chunks import (
    DEVICE_CHUNK_BYTES,
    FIRST_CHUNKS,
    Assembly,
    Partial,
    Ranges,
    get_missing_ranges,
    process_chunk,
)
from flchain.wire.envelope import seal
from flchain.wire.messages import Resume
from flchain.wire.packets import Packet, PacketType, encode_packet

WINDOW_MS = 1_000
"""What is asked for at once takes the link about so long."""
WINDOW_CHUNKS_MIN, WINDOW_CHUNKS_MAX = FIRST_CHUNKS, 64
STALLED_MS = 5_000
"""After so long without a new chunk what is missing is asked for again."""
STALLS_MAX = 3
"""Then the packet is given up: who sent it has forgotten it, or is gone."""

Transition = tuple[AgentState, tuple[Effect, ...]]


def on_chunk(
    state: AgentState, owner: Address, packet: Packet, *, is_answer: bool
) -> tuple[AgentState, Packet | None, tuple[Effect, ...]]:
    """A piece of a packet; the packet when it is whole. Raises InvalidMessage's subclasses."""
    light, digest = state.light, packet.fields[0]
    bytes_max = compute_packet_bytes_max(light.params, len(light.device_keys), len(light.validators))
    before = state.assemblies.get(owner, Assembly())
    assembly, whole = process_chunk(before, packet, bytes_max)
    state = _forget_gone(replace(state, assemblies={**state.assemblies, owner: assembly}))
    partial = assembly.partial.get(digest)
    if partial is None or partial.bytes == before.partial.get(digest, Partial(0)).bytes:
        return state, whole, ()  # whole, or nothing new
    asked = min(FIRST_CHUNKS, partial.count) if is_answer else partial.count
    drawing = state.drawings.get(digest) or Drawing(owner, is_answer, asked, state.now_ms, partial.bytes)
    state, effects = _draw_more(state, digest, replace(drawing, heard_ms=state.now_ms, stalls=0))
    return state, None, effects


def _draw_more(state: AgentState, digest: bytes, drawing: Drawing) -> Transition:
    partial = _get_partial(state, digest, drawing)
    window, asked = _compute_window(state, drawing, partial), drawing.asked
    left = sum(index not in partial.pieces for index in range(asked))
    if asked == partial.count or 2 * left > window:
        return replace(state, drawings={**state.drawings, digest: drawing}), ()
    return _ask(state, digest, drawing, ((asked, min(window, partial.count - asked)),))


def _compute_window(state: AgentState, drawing: Drawing, partial: Partial) -> int:
    """So many chunks as came in WINDOW_MS until now."""
    took_ms = max(1, state.now_ms - drawing.begun_ms)
    came = (partial.bytes - drawing.begun_bytes) * WINDOW_MS // took_ms
    return max(WINDOW_CHUNKS_MIN, min(WINDOW_CHUNKS_MAX, came // DEVICE_CHUNK_BYTES))


def _ask(state: AgentState, digest: bytes, drawing: Drawing, ranges: Ranges) -> Transition:
    """Ask for these chunks, which are not here."""
    me = state.config.identity
    resume = Resume(state.light.height + 1, drawing.owner, digest, ranges)
    packet = encode_packet(PacketType.MESSAGE, seal(resume, state.light.chain, me))
    drawing = replace(drawing, asked=max(drawing.asked, sum(ranges[-1])))
    drawings = {**state.drawings, digest: drawing}
    return replace(state, drawings=drawings), (Publish(state.topics.device_up(me.address), packet),)


def ask_again(state: AgentState) -> Transition:
    """What was under way is lost with the link: ask for what is missing of every packet that came in part."""
    effects: tuple[Effect, ...] = ()
    for digest, drawing in state.drawings.items():
        partial = _get_partial(state, digest, drawing)
        ranges = get_missing_ranges(partial, count_max=_compute_window(state, drawing, partial))
        state, asked = _ask(state, digest, replace(drawing, heard_ms=state.now_ms), ranges)
        effects += asked
    return state, effects


def pursue(state: AgentState) -> Transition:
    """Ask again for what has stalled; what has stalled too often is given up."""
    effects: tuple[Effect, ...] = ()
    for digest, drawing in state.drawings.items():
        if state.now_ms - drawing.heard_ms < STALLED_MS:
            continue
        if drawing.stalls == STALLS_MAX:
            state = _give_up(state, digest, drawing)
            continue
        partial = _get_partial(state, digest, drawing)
        ranges = get_missing_ranges(partial, count_max=WINDOW_CHUNKS_MIN)
        later = replace(drawing, heard_ms=state.now_ms, stalls=drawing.stalls + 1)
        state, asked = _ask(state, digest, later, ranges)
        effects += asked
    return state, effects


def give_up_answers(state: AgentState) -> AgentState:
    """The model is here by another way."""
    for digest, drawing in state.drawings.items():
        if drawing.is_answer:
            state = _give_up(state, digest, drawing)
    return state


def on_resume(state: AgentState, resume: Resume) -> Transition:
    """A miner lacks chunks of what this device has sent."""
    if resume.to != state.config.identity.address:
        return state, ()
    return state, (SendChunks(resume.digest, resume.ranges),)


def _give_up(state: AgentState, digest: bytes, drawing: Drawing) -> AgentState:
    assembly = state.assemblies[drawing.owner]
    kept = {key: partial for key, partial in assembly.partial.items() if key != digest}
    assemblies = {**state.assemblies, drawing.owner: replace(assembly, partial=kept)}
    drawings = {key: other for key, other in state.drawings.items() if key != digest}
    return replace(state, assemblies=assemblies, drawings=drawings)


def _forget_gone(state: AgentState) -> AgentState:
    """Of a packet that is whole, or had to make room for another, nothing more is drawn."""
    kept = {
        digest: drawing
        for digest, drawing in state.drawings.items()
        if digest in state.assemblies[drawing.owner].partial
    }
    return state if len(kept) == len(state.drawings) else replace(state, drawings=kept)


def _get_partial(state: AgentState, digest: bytes, drawing: Drawing) -> Partial:
    return state.assemblies[drawing.owner].partial[digest]
