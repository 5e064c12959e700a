"""How a miner that is far behind takes a whole state from a peer, and what it must trust for that.

A state proves itself by a final header (see `flchain.ledger.snapshot`), the header by the validators that this miner
trusts. If these have changed too much, it first follows the headers at which they changed. Its own votes are not
touched: they are of heights above its own, and where the state is beyond them, they are of heights that are final.
"""

from __future__ import annotations

from flchain.base.errors import TrustExpired, UntrustedValidators
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.ledger.limits import compute_state_bytes_max
from flchain.ledger.snapshot import decode_state, encode_state
from flchain.light.trust import Head, Trust, build_trust, verify_final
from flchain.wire import messages
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct, seal
from flchain.wire.messages import Header, Want
from flchain.wire.packets import Packet, PacketType, encode_packet
from miner.core.agreement import stand_at
from miner.core.tip import Tip, add_change
from miner.core.values import Effect, MinerState, Note, Publish, SaveState

BEHIND_HEIGHTS = 1_000
"""A miner that is further behind asks for a state, not for blocks."""

Transition = tuple[MinerState, tuple[Effect, ...]]


def build_ask(state: MinerState, to: Address, want: Want) -> Publish:
    """A question to one peer, from this miner's own height on, or from what it trusts beyond it."""
    height = (get_trust(state).height if want is Want.CHANGES else state.chain.height) + 1
    ask = messages.Ask(height, to, want, state.chain.round.number - 1)
    return state.tell_miners(seal(ask, state.chain.chain, state.config.identity))


def get_trust(state: MinerState) -> Trust:
    """What this miner trusts: its own chain, or the newest header that it has followed from there."""
    return state.trust or build_trust(state.chain, state.config.checkpoint)


def build_state_packet(state: MinerState) -> bytes | None:
    """The state after this miner's newest block, for a peer; None at the very start."""
    if state.tip is None:
        return None
    head = state.tip.head
    return encode_packet(PacketType.STATE, head.header, head.certificate, head.sets, encode_state(state.chain))


def on_change(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """A header at which validators changed, from a peer that was asked. Raises InvalidMessage's subclasses."""
    head = Head(*packet.fields)
    if decode_struct(head.header, Header, HEADER_BYTES_MAX).height <= get_trust(state).height:
        return state, ()
    try:
        _, trust = verify_final(get_trust(state), head, state.clock_ms)
    except TrustExpired as error:
        return _on_expired(state, error)
    changes = state.changes
    if trust.validators != trust.signing:
        changes = add_change(changes, trust.height, Tip(head, None, None, is_change=True))
    return replace(state, trust=trust, changes=changes), ()


def on_state(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """A peer's state: taken if it is beyond this miner's own and final. Raises InvalidMessage's subclasses."""
    *parts, data = packet.fields
    head = Head(*parts)
    header = decode_struct(head.header, Header, HEADER_BYTES_MAX)
    if header.height <= state.chain.height:
        return state, ()
    try:
        verify_final(get_trust(state), head, state.clock_ms)
    except UntrustedValidators:
        return state, (build_ask(state, owner, Want.CHANGES),)
    except TrustExpired as error:
        return _on_expired(state, error)
    params = state.chain.params
    after = decode_state(data, head.header, params, compute_state_bytes_max(params, len(state.chain.devices)))
    tip = Tip(head, None, None, is_change=header.validators_hash != header.next_validators_hash)
    note = Note("took a state from a peer", {"height": after.height, "before": state.chain.height})
    state = replace(state, base=after.height, deltas=(), is_expired=False)
    return stand_at(state, after, tip, SaveState(head, data), note)


def _on_expired(state: MinerState, error: TrustExpired) -> Transition:
    """Only an operator can say which chain is the true one: said once, loudly."""
    if state.is_expired:
        return state, ()
    note = Note("THIS MINER WAS AWAY FOR TOO LONG; set `checkpoint` to a header's hash", {"cause": str(error)})
    return replace(state, is_expired=True), (note,)
