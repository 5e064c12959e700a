"""Long packets from miners, which come in chunks: pull them at this link's pace, and after a break what is missing.

A miner sends the first chunks of a long answer. This device asks for more when half of what it asked for has arrived,
for about a second's worth at a time, so that headers and receipts wait behind no more than that.
"""

from __future__ import annotations

from agent.core.state import AgentState, Download, Downloads, Transition
from agent.core.values import Effect, Publish, SendChunks
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
"""The link takes about this long for what is asked for at once."""
WINDOW_CHUNKS_MIN, WINDOW_CHUNKS_MAX = FIRST_CHUNKS, 64
STALLED_MS = 5_000
"""After this long without a new chunk the missing ones are asked for again."""
STALLS_MAX = 3
"""Then the packet is given up: its sender has forgotten it, or is gone."""


def on_chunk(
    state: AgentState, owner: Address, packet: Packet, *, is_answer: bool
) -> tuple[AgentState, Packet | None, tuple[Effect, ...]]:
    """Take a piece of a packet; also return the packet if it is whole now. Raises InvalidMessage's subclasses."""
    light, digest = state.light, packet.fields[0]
    bytes_max = compute_packet_bytes_max(light.params, len(light.device_keys), len(light.validators))
    before = state.downloads.assemblies.get(owner, Assembly())
    assembly, whole = process_chunk(before, packet, bytes_max)
    assemblies = {**state.downloads.assemblies, owner: assembly}
    state = replace(state, downloads=_forget_gone(replace(state.downloads, assemblies=assemblies)))
    partial = assembly.partial.get(digest)
    if partial is None or partial.bytes == before.partial.get(digest, Partial(0)).bytes:
        return state, whole, ()  # whole, or nothing new
    now_ms = state.clock.now_ms
    asked = min(FIRST_CHUNKS, partial.count) if is_answer else partial.count
    download = state.downloads.running.get(digest) or Download(owner, is_answer, asked, now_ms, partial.bytes)
    state, effects = _pull_more(state, digest, replace(download, heard_ms=now_ms, stalls=0))
    return state, None, effects


def _pull_more(state: AgentState, digest: bytes, download: Download) -> Transition:
    partial = _get_partial(state, digest, download)
    window, asked = _compute_window(state, download, partial), download.asked
    left = sum(index not in partial.pieces for index in range(asked))
    if asked == partial.count or 2 * left > window:
        return _keep(state, digest, download), ()
    return _ask(state, digest, download, ((asked, min(window, partial.count - asked)),))


def _compute_window(state: AgentState, download: Download, partial: Partial) -> int:
    """Return how many chunks arrived in WINDOW_MS until now."""
    took_ms = max(1, state.clock.now_ms - download.begun_ms)
    arrived = (partial.bytes - download.begun_bytes) * WINDOW_MS // took_ms
    return max(WINDOW_CHUNKS_MIN, min(WINDOW_CHUNKS_MAX, arrived // DEVICE_CHUNK_BYTES))


def _ask(state: AgentState, digest: bytes, download: Download, ranges: Ranges) -> Transition:
    """Ask for these chunks, which are missing."""
    me = state.config.identity
    resume = Resume(state.light.height + 1, download.owner, digest, ranges)
    packet = encode_packet(PacketType.MESSAGE, seal(resume, state.light.chain, me))
    state = _keep(state, digest, replace(download, asked=max(download.asked, sum(ranges[-1]))))
    return state, (Publish(state.topics.device_up(me.address), packet),)


def ask_again(state: AgentState) -> Transition:
    """Ask for what is missing of every packet that is here in part: what was under way was lost with the link."""
    effects: tuple[Effect, ...] = ()
    for digest, download in state.downloads.running.items():
        partial = _get_partial(state, digest, download)
        ranges = get_missing_ranges(partial, count_max=_compute_window(state, download, partial))
        state, asked = _ask(state, digest, replace(download, heard_ms=state.clock.now_ms), ranges)
        effects += asked
    return state, effects


def advance_downloads(state: AgentState) -> Transition:
    """Ask again for what has stalled; give up what has stalled too often."""
    effects: tuple[Effect, ...] = ()
    now_ms = state.clock.now_ms
    for digest, download in state.downloads.running.items():
        if now_ms - download.heard_ms < STALLED_MS:
            continue
        if download.stalls == STALLS_MAX:
            state = replace(state, downloads=_give_up(state.downloads, digest, download))
            continue
        partial = _get_partial(state, digest, download)
        ranges = get_missing_ranges(partial, count_max=WINDOW_CHUNKS_MIN)
        later = replace(download, heard_ms=now_ms, stalls=download.stalls + 1)
        state, asked = _ask(state, digest, later, ranges)
        effects += asked
    return state, effects


def give_up_answers(state: AgentState) -> AgentState:
    """Forget answers that are under way: the model arrived another way."""
    downloads = state.downloads
    for digest, download in state.downloads.running.items():
        if download.is_answer:
            downloads = _give_up(downloads, digest, download)
    return replace(state, downloads=downloads) if downloads is not state.downloads else state


def on_resume(state: AgentState, resume: Resume) -> Transition:
    """A miner lacks chunks of what this device has sent."""
    me = state.config.identity.address
    if resume.to != me:
        return state, ()
    return state, (SendChunks(state.topics.device_up(me), resume.digest, resume.ranges),)


def _keep(state: AgentState, digest: bytes, download: Download) -> AgentState:
    running = {**state.downloads.running, digest: download}
    return replace(state, downloads=replace(state.downloads, running=running))


def _give_up(downloads: Downloads, digest: bytes, download: Download) -> Downloads:
    assembly = downloads.assemblies[download.owner]
    kept = {key: partial for key, partial in assembly.partial.items() if key != digest}
    assemblies = {**downloads.assemblies, download.owner: replace(assembly, partial=kept)}
    running = {key: other for key, other in downloads.running.items() if key != digest}
    return replace(downloads, assemblies=assemblies, running=running)


def _forget_gone(downloads: Downloads) -> Downloads:
    """Stop pulling a packet that is whole, or that had to make room for another."""
    kept = {
        digest: download
        for digest, download in downloads.running.items()
        if digest in downloads.assemblies[download.owner].partial
    }
    return downloads if len(kept) == len(downloads.running) else replace(downloads, running=kept)


def _get_partial(state: AgentState, digest: bytes, download: Download) -> Partial:
    return state.downloads.assemblies[download.owner].partial[digest]
