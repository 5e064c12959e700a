"""What a device makes of its operator's releases: it keeps the newest. Whether it installs it: see `updating`."""

from __future__ import annotations

from agent.core.state import AgentState, Transition
from agent.core.values import Note, SaveRelease
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
