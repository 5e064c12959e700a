"""What must never happen in a network of machines: two final blocks, a lost one, two words of one honest miner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flchain.chain import Block
from flchain.messages import Header, Kind
from flchain.packets import decode_packet
from flchain.state import ChainState, compute_state_root
from flchain.wire import HEADER_BYTES_MAX, decode_struct, open_envelope


@dataclass
class Checker:
    """Watches every stored block and every published word of the miners; `byzantine` ones may contradict themselves."""

    chain: bytes
    violations: list[str] = field(default_factory=list)
    final: dict[int, bytes] = field(default_factory=dict)
    said: dict[tuple[object, ...], object] = field(default_factory=dict)
    byzantine: set[str] = field(default_factory=set)

    def check_block(self, name: str, stored: int, block: Block) -> None:
        """A block that a miner with `stored` blocks stores next: the one that everybody stores at this height."""
        height = block.header.height
        if height != stored + 1:
            self.violations.append(f"{name} stores height {height} after {stored}")
        if self.final.setdefault(height, block.hash) != block.hash:
            self.violations.append(f"two final blocks at height {height}")

    def check_chain(self, name: str, before: ChainState, after: ChainState, blocks: list[tuple[Block, bytes]]) -> None:
        """After a step that ended a height: nothing is lost, the state is the header's, money comes from minting."""
        if after.height < before.height or after.height != len(blocks):
            self.violations.append(f"{name} has lost a final block")
        header = decode_struct(blocks[-1][0].header_bytes, Header, HEADER_BYTES_MAX)
        if compute_state_root(after) != header.state_root:
            self.violations.append(f"{name} stands at another state than its header says")
        if after.minted != sum(device.balance for device in after.devices):
            self.violations.append("minted is not what is owned")

    def check_word(self, name: str, address: bytes, packet: bytes, own: list[tuple[Any, bytes, Any]]) -> None:
        """A vote or proposal of this node is on its disk before it is sent, and it says one thing only."""
        envelope = open_envelope(decode_packet(packet).fields[0], self.chain)
        if envelope.sender != address or envelope.kind not in (Kind.VOTE, Kind.PROPOSAL):
            return
        if not any(raw == envelope.raw for _, raw, _ in own[-64:]):
            self.violations.append(f"{name} sends a {envelope.kind.name} that is not on its disk")
        place = envelope.fields[:3] if envelope.kind is Kind.VOTE else envelope.fields[:2]
        slot = (name, envelope.kind, *place)
        if name not in self.byzantine and self.said.setdefault(slot, envelope.fields) != envelope.fields:
            self.violations.append(f"{name} contradicts itself: {slot}")
