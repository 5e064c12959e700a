"""What a running miner wants of its ledger, and a fake in memory."""

from __future__ import annotations

from typing import Protocol

from flchain.base.types import Height
from flchain.ledger.block import Block
from flchain.light.trust import CertifiedHeader
from miner.edge.ledger.ledger import StoredBlock


class Journal(Protocol):
    """Where blocks and a miner's own words go before anybody hears of them. Raises StoreFull and LedgerCorrupt."""

    async def save_own(self, height: Height, raw: bytes, block: Block | None) -> None:
        """Save what this miner is about to say at this height, and the block that it proposes."""
        ...

    async def get_own(self, height: Height) -> tuple[tuple[bytes, ...], tuple[Block, ...]]:
        """Return what this miner has said at this height, and the blocks that it has proposed."""
        ...

    async def append(self, block: Block, certificate: bytes) -> None:
        """Save the next final block."""
        ...

    async def save_base(self, head: CertifiedHeader, data: bytes) -> None:
        """Save the state after a final block, from which the chain is continued instead of from genesis."""
        ...

    async def get_blocks(self, height: Height, count: int) -> tuple[StoredBlock, ...]:
        """Return at most `count` blocks from `height` on."""
        ...


class MemoryJournal:
    """A journal that a restart forgets."""

    def __init__(self) -> None:
        self.blocks: list[StoredBlock] = []
        self.own: list[tuple[Height, bytes, Block | None]] = []

    async def save_own(self, height: Height, raw: bytes, block: Block | None) -> None:
        """Append to `own`."""
        self.own.append((height, raw, block))

    async def get_own(self, height: Height) -> tuple[tuple[bytes, ...], tuple[Block, ...]]:
        """Return what `own` has of this height."""
        rows = [(raw, block) for at, raw, block in self.own if at == height]
        return tuple(raw for raw, _ in rows), tuple(block for _, block in rows if block is not None)

    async def append(self, block: Block, certificate: bytes) -> None:
        """Append to `blocks`."""
        row = StoredBlock(Height(block.header.height), block.hash, block.header_bytes, certificate, block.body_bytes)
        self.blocks.append(row)

    async def save_base(self, head: CertifiedHeader, data: bytes) -> None:
        """Forget the blocks before the base, as the ledger does."""
        self.blocks.clear()

    async def get_blocks(self, height: Height, count: int) -> tuple[StoredBlock, ...]:
        """Return blocks by their own heights."""
        return tuple(row for row in self.blocks if row.height >= height)[:count]
