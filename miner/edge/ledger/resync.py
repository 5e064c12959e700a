"""Repair a damaged ledger: keep the blocks without a fault and all own votes; the peers have the rest.

A miner that has lost blocks is back at a height where it has voted before, and those votes were dropped when the height
became final. So the repaired ledger also says up to which height the miner is silent: up to there it only takes blocks
from its peers. Then it takes part again, with its own votes at the next height (see `miner.core.catch_up`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError, FlchainError, InvalidMessage, LedgerCorrupt
from flchain.base.types import Height, ModelVector
from flchain.ledger.block import decode_block
from flchain.ledger.genesis import Genesis, encode_genesis
from flchain.ledger.state import ChainState, build_genesis_state, find_validator
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain_edge.storage.database_files import SIDE_FILES, move_aside, refuse_if_open, remove_database, sync_folder
from miner.edge.ledger.base import restore_base
from miner.edge.ledger.file import LedgerFile, OwnRecord, open_ledger_file
from miner.edge.ledger.ledger import Ledger, StoredBlock, get_resynced_path, replay_block

COPY_BLOCKS = 64


class VotesLost(FlchainError):
    """The miner's own votes cannot be read: it could contradict them, and contradictions let chains fork."""


@dataclass(frozen=True)
class Resynced:
    """What a resync did."""

    aside: Path | None
    """Where the damaged ledger is now; None if an interrupted resync had moved it already."""
    kept: Height
    silent_until: Height
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Findings:
    """What can still be read. `own` is None if any own vote is unreadable or it is unknown how far the miner was."""

    state: ChainState
    faults: tuple[str, ...]
    own: OwnRecord | None
    own_fault: str
    height: Height
    """The newest block that was stored, as far as is known."""

    @property
    def silent_until(self) -> Height:
        """Return the last height at which the miner may have voted without a record of it."""
        own = self.own
        heights = [] if own is None else [own.silence, *(height - 1 for height, _ in own.messages)]
        return Height(max(self.height, self.state.height, *heights))


def resync_ledger(
    path: Path, genesis: Genesis, initial_model: ModelVector, identity: Identity, accept_lost_votes: bool = False
) -> Resynced | None:
    """Repair the ledger; return None if it has no fault. It may be interrupted at any point and begun again.

    Raises ConfigError (no ledger, in use, another chain, no peer to fetch from), VotesLost, StoreFull.
    """
    refuse_if_open(path)
    repaired = get_resynced_path(path)
    faults: tuple[str, ...] = ("a resync was interrupted",)
    if not repaired.is_file():
        if not path.is_file():
            raise ConfigError((f"ledger {path}: no such file",))
        found = _examine(path, build_genesis_state(genesis, initial_model), genesis, identity)
        if not found.faults and found.own is not None:
            return None
        _refuse_if_unsafe(path, found, identity, accept_lost_votes)
        partial = Path(f"{repaired}.partial")
        remove_database(partial)
        asyncio.run(_write(path, partial, found, genesis, initial_model))
        partial.replace(repaired)
        sync_folder(path.parent)
        faults = (*found.faults, *([found.own_fault] if found.own is None else []))
    return _put_in_place(path, repaired, tuple(dict.fromkeys(faults)))


def _examine(path: Path, state: ChainState, genesis: Genesis, identity: Identity) -> _Findings:
    """Read what can be read, up to the first block with a fault."""
    try:
        with open_ledger_file(path) as ledger:
            _refuse_other_chain(path, ledger, genesis)
            pages_fault = ledger.get_pages_fault()
            state, fault = _walk(ledger, state)
            faults = tuple(text for text in (fault, pages_fault and f"file: {pages_fault}") if text)
            height = state.height
            try:
                height = ledger.get_height()
                own = ledger.get_own_record()
                _check_own(own, state, identity)
            except (LedgerCorrupt, InvalidMessage) as error:
                return _Findings(state, faults, None, str(error), height)
            return _Findings(state, faults, own, "", height)
    except LedgerCorrupt as error:
        return _Findings(state, (str(error),), None, str(error), state.height)
    except ConfigError as error:
        if isinstance(error, _OtherChain):
            raise
        return _Findings(state, error.problems, None, error.problems[0], state.height)


