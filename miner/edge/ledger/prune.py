"""Drop a ledger's old blocks: an edge server's disk is small, and peers may have them."""

from __future__ import annotations

from pathlib import Path

from flchain.base.errors import ConfigError
from flchain.base.types import Height, ModelVector
from flchain.ledger.block import decode_block
from flchain.ledger.genesis import Genesis
from flchain.ledger.snapshot import encode_state
from flchain.ledger.state import build_genesis_state
from miner.core.tip import Standing, extend
from miner.edge.ledger.base import restore_base
from miner.edge.ledger.ledger import REPLAY_BLOCKS, Ledger, replay_block


async def prune_ledger(path: Path, genesis: Genesis, initial_model: ModelVector, keep: int) -> Height | None:
    """Check the blocks and drop all but the newest `keep`; return the height that the ledger then begins at.

    None if the ledger has no more blocks than that. Votes at the next height stay.
    Raises ConfigError (no ledger), LedgerCorrupt, StoreFull.
    """
    if keep < 0:
        raise ConfigError((f"--keep {keep}: at least 0",))
    if not path.is_file():
        raise ConfigError((f"ledger {path}: no such file",))
    ledger = await Ledger.open(path, genesis, initial_model)
    try:
        standing = restore_base(build_genesis_state(genesis, initial_model), await ledger.get_base())
        tip = await ledger.get_tip()
        last = tip.height - keep if tip is not None else 0
        if last <= standing.chain.height:
            return None
        standing = await _replay_to(ledger, standing, Height(last))
        assert standing.ledger.tip is not None, "a block was replayed"
        await ledger.save_base(standing.ledger.tip.head, encode_state(standing.chain))
        await ledger.shrink()
        return standing.chain.height
    finally:
        await ledger.close()


async def _replay_to(ledger: Ledger, standing: Standing, last: Height) -> Standing:
    while standing.chain.height < last:
        first = Height(standing.chain.height + 1)
        for row in await ledger.get_blocks(first, min(REPLAY_BLOCKS, last - first + 1)):
            after = replay_block(standing.chain, row)
            standing = extend(standing, decode_block(row.header, row.body)[0], row.certificate, after)
    return standing
