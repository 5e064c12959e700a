"""Mend a damaged ledger: keep what still checks and every word the miner has said; its peers have the rest.

A miner that has lost blocks stands at a height where it has voted before, and those votes were forgotten when the
height became final. So the mended ledger also says up to where the miner is silent: it takes blocks from its peers up
to there, and only then takes part again, beginning with what it has said at the height after (see miner.core.catch_up).
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
from miner.edge.ledger.file import LedgerFile, OwnWords, open_ledger_file
from miner.edge.ledger.ledger import Ledger, StoredBlock, get_resynced_path, replay_block

COPY_BLOCKS = 64


class VotesLost(FlchainError):
    """What the miner has said cannot be read: it could contradict itself, which is what makes chains fork."""


@dataclass(frozen=True)
class Resynced:
    """What a resync did."""

    aside: Path | None
    """Where the damaged ledger is now; None if a resync that was broken off had moved it already."""
    kept: Height
    silent_until: Height
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Findings:
    """What can still be read. `words` is None if any of it is unreadable, or it is unknown how far the miner was."""

    state: ChainState
    faults: tuple[str, ...]
    words: OwnWords | None
    words_fault: str
    height: Height
    """The newest block that was there, as far as is known."""

    @property
    def silent_until(self) -> Height:
        """The last height at which the miner may have voted without a record of it."""
        words = self.words
        heights = [] if words is None else [words.silence, *(height - 1 for height, _ in words.messages)]
        return Height(max(self.height, self.state.height, *heights))


def resync_ledger(
    path: Path, genesis: Genesis, initial_model: ModelVector, identity: Identity, accept_lost_votes: bool = False
) -> Resynced | None:
    """Mend the ledger; None if there is nothing to mend. It may be broken off at any point and begun again.

    Raises ConfigError (no ledger, in use, another chain, nobody to fetch from), VotesLost, StoreFull.
    """
    refuse_if_open(path)
    mended = get_resynced_path(path)
    faults: tuple[str, ...] = ("a resync was broken off",)
    if not mended.is_file():
        if not path.is_file():
            raise ConfigError((f"ledger {path}: no such file",))
        found = _examine(path, build_genesis_state(genesis, initial_model), genesis, identity)
        if not found.faults and found.words is not None:
            return None
        _refuse_if_unsafe(path, found, identity, accept_lost_votes)
        partial = Path(f"{mended}.partial")
        remove_database(partial)
        asyncio.run(_write(path, partial, found, genesis, initial_model))
        partial.replace(mended)
        sync_folder(path.parent)
        faults = (*found.faults, *([found.words_fault] if found.words is None else []))
    return _put_in_place(path, mended, tuple(dict.fromkeys(faults)))


def _examine(path: Path, state: ChainState, genesis: Genesis, identity: Identity) -> _Findings:
    """Read what can be read, up to the first block that does not check."""
    try:
        with open_ledger_file(path) as ledger:
            _refuse_other_chain(path, ledger, genesis)
            pages_fault = ledger.get_pages_fault()
            state, fault = _walk(ledger, state)
            faults = tuple(text for text in (fault, pages_fault and f"file: {pages_fault}") if text)
            height = state.height
            try:
                height = ledger.get_height()
                words = ledger.get_own_words()
                _check_words(words, state, identity)
            except (LedgerCorrupt, InvalidMessage) as error:
                return _Findings(state, faults, None, str(error), height)
            return _Findings(state, faults, words, "", height)
    except LedgerCorrupt as error:
        return _Findings(state, (str(error),), None, str(error), state.height)
    except ConfigError as error:
        if isinstance(error, _OtherChain):
            raise
        return _Findings(state, error.problems, None, error.problems[0], state.height)


class _OtherChain(ConfigError):
    pass


def _refuse_other_chain(path: Path, ledger: LedgerFile, genesis: Genesis) -> None:
    """A genesis that cannot be read is damage; another one that can is a mistake of the operator."""
    with contextlib.suppress(LedgerCorrupt):
        if encode_genesis(ledger.load_genesis_state()[0]) != encode_genesis(genesis):
            raise _OtherChain((f"ledger {path}: belongs to another chain than the genesis file",))


def _walk(ledger: LedgerFile, state: ChainState) -> tuple[ChainState, str | None]:
    """The state after the last block that checks, and what is wrong with the next one."""
    try:
        state = ledger.load_start()[1].chain
        while row := ledger.get_block(state.height + 1):
            state = replay_block(state, row)
        if ledger.get_height() > state.height:
            return state, f"height {state.height + 1}: the block is missing"
    except LedgerCorrupt as error:
        return state, str(error)
    return state, None


def _check_words(words: OwnWords, state: ChainState, identity: Identity) -> None:
    """Raises InvalidMessage unless every vote is this miner's own and whole, and every block is."""
    for height, raw in words.messages:
        envelope = open_envelope(raw, state.chain)
        verify_envelope(envelope, state.chain, identity.public_key)
        if envelope.number != height:
            raise InvalidMessage(f"a vote of height {envelope.number} is stored under {height}")
    for _, header, body in words.blocks:
        decode_block(header, body)


def _refuse_if_unsafe(path: Path, found: _Findings, identity: Identity, accept_lost_votes: bool) -> None:
    if found.words is None and not accept_lost_votes:
        raise VotesLost(
            f"ledger {path}: what this miner has voted cannot be read ({found.words_fault}). Without it the miner may "
            "sign twice for one height, which lets a chain fork and is held against it. If there is no copy of the "
            "file, wait until the others have gone on by some blocks, then use --i-lost-my-votes"
        )
    validator = find_validator(found.state, identity.address)
    if validator is None:
        return  # it follows, or its seat was won in a block that is to be fetched again
    total = sum(other.power for other in found.state.validators)
    if 3 * validator.power > 2 * total and found.silent_until > found.state.height:
        problem = "this miner alone decides, so no peer makes its blocks; restore a copy of the ledger"
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
        if found.words is not None:
            await ledger.save_own_rows(found.words.messages, found.words.blocks)
        await ledger.save_silence(found.silent_until)
    finally:
        await ledger.close()


def _get(damaged: LedgerFile, height: int) -> StoredBlock:
    row = damaged.get_block(height)
    if row is None:
        raise LedgerCorrupt(height, "the block was there a moment ago")
    return row


def _put_in_place(path: Path, mended: Path, faults: tuple[str, ...]) -> Resynced:
    """From here on a resync that is broken off goes on here; no miner starts in between (Ledger.open)."""
    with open_ledger_file(mended) as ledger:
        kept, silent_until = ledger.get_height(), ledger.get_own_words().silence
    is_in_the_way = any(Path(f"{path}{suffix}").exists() for suffix in ("", *SIDE_FILES))
    aside = move_aside(path) if is_in_the_way else None
    os.replace(mended, path)
    sync_folder(path.parent)
    return Resynced(aside, kept, silent_until, faults)
