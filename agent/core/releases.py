"""What a device makes of its operator's releases: it keeps the newest, and ends its round before it is replaced.

Whether it installs a release is decided in `agent.scheduling.updates`.
"""

from __future__ import annotations

from agent.core import update
from agent.core.state import AgentState, Standing, Transition, UpdatePhase, compute_standing
from agent.core.values import LeavePlanned, Note, SaveRelease
from flchain.base.errors import UnknownSender
from flchain.base.frozen import replace
from flchain.base.types import Address
from flchain.rules.releases import process_release, read_release
from flchain.wire.packets import Packet


def on_release(state: AgentState, owner: Address, packet: Packet) -> Transition:
    """Keep a release that is newer than the known one. A broker repeats the newest at each connection: no news."""
    key = dict(state.config.operators).get(owner)
    if key is None:
        raise UnknownSender(f"{owner.hex()} is no operator of this network")
    raw = packet.fields[0]
    heard = read_release(raw, state.light.chain, key)
    if process_release(state.release, heard) == state.release:
        return state, ()
    fields = {"version": heard.version, "sequence": heard.sequence, "share_bp": heard.share_bp}
    note = Note(f"the operator's release is {heard.state.name.lower()}", fields)
    return replace(state, release=heard), (SaveRelease(raw, heard), note)


def on_leave_planned(state: AgentState, event: LeavePlanned) -> Transition:
    """End the round that was begun and begin no other; or go on, if nothing comes of leaving."""
    return update.advance_update(replace(state, is_leaving=event.is_planned))


def is_between_rounds(state: AgentState) -> bool:
    """Return whether nobody waits for this device: it owes the open round nothing, since it has not begun it."""
    is_taking_part = compute_standing(state) is Standing.TAKING_PART
    return not is_taking_part or state.update.round != state.light.round or state.update.phase is UpdatePhase.FAILED
