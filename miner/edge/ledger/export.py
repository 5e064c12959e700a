"""A chain as one file: all final blocks with their certificates, as a copy or to start a miner from.

A sequence of canonical CBOR items (RFC 8742), each an array of three byte strings: the format's name, genesis and
initial model; then header, certificate and body of every block from height 1; then "end", the height as 8 bytes, and
the head. Nothing in it is trusted: an import checks every block by the chain's rules.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from flchain.base.errors import ConfigError, FlchainError, LedgerCorrupt
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Height, ModelVector
from flchain.ledger.block import hash_header
from flchain.ledger.genesis import Genesis, encode_genesis
from flchain.wire.envelope import BODY_BYTES_MAX, HEADER_BYTES_MAX, decode_struct, encode
from flchain.wire.messages import Header
from flchain_edge.storage.database_files import sync_folder
from miner.edge.ledger.file import open_ledger_file
from miner.edge.ledger.ledger import REPLAY_BLOCKS, Ledger, StoredBlock, replay, replay_block

FORMAT, END = b"flchain-export-1", b"end"
ARRAY_OF_3, BYTES_MAJOR = 0x83, 2
HEIGHT_BYTES = 8
Item = tuple[bytes, bytes, bytes]
OnBlock = Callable[[Height], None]


class ImportFault(FlchainError):
    """An export ends early, or a block in it breaks a rule. The blocks before the fault are in the ledger."""


def export_ledger(ledger_path: Path, out: Path, on_block: OnBlock = lambda height: None) -> Height:
    """Check and write the whole chain, all of it or nothing; return its height.

    The ledger is only read, and its miner may run. Raises ConfigError, LedgerCorrupt; OSError becomes ConfigError.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as stream:
            height = _write_export(ledger_path, stream, on_block)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        raise ConfigError((f"export {out}: {error.strerror or error}",)) from error
    finally:
        partial.unlink(missing_ok=True)
    return height


def _write_export(ledger_path: Path, stream: IO[bytes], on_block: OnBlock) -> Height:
    with open_ledger_file(ledger_path) as ledger:
        genesis, state = ledger.load_genesis_state()
        if (base := ledger.get_base()) is not None:
            height = decode_struct(base.head.header, Header, HEADER_BYTES_MAX).height
            problem = f"begins with the state at height {height}; export the ledger of a miner that has all blocks"
            raise ConfigError((f"ledger {ledger_path}: {problem}",))
        stream.write(encode([FORMAT, encode_genesis(genesis), encode_vector(state.model)]))
        for row in ledger.iterate_blocks():
            state = replay_block(state, row)
            stream.write(encode([row.header, row.certificate, row.body]))
            on_block(state.height)
    stream.write(encode([END, state.height.to_bytes(HEIGHT_BYTES, "big"), state.head]))
    return state.height


async def import_file(
    ledger: Ledger, genesis: Genesis, initial_model: ModelVector, file: Path, on_block: OnBlock = lambda height: None
) -> tuple[Height, Height]:
    """Check the blocks that the ledger lacks by the rules and append them; return the heights before and after.

    Raises ConfigError (no such file, another chain, another final block at a height), ImportFault naming the height of
    the first fault (the blocks below it are in the ledger), LedgerCorrupt if the ledger itself is damaged.
    """
    standing = await replay(ledger, genesis, initial_model)
    state, before = standing.chain, standing.chain.height
    try:
        with file.open("rb") as stream:
            if _read_item(stream) != (FORMAT, encode_genesis(genesis), encode_vector(initial_model)):
                raise ConfigError((f"import {file}: belongs to another chain than the genesis file, or is no export",))
            pending: list[StoredBlock] = []
            try:
                for row in _read_blocks(stream):
                    if row.height <= before:
                        if row.height > standing.ledger.base:
                            await _compare(ledger, row, file)
                        continue
                    state = replay_block(state, row)
                    pending.append(row)
                    on_block(state.height)
                    if len(pending) == REPLAY_BLOCKS:
                        await ledger.append_rows(pending)
                        pending = []
            finally:
                await ledger.append_rows(pending)  # the blocks before a fault, too
    except LedgerCorrupt as error:
        raise ImportFault(f"import {file}: {error}; the ledger is at height {state.height}") from error
    except OSError as error:
        raise ConfigError((f"import {file}: {error.strerror or error}",)) from error
    return before, state.height


async def _compare(ledger: Ledger, row: StoredBlock, file: Path) -> None:
    own = await ledger.get_blocks(row.height, 1)
    if own[0].hash != row.hash:
        raise ConfigError((f"import {file}: holds another final block {row.height} than the ledger",))


def _read_blocks(stream: IO[bytes]) -> Iterator[StoredBlock]:
    """Yield the blocks in the order of the file. Raises LedgerCorrupt where it ends early or is damaged."""
    height, head = Height(1), b""
    while True:
        item = _read_item(stream)
        if item is None:
            raise LedgerCorrupt(height, "the file is cut off or damaged here")
        if item[0] == END:
            if item[1] != (height - 1).to_bytes(HEIGHT_BYTES, "big") or (head and item[2] != head) or stream.read(1):
                raise LedgerCorrupt(height, "the end of the file is not that of its blocks")
            return
        header, certificate, body = item
        head = hash_header(header)
        yield StoredBlock(height, head, header, certificate, body)
        height = Height(height + 1)


def _read_item(stream: IO[bytes]) -> Item | None:
    """Return three byte strings, or None for anything else. Nothing longer than a part of a block may be is read."""
    if stream.read(1) != bytes((ARRAY_OF_3,)):
        return None
    parts = [_read_bytes(stream) for _ in range(3)]
    first, second, third = parts
    return None if first is None or second is None or third is None else (first, second, third)


def _read_bytes(stream: IO[bytes]) -> bytes | None:
    head = stream.read(1)
    if not head or head[0] >> 5 != BYTES_MAJOR:
        return None
    length = short = head[0] & 0x1F
    if short >= 24:
        following = stream.read(1 << (short - 24)) if short <= 27 else b""
        length = int.from_bytes(following, "big")
        head += following
    if length > BODY_BYTES_MAX:
        return None
    data = stream.read(length)
    is_canonical = len(data) == length and encode(data)[: len(head)] == head
    return data if is_canonical else None