class _OtherChain(ConfigError):
    pass


def _refuse_other_chain(path: Path, ledger: LedgerFile, genesis: Genesis) -> None:
    """Raise if the ledger has another genesis: an operator's mistake. One that cannot be read is damage."""
    with contextlib.suppress(LedgerCorrupt):
        if encode_genesis(ledger.load_genesis_state()[0]) != encode_genesis(genesis):
            raise _OtherChain((f"ledger {path}: belongs to another chain than the genesis file",))


def _walk(ledger: LedgerFile, state: ChainState) -> tuple[ChainState, str | None]:
    """Return the state after the last block without a fault, and what is wrong with the next one."""
    try:
        state = ledger.load_start()[1].chain
        while row := ledger.get_block(state.height + 1):
            state = replay_block(state, row)
        if ledger.get_height() > state.height:
            return state, f"height {state.height + 1}: the block is missing"
    except LedgerCorrupt as error:
        return state, str(error)
    return state, None


def _check_own(own: OwnRecord, state: ChainState, identity: Identity) -> None:
    """Raise InvalidMessage unless every vote is whole and this miner's own, and every block is whole."""
    for height, raw in own.messages:
        envelope = open_envelope(raw, state.chain)
        verify_envelope(envelope, state.chain, identity.public_key)
        if envelope.number != height:
            raise InvalidMessage(f"a vote of height {envelope.number} is stored under {height}")
    for _, header, body in own.blocks:
        decode_block(header, body)


def _refuse_if_unsafe(path: Path, found: _Findings, identity: Identity, accept_lost_votes: bool) -> None:
    if found.own is None and not accept_lost_votes:
        raise VotesLost(
            f"ledger {path}: this miner's own votes cannot be read ({found.own_fault}). Without it the miner may "
            "sign twice for one height, which lets a chain fork and costs stake. Restore a copy of the file. If there "
            "is none, wait until the other miners are some blocks further, then use --i-lost-my-votes"
        )
    validator = find_validator(found.state, identity.address)
    if validator is None:
        return  # it only follows, or it won its seat in a block that will be fetched again
    total = sum(other.power for other in found.state.validators)
    if 3 * validator.power > 2 * total and found.silent_until > found.state.height:
        problem = "this miner decides alone, so no peer has its blocks; restore a copy of the ledger"
        raise ConfigError((f"ledger {path}: {problem} (the fault: {'; '.join(found.faults)})",))


async def _write(path: Path, partial: Path, found: _Findings, genesis: Genesis, initial_model: ModelVector) -> None:
    ledger = await Ledger.open(partial, genesis, initial_model)
    try:
        if found.state.height:
            with open_ledger_file(path) as damaged:
                base = damaged.get_base()
                if base is not None:
                    await ledger.save_base(base.head, base.data)
                first_height = restore_base(build_genesis_state(genesis, initial_model), base).chain.height + 1
                for first in range(first_height, found.state.height + 1, COPY_BLOCKS):
                    last = min(first + COPY_BLOCKS - 1, found.state.height)
                    await ledger.append_rows([_get(damaged, height) for height in range(first, last + 1)])
        if found.own is not None:
            await ledger.save_own_rows(found.own.messages, found.own.blocks)
        await ledger.save_silence(found.silent_until)
    finally:
        await ledger.close()


def _get(damaged: LedgerFile, height: int) -> StoredBlock:
    row = damaged.get_block(height)
    if row is None:
        raise LedgerCorrupt(height, "the block was readable a moment ago")
    return row


def _put_in_place(path: Path, repaired: Path, faults: tuple[str, ...]) -> Resynced:
    """Replace the ledger. An interrupted resync continues here, and until then no miner starts (see Ledger.open)."""
    with open_ledger_file(repaired) as ledger:
        kept, silent_until = ledger.get_height(), ledger.get_own_record().silence
    is_in_the_way = any(Path(f"{path}{suffix}").exists() for suffix in ("", *SIDE_FILES))
    aside = move_aside(path) if is_in_the_way else None
    os.replace(repaired, path)
    sync_folder(path.parent)
    return Resynced(aside, kept, silent_until, faults)
