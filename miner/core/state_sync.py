"""How a miner that is far behind takes a whole state from a peer, and what it must trust for that.

A final header proves a state (see `flchain.ledger.snapshot`), and validators that this miner trusts prove the header.
If the validators have changed too much, it first follows the headers at which they changed. Its own votes stay: they
are of heights above its own, or, where the state is beyond them, of heights that are final.
"""

from __future__ import annotations

from flchain.base.errors import TrustExpired, UntrustedValidators
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.ledger.limits import compute_state_bytes_max
from flchain.ledger.snapshot import decode_state, encode_state
from flchain.light.trust import CertifiedHeader, Trust, build_trust, verify_final
from flchain.wire import messages
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct, seal
from flchain.wire.messages import Header, Want
from flchain.wire.packets import PACKET_BYTES_MAX, Packet, PacketType, encode_packet
from miner.core.agreement import enter_state
from miner.core.state import MinerState, Transition
from miner.core.tip import LedgerSummary, Tip, add_change
from miner.core.values import Note, Publish, SaveState

BEHIND_HEIGHTS = 1_000
"""A miner that is further behind than this asks for a state, not for blocks."""


def build_ask(state: MinerState, to: Address, want: Want) -> Publish:
    """Return a question to one peer for what follows this miner's own height, or what it trusts beyond that."""
    height = (get_trust(state).height if want is Want.CHANGES else state.chain.height) + 1
    ask = messages.Ask(height, to, want, state.chain.round.number - 1)
    return state.build_gossip(seal(ask, state.chain.chain, state.config.identity))


def get_trust(state: MinerState) -> Trust:
    """Return what this miner trusts: its own chain, or the newest header that it has followed from there."""
    return state.catch_up.trust or build_trust(state.chain, state.config.checkpoint)


def build_state_packet(state: MinerState) -> bytes | None:
    """Return the packet with the state after this miner's newest block.

    None at the very start, and while the updates of the open round make it longer than any packet: who asks again later
    gets the state between two rounds, which always fits (see `flchain.ledger.limits`).
    """
    if state.ledger.tip is None or sum(len(one.update) for one in state.chain.round.reveals) > PACKET_BYTES_MAX:
        return None
    head = state.ledger.tip.head
    packet = encode_packet(PacketType.STATE, head.header, head.certificate, head.sets, encode_state(state.chain))
    return packet if len(packet) <= PACKET_BYTES_MAX else None


def on_change(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Follow a header at which validators changed. Raises InvalidMessage's subclasses."""
    head = CertifiedHeader(*packet.fields)
    if decode_struct(head.header, Header, HEADER_BYTES_MAX).height <= get_trust(state).height:
        return state, ()
    try:
        _, trust = verify_final(get_trust(state), head, state.clock_ms)
    except TrustExpired as error:
        return _on_expired(state, error)
    ledger = state.ledger
    if trust.validators != trust.signing:
        changes = add_change(ledger.changes, trust.height, Tip(head, None, None, is_change=True))
        ledger = replace(ledger, changes=changes)
    return replace(state, catch_up=replace(state.catch_up, trust=trust), ledger=ledger), ()


def on_state(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """Take a peer's state if it is final and beyond this miner's own. Raises InvalidMessage's subclasses."""
    *parts, data = packet.fields
    head = CertifiedHeader(*parts)
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
    ledger = LedgerSummary(tip, add_change(state.ledger.changes, after.height, tip), (), after.height)
    state = replace(state, catch_up=replace(state.catch_up, is_expired=False))
    return enter_state(state, after, ledger, SaveState(head, data), note)


def _on_expired(state: MinerState, error: TrustExpired) -> Transition:
    """Tell the operator, once: nobody else can say which chain is the true one."""
    if state.catch_up.is_expired:
        return state, ()
    note = Note("THIS MINER WAS OFFLINE FOR TOO LONG; set `checkpoint` to a header's hash", {"cause": str(error)})
    return replace(state, catch_up=replace(state.catch_up, is_expired=True)), (note,)
