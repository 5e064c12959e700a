"""Real ledgers for tests: blocks driven with keys, written by the real Ledger, and read back or damaged as rows."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from flchain.base.types import Height
from miner.edge.ledger.ledger import BLOCK_COLUMNS, Ledger, StoredBlock, read_row
from tests.support.builders.chain import Driver, build_chain


def drive(rounds: int, codec: str = "sparse-ternary", seed: int = 1) -> Driver:
    """A chain of some whole rounds of 4 miners and 3 devices."""
    driver = Driver(build_chain(codec=codec, seed=seed))
    for _ in range(rounds):
        driver.run_round()
    return driver


def get_row(driver: Driver, index: int) -> StoredBlock:
    """What the ledger holds for the driver's block number `index`, from 0."""
    block = driver.blocks[index]
    height = Height(block.header.height)
    return StoredBlock(height, block.hash, block.header_bytes, driver.certificates[index], block.body_bytes)


def write_ledger(path: Path, driver: Driver) -> None:
    """Append every block of the driver to a new ledger."""

    async def write() -> None:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        for block, certificate in zip(driver.blocks, driver.certificates, strict=True):
            await ledger.append(block, certificate)
        await ledger.close()

    asyncio.run(write())


def read_rows(path: Path) -> list[StoredBlock]:
    """The blocks of a ledger's file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [read_row(row) for row in db.execute(f"SELECT {BLOCK_COLUMNS} FROM blocks ORDER BY height")]


def change(path: Path, sql: str, *values: object) -> None:
    """Damage a closed ledger by a statement."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(sql, values)


def flip(data: bytes, position: int, mask: int = 1) -> bytes:
    """`data` with the bits of `mask` changed in one byte."""
    return data[:position] + bytes((data[position] ^ mask,)) + data[position + 1 :]
