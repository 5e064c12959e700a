"""A ledger that begins with a certified state: taken from a peer or made by pruning; nothing is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain.base.types import Height
from flchain.ledger.snapshot import encode_state
from flchain_edge.storage.sqlite import StoreFull
from miner.core.tip import Standing
from miner.core.values import SaveVote
from miner.edge.ledger.export import export_ledger, import_file
from miner.edge.ledger.ledger import Ledger, replay
from miner.edge.ledger.prune import prune_ledger
from miner.edge.ledger.resync import resync_ledger
from tests.support.builders.chain import Driver
from tests.support.builders.ledger import change, drive, flip, get_row, read_rows, write_ledger
from tests.support.crash import kill_after
from tools.inspect.audit import audit_file

BASE = 7


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(4)


@pytest.fixture
def path(driver: Driver, tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    write_ledger(path, driver)
    return path


def restart(path: Path, driver: Driver) -> Standing:
    """What a miner's start does."""

    async def scenario() -> Standing:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        try:
            return await replay(ledger, driver.chain.genesis, driver.chain.model)
        finally:
            await ledger.close()

    return asyncio.run(scenario())


def take_state(path: Path, driver: Driver, height: int) -> None:
    """What a miner does with a peer's state."""

    async def scenario() -> None:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        await ledger.save_base(driver.get_head(height), encode_state(driver.states[height]))
        await ledger.close()

    asyncio.run(scenario())


def prune(path: Path, driver: Driver, keep: int) -> Height | None:
    return asyncio.run(prune_ledger(path, driver.chain.genesis, driver.chain.model, keep))


def test_a_taken_state_is_where_a_restart_begins(driver: Driver, tmp_path: Path) -> None:
    """A new miner that took a state stands there after a restart, and goes on with the blocks after it."""
    path = tmp_path / "ledger.db"
    take_state(path, driver, BASE)
    standing = restart(path, driver)
    assert (standing.ledger.base, standing.chain.head) == (BASE, driver.states[BASE].head)
    assert standing.ledger.tip is not None and standing.ledger.tip.head == driver.get_head(BASE)

    async def append() -> None:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        await ledger.append_rows([get_row(driver, index) for index in range(BASE, len(driver.blocks))])
        await ledger.close()

    asyncio.run(append())
    assert restart(path, driver).chain.head == driver.state.head
    assert audit_file(path).base == BASE


def test_pruning_keeps_the_newest_blocks_and_the_votes(path: Path, driver: Driver) -> None:
    """After pruning the state is the same, the audit passes from the base on, and what was voted is still there."""

    async def vote() -> None:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        await ledger.save(SaveVote(Height(driver.state.height + 1), b"a vote", None))
        await ledger.close()

    asyncio.run(vote())
    top = len(driver.blocks)
    assert prune(path, driver, 5) == top - 5
    assert [row.height for row in read_rows(path)] == list(range(top - 4, top + 1))
    assert restart(path, driver).chain.head == driver.state.head
    found = audit_file(path)
    assert (found.base, found.state.height, found.counts.blocks) == (top - 5, top, 5)

    async def read_votes() -> tuple[bytes, ...]:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        try:
            return (await ledger.get_own(Height(top + 1)))[0]
        finally:
            await ledger.close()

    assert asyncio.run(read_votes()) == (b"a vote",)
    assert prune(path, driver, 5) is None, "there is no more to drop"
    assert prune(path, driver, 0) == top
    assert restart(path, driver).chain.head == driver.state.head


def test_a_damaged_base_is_found(path: Path, driver: Driver) -> None:
    """A changed bit of state, header, certificate or validators stops the start and the audit."""
    prune(path, driver, 5)
    head, state = driver.get_head(len(driver.blocks) - 5), encode_state(driver.states[-6])
    parts = {"header": head.header, "certificate": head.certificate, "sets": head.sets, "state": state}
    for part, data in parts.items():
        change(path, f"UPDATE base SET {part} = ?", flip(data, len(data) // 2))
        with pytest.raises(LedgerCorrupt):
            restart(path, driver)
        with pytest.raises(LedgerCorrupt):
            audit_file(path)
        change(path, f"UPDATE base SET {part} = ?", data)
        assert restart(path, driver).chain.head == driver.state.head


def test_kill_9_in_the_middle_leaves_old_or_new(path: Path, driver: Driver, tmp_path: Path) -> None:
    """Killed while it prunes again and again, a ledger opens and stands where it stood, whatever it begins with."""
    for count in range(8):
        copy = tmp_path / f"{count}.db"
        copy.write_bytes(path.read_bytes())

        def work(acknowledge: Callable[[int], None], copy: Path = copy) -> None:
            for keep in range(len(driver.blocks) - 1, -1, -1):
                prune(copy, driver, keep)
                acknowledge(keep)

        kill_after(count, work)
        standing = restart(copy, driver)
        assert standing.chain.head == driver.state.head
        assert standing.ledger.base + len(read_rows(copy)) == len(driver.blocks)


def test_a_full_disk_leaves_the_old_ledger(path: Path, driver: Driver) -> None:
    """If the state finds no room the blocks are all still there."""

    async def scenario() -> None:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        await ledger._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreFull):
            await ledger.save_base(driver.get_head(BASE), encode_state(driver.states[BASE]) + bytes(10**6))
        await ledger.close()

    asyncio.run(scenario())
    assert restart(path, driver).ledger.base == 0
    assert len(read_rows(path)) == len(driver.blocks)


def test_what_needs_all_blocks_says_so(path: Path, driver: Driver, tmp_path: Path) -> None:
    """A pruned ledger cannot be exported; an export of another miner can be imported into it."""
    whole = tmp_path / "whole.flchain"
    export_ledger(path, whole)
    take_state(path, driver, len(driver.blocks) - 3)
    with pytest.raises(ConfigError, match="begins with the state at height"):
        export_ledger(path, tmp_path / "part.flchain")

    async def scenario() -> tuple[Height, Height]:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        try:
            return await import_file(ledger, driver.chain.genesis, driver.chain.model, whole)
        finally:
            await ledger.close()

    assert asyncio.run(scenario()) == (len(driver.blocks), len(driver.blocks))


def test_a_resync_keeps_the_base(path: Path, driver: Driver) -> None:
    """A damaged block after the base costs the blocks from there on, not the base."""
    prune(path, driver, 6)
    bad = len(driver.blocks) - 2
    change(path, "UPDATE blocks SET body = x'00' WHERE height = ?", bad)
    done = resync_ledger(path, driver.chain.genesis, driver.chain.model, driver.chain.miners[0])
    assert done is not None and done.kept == bad - 1
    standing = restart(path, driver)
    assert (standing.ledger.base, standing.chain.height) == (len(driver.blocks) - 6, bad - 1)
