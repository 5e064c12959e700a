"""The miner's ledger: what was acknowledged is there after a crash, and what is damaged is named."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain.base.types import Height
from flchain.ledger.state import ChainState
from flchain.ledger.state_tree import compute_state_root
from flchain.wire.envelope import seal
from flchain.wire.messages import Vote
from flchain_edge.storage.sqlite import StoreFull
from miner.core.values import SaveVote
from miner.edge.ledger.ledger import Ledger, replay
from tests.support.builders.chain import BuiltChain, Driver, build_chain
from tests.support.builders.ledger import change, drive, flip, read_rows, write_ledger
from tests.support.crash import kill_after
from tools.inspect.audit import audit_file

KILLS = 20
FREE_PAGES = 6


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(3)


@pytest.fixture(scope="module")
def long_driver() -> Driver:
    return drive(20)


@pytest.fixture
def path(driver: Driver, tmp_path: Path) -> Path:
    path = tmp_path / "data" / "ledger.db"
    write_ledger(path, driver)
    return path


async def open_ledger(path: Path, chain: BuiltChain) -> Ledger:
    return await Ledger.open(path, chain.genesis, chain.model)


def replay_file(path: Path, chain: BuiltChain) -> ChainState:
    """What a miner's start does."""

    async def scenario() -> ChainState:
        ledger = await open_ledger(path, chain)
        try:
            return (await replay(ledger, chain.genesis, chain.model)).chain
        finally:
            await ledger.close()

    return asyncio.run(scenario())


def test_replays_to_the_state_it_was_written_from(path: Path, driver: Driver) -> None:
    """After a restart the state is the one before it, whole: its root, its head, its model."""
    state = replay_file(path, driver.chain)
    assert (state.height, state.head) == (driver.state.height, driver.state.head)
    assert compute_state_root(state) == compute_state_root(driver.state)
    assert (state.model == driver.state.model).all()


def test_serves_blocks_as_they_were_appended(path: Path, driver: Driver) -> None:
    """Peers get the very bytes of the asked heights, at most as many as asked for; the tip is the newest."""

    async def scenario() -> None:
        ledger = await open_ledger(path, driver.chain)
        rows = await ledger.get_blocks(Height(3), 4)
        assert [row.height for row in rows] == [3, 4, 5, 6]
        for row in rows:
            block = driver.blocks[row.height - 1]
            assert (row.hash, row.header, row.body) == (block.hash, block.header_bytes, block.body_bytes)
            assert row.certificate == driver.certificates[row.height - 1]
        assert await ledger.get_blocks(Height(len(driver.blocks) + 1), 4) == ()
        tip = await ledger.get_tip()
        assert tip is not None and tip.hash == driver.state.head
        await ledger.close()

    asyncio.run(scenario())


def test_an_empty_ledger_is_the_genesis(tmp_path: Path) -> None:
    """A new ledger has no tip and replays to height 0."""
    chain = build_chain()
    assert replay_file(tmp_path / "ledger.db", chain).head == chain.id

    async def scenario() -> None:
        ledger = await open_ledger(tmp_path / "ledger.db", chain)
        assert await ledger.get_tip() is None
        await ledger.close()

    asyncio.run(scenario())


def test_a_height_is_written_once(path: Path, driver: Driver) -> None:
    """A second block for a height is a bug that must not pass: the first one stays."""

    async def scenario() -> None:
        ledger = await open_ledger(path, driver.chain)
        with pytest.raises(Exception, match="UNIQUE"):
            await ledger.append(driver.blocks[2], driver.certificates[3])
        await ledger.close()

    asyncio.run(scenario())
    assert read_rows(path)[2].certificate == driver.certificates[2]


def test_own_words_last_until_their_height_is_final(tmp_path: Path, driver: Driver) -> None:
    """Votes and their blocks survive a restart in order, once each, and go when the height is final, not before."""
    chain, miner = driver.chain, driver.chain.miners[0]
    votes = [
        [seal(Vote(height, view, step, None), chain.id, miner) for view in (0, 1) for step in (1, 2)]
        for height in (1, 2)
    ]

    async def scenario() -> None:
        ledger = await open_ledger(tmp_path / "ledger.db", chain)
        for index in (0, 1):
            for raw in (*votes[index], votes[index][0]):
                await ledger.save(SaveVote(Height(index + 1), raw, driver.blocks[index]))
        await ledger.close()
        ledger = await open_ledger(tmp_path / "ledger.db", chain)
        for index in (0, 1):
            assert await ledger.get_own(Height(index + 1)) == (tuple(votes[index]), (driver.blocks[index],))
        await ledger.append(driver.blocks[0], driver.certificates[0])
        assert await ledger.get_own(Height(1)) == ((), ())
        assert await ledger.get_own(Height(2)) == (tuple(votes[1]), (driver.blocks[1],))
        await ledger.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("other", [build_chain(seed=2), build_chain(reward_per_update=101)])
