"""What a running miner needs of its ledger, and a fake in memory."""

from __future__ import annotations

from typing import Protocol

from flchain.base.types import Height
from flchain.ledger.block import Block
from miner.core.values import SaveBlock, SaveState, SaveVote
from miner.edge.ledger.ledger import Save, StoredBlock


class Journal(Protocol):
    """Stores blocks and a miner's own votes and proposals before they are sent. Raises StoreFull and LedgerCorrupt."""

    async def save(self, *changes: Save) -> None:
        """Save, all or nothing, what this miner is about to say, final blocks, and states that stand in for them."""
        ...

    async def get_own(self, height: Height) -> tuple[tuple[bytes, ...], tuple[Block, ...]]:
        """Return this miner's votes and proposals at this height, and the blocks that they are for."""
        ...

    async def get_blocks(self, height: Height, count: int) -> tuple[StoredBlock, ...]:
        """Return at most `count` blocks from `height` on."""
        ...


class MemoryJournal:
    """A journal that a restart forgets."""

    def __init__(self) -> None:
        self.blocks: list[StoredBlock] = []
        self.own: list[tuple[Height, bytes, Block | None]] = []

    async def save(self, *changes: Save) -> None:
        """Append to `own` and `blocks`; forget the blocks before a base, as the ledger does."""
        for change in changes:
            match change:
                case SaveVote(height, raw, block):
                    self.own.append((height, raw, block))
                case SaveBlock(block, certificate):
                    parts = block.hash, block.header_bytes, certificate, block.body_bytes
                    self.blocks.append(StoredBlock(Height(block.header.height), *parts))
                case SaveState():
                    self.blocks.clear()

    async def get_own(self, height: Height) -> tuple[tuple[bytes, ...], tuple[Block, ...]]:
        """Return what `own` has of this height."""
        rows = [(raw, block) for at, raw, block in self.own if at == height]
        return tuple(raw for raw, _ in rows), tuple(block for _, block in rows if block is not None)

    async def get_blocks(self, height: Height, count: int) -> tuple[StoredBlock, ...]:
        """Return blocks by their own heights."""
        return tuple(row for row in self.blocks if row.height >= height)[:count]