def test_another_chains_ledger_is_refused(path: Path, driver: Driver, other: BuiltChain) -> None:
    """A ledger of other keys or other numbers is the operator's fault, and stays as it was."""
    with pytest.raises(ConfigError, match="another chain"):
        replay_file(path, other)
    assert replay_file(path, driver.chain).head == driver.state.head


@pytest.mark.parametrize("part", ["header", "certificate", "body", "hash"])
def test_a_damaged_block_is_named(path: Path, driver: Driver, part: str) -> None:
    """A miner does not start on a damaged block, and says which height and part it is."""
    data: bytes = getattr(read_rows(path)[6], part)
    change(path, f"UPDATE blocks SET {part} = ? WHERE height = 7", flip(data, len(data) // 2))
    with pytest.raises(LedgerCorrupt, match=part) as caught:
        replay_file(path, driver.chain)
    assert caught.value.height == 7


def test_what_is_not_bytes_is_damage(path: Path, driver: Driver) -> None:
    """A block or an own block of another type, not even UTF-8, is named as damage instead of breaking the miner."""
    row = read_rows(path)[0]
    change(path, "INSERT INTO own_blocks VALUES (?, 14, CAST(? AS TEXT), ?)", row.hash, row.header, row.body)

    async def scenario() -> None:
        ledger = await open_ledger(path, driver.chain)
        try:
            await ledger.get_own(Height(14))
        finally:
            await ledger.close()

    with pytest.raises(LedgerCorrupt, match="own vote or block"):
        asyncio.run(scenario())
    change(path, "UPDATE blocks SET header = CAST(header AS TEXT) WHERE height = 2")
    with pytest.raises(LedgerCorrupt, match="header: not stored as bytes") as caught:
        replay_file(path, driver.chain)
    assert caught.value.height == 2


@pytest.mark.parametrize("damage", [lambda data: b"x" * 100 + data[100:], lambda data: data[: len(data) // 2]])
def test_a_damaged_file_is_the_disks_fault(path: Path, driver: Driver, damage: Callable[[bytes], bytes]) -> None:
    """Another start of the file, or half of it, is LedgerCorrupt, never a bare error of SQLite."""
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LedgerCorrupt):
        replay_file(path, driver.chain)


def test_a_full_disk_loses_nothing(path: Path, driver: Driver, long_driver: Driver, tmp_path: Path) -> None:
    """Without room StoreFull comes out; all blocks before are there and replay, and with room it goes on."""
    path = Path(shutil.copy(path, tmp_path / "full.db"))
    last = len(driver.blocks)

    async def fill(pages: int) -> int:
        """Append what fits; the height reached."""
        ledger = await open_ledger(path, long_driver.chain)
        async with ledger._db.execute("PRAGMA page_count") as cursor:
            row = await cursor.fetchone()
        assert row is not None
        await ledger._db.execute(f"PRAGMA max_page_count = {row[0] + pages}")
        tip = await ledger.get_tip()
        height = tip.height if tip else Height(0)
        try:
            for index in range(height, len(long_driver.blocks)):
                await ledger.append(long_driver.blocks[index], long_driver.certificates[index])
                height = Height(index + 1)
        finally:
            heights.append(height)
            await ledger.close()
        return height

    heights: list[int] = []
    with pytest.raises(StoreFull):
        asyncio.run(fill(FREE_PAGES))
    assert last < heights[0] < len(long_driver.blocks)
    assert replay_file(path, long_driver.chain).head == long_driver.states[heights[0]].head
    assert asyncio.run(fill(1000)) == len(long_driver.blocks)
    assert audit_file(path).state.head == long_driver.state.head


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, long_driver: Driver) -> None:
    """Killed at random points while it appends, a ledger opens, passes the audit, and lacks no acknowledged block."""
    path, chain, chooser = tmp_path / "ledger.db", long_driver.chain, random.Random(9)

    def append(acknowledge: Callable[[int], None]) -> None:
        async def scenario() -> None:
            ledger = await open_ledger(path, chain)
            tip = await ledger.get_tip()
            for index in range(tip.height if tip else 0, len(long_driver.blocks)):
                block = long_driver.blocks[index]
                vote = seal(Vote(index + 1, 0, 2, block.hash), chain.id, chain.miners[0])
                await ledger.save(SaveVote(Height(index + 1), vote, block))
                await ledger.append(block, long_driver.certificates[index])
                acknowledge(index + 1)

        asyncio.run(scenario())

    reached = 0
    for _ in range(KILLS):
        reached = max(reached, kill_after(chooser.randrange(5), append) or 0)
        if not path.exists():
            continue
        height = replay_file(path, chain).height
        assert reached <= height
        assert audit_file(path).state.head == long_driver.states[height].head
        reached = height
    assert reached >= KILLS
