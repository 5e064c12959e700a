"""The device's database: a restart finds the model, the open round's work and what waits for a receipt."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.values import DropOutbox, Report, SaveOutbox, SaveScores, SaveWork
from agent.edge.store.schema import MIGRATIONS
from agent.edge.store.store import RoundLine, Store
from agent.scheduling.energy import Energy, EnergySource
from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Hash, Height, Round
from flchain.ledger.state import hash_carried, hash_model
from flchain.light.follow import process_body, process_head
from flchain.light.trust import CertifiedHeader
from flchain.wire.envelope import hash_message
from flchain_edge.storage.sqlite import StoreFull, open_database, transaction
from tests.support.builders.chain import NO_CLOCK, Driver, make_reveal, seal_commit
from tests.support.builders.ledger import change, drive, flip
from tests.support.builders.store import (
    build_position,
    build_scores,
    build_work,
    get_residual,
    get_settle_height,
    load,
    visit,
)
from tests.support.crash import kill_after

ROUNDS = 3
KILLS = 20
FREE_PAGES = 3


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(ROUNDS)


def test_a_new_store_is_the_genesis(tmp_path: Path, driver: Driver) -> None:
    """Before anything was saved a device stands at the genesis with nothing to send."""
    stored = load(tmp_path / "data" / "agent.db", driver)
    assert stored.light.height == 0 and stored.light.model_hash == hash_model(driver.chain.model)
    assert not stored.residual.any() and stored.work is None and stored.outbox == {}


def test_the_newest_position_is_found_again(tmp_path: Path, driver: Driver) -> None:
    """After a restart the model, its round and its place in the chain are those last saved, residual included."""
    path = tmp_path / "agent.db"
    for number in (1, 3):
        position = build_position(driver, number)
        visit(path, driver, lambda store, position=position: store.save(position))  # type: ignore[misc]
        stored = load(path, driver)
        state = driver.states[get_settle_height(number)]
        assert (stored.light.height, stored.light.trust.head) == (state.height, state.head)
        assert stored.light.model_round == number and stored.light.round == number + 1
        assert stored.light.model_hash == state.model_hash and (stored.light.model == state.model).all()
        assert (stored.residual == get_residual(number)).all()


def test_a_restarted_device_goes_on_from_its_position(tmp_path: Path, driver: Driver) -> None:
    """From what was saved after round 1 the blocks of round 2 and 3 lead to the chain's newest model."""
    path = tmp_path / "agent.db"
    visit(path, driver, lambda store: store.save(build_position(driver, 1)))
    light = load(path, driver).light
    for index in range(get_settle_height(1), len(driver.blocks)):
        block = driver.blocks[index]
        light = process_head(light, CertifiedHeader(block.header_bytes, driver.certificates[index]), NO_CLOCK)
        light = process_body(light, light.height, block.body_bytes)
    assert light.model_hash == driver.state.model_hash and light.model_round == ROUNDS


def test_what_a_full_device_carries_is_found_again(tmp_path: Path, driver: Driver) -> None:
    """It is what the chain carries, whatever else is stored. A light device stores none, and who then becomes full
    does not know it; a bit flipped in it stops the start of a full device."""
    path, position = tmp_path / "agent.db", build_position(driver, 2)
    visit(path, driver, lambda store: store.save(build_position(driver, 1), position))
    visit(path, driver, lambda store: store.save(SaveWork(build_work(driver, 3))))
    carried = load(path, driver).light.carried
    assert carried is not None and any(part.any() for part in carried)
    assert hash_carried(carried) == driver.states[get_settle_height(2)].carried_hash
    light = replace(position, light=replace(position.light, is_full=False, carried=None))
    visit(path, driver, lambda store: store.save(light))
    assert load(path, driver).light.carried is None
    visit(path, driver, lambda store: store.save(position))
    assert load(path, driver).light.carried is not None
    kept = "residuals WHERE id = (SELECT carried FROM position)"
    with contextlib.closing(sqlite3.connect(path)) as db:
        right = db.execute(f"SELECT vector FROM {kept}").fetchone()[0]
    change(path, f"UPDATE {kept.replace(' ', ' SET vector = ? ', 1)}", flip(right, len(right) // 2, 64))
    with pytest.raises(LedgerCorrupt):
        load(path, driver)


def test_work_and_outbox_are_found_again(tmp_path: Path, driver: Driver) -> None:
    """The open round's update is what will be sent again, and a message leaves the outbox by its receipt alone."""
    path, raws = tmp_path / "agent.db", [b"first", b"second"]

    async def save(store: Store) -> None:
        await store.save(SaveWork(build_work(driver, 1)))
        await store.save(SaveWork(build_work(driver, 2)))
        for raw in (*raws, raws[0]):
            await store.save(SaveOutbox(hash_message(raw), Round(2), raw))

    visit(path, driver, save)
    stored = load(path, driver)
    work, wanted = stored.work, build_work(driver, 2)
    assert work is not None and (work.residual == wanted.residual).all()
    assert (work.round, work.commit, work.reveal) == (wanted.round, wanted.commit, wanted.reveal)
    assert (work.samples, work.training_ms) == (wanted.samples, wanted.training_ms)
    assert stored.outbox == {hash_message(raw): (Round(2), raw) for raw in raws}
    visit(path, driver, lambda store: store.save(DropOutbox(hash_message(raws[0]), "ok")))
    assert set(load(path, driver).outbox) == {hash_message(raws[1])}


def test_scores_are_found_again(tmp_path: Path, driver: Driver) -> None:
    """A restart between commitment and opening finds the newest round's two messages, and the pledge they are for."""
    path = tmp_path / "agent.db"
    assert load(path, driver).scores is None

    async def save(store: Store) -> None:
        await store.save(SaveWork(build_work(driver, 2)))
        await store.save(SaveScores(build_scores(driver, 1)))
        await store.save(SaveScores(build_scores(driver, 2)))

    visit(path, driver, save)
    stored = load(path, driver)
    assert stored.scores == build_scores(driver, 2)
    assert stored.work is not None and stored.work.will_score


def test_a_store_from_before_devices_mined_goes_on(tmp_path: Path, driver: Driver) -> None:
    """Its work is found without a pledge, and it has room for scores."""
    path, work = tmp_path / "agent.db", build_work(driver, 2)

    async def make() -> None:
        db = await open_database(path, MIGRATIONS[:1])
        row = (work.round, work.commit, work.reveal, encode_vector(work.residual), 40, 1234)
        async with transaction(db):
            await db.execute("INSERT INTO work VALUES (1, ?, ?, ?, ?, ?, ?)", row)
        await db.close()

    asyncio.run(make())
    visit(path, driver, lambda store: store.save(SaveScores(build_scores(driver, 2))))
    stored = load(path, driver)
    assert stored.work is not None and not stored.work.will_score and stored.work.commit == work.commit
    assert stored.scores == build_scores(driver, 2)


def test_another_devices_scores_are_damage(tmp_path: Path, driver: Driver) -> None:
    """What this device has not signed it does not send, whole as it may be."""
    path = tmp_path / "agent.db"
    visit(path, driver, lambda store: store.save(SaveScores(build_scores(driver, 2, number=1))))
    with pytest.raises(LedgerCorrupt):
        load(path, driver)


def test_history_has_one_line_a_round(tmp_path: Path, driver: Driver) -> None:
    """A round that is reported again, after a restart, is not counted twice; one without an update is there too."""
    spent = (Energy(1.5, EnergySource.MEASURED), Energy(0.5, EnergySource.MEASURED), 4096)

    async def save(store: Store) -> None:
        await store.save(RoundLine(Report(Round(1), Hash(b"h" * 32), False, True, build_work(driver, 1)), 10, 20))
        await store.save(
            RoundLine(Report(Round(1), Hash(b"h" * 32), False, True, build_work(driver, 1)), 11, 21, *spent)
        )
        await store.save(RoundLine(Report(Round(2), Hash(b"i" * 32), False, False, None), 12, 22))
        async with store._db.execute("SELECT * FROM rounds ORDER BY round") as cursor:
            rows = [tuple(row) async for row in cursor]
        assert rows == [
            (1, b"h" * 32, 1, 40, 1234, 11, 21, 1500, 500, 2, 4096),
            (2, b"i" * 32, 0, 0, 0, 12, 22, 0, 0, 0, None),
        ]

    visit(tmp_path / "agent.db", driver, save)


def test_a_damaged_position_is_found(tmp_path: Path, driver: Driver) -> None:
    """A flipped bit in model, header, certificate or validators, or a residual of another size, stops the start."""
    path, position = tmp_path / "agent.db", build_position(driver, 2)
    visit(path, driver, lambda store: store.save(build_position(driver, 1), position))
    with contextlib.closing(sqlite3.connect(path)) as db:
        whole = {
            (table, column): db.execute(f"SELECT {column} FROM {table}").fetchone()[0]
            for table, column in (
                ("model_base", "vector"),
                ("model_steps", "vector"),
                ("residuals", "vector"),
                ("position", "header"),
                ("position", "certificate"),
                ("position", "sets"),
            )
        }
    for (table, column), right in whole.items():
        assert load(path, driver).light.model_round == 2
        for wrong in (flip(right, len(right) // 2, 64), right[:-1]):
            change(path, f"UPDATE {table} SET {column} = ?", wrong)
            with pytest.raises(LedgerCorrupt):
                load(path, driver)
        change(path, f"UPDATE {table} SET {column} = ?", right)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE work SET reveal_raw = commit_raw",
        "UPDATE work SET commit_raw = x'00'",
        "UPDATE work SET commit_raw = CAST(commit_raw AS TEXT)",
        "UPDATE work SET round = round + 1",
        "UPDATE work SET samples = 'many'",
        "UPDATE scores SET reveal_raw = commit_raw",
        "UPDATE scores SET commit_raw = x'00'",
        "UPDATE scores SET round = round + 1",
        "UPDATE scores SET round = 'two'",
        "UPDATE outbox SET raw = x'00'",
        "UPDATE outbox SET raw = CAST(raw AS TEXT)",
        "UPDATE outbox SET digest = 7",
        "UPDATE outbox SET round = x'01'",
        "UPDATE model_base SET vector = CAST(vector AS TEXT)",
        "UPDATE model_base SET encoding = 7",
        "UPDATE model_base SET encoding = 0",
        "DELETE FROM model_base",
        "UPDATE residuals SET vector = x'00'",
        "DELETE FROM residuals",
        "UPDATE work SET residual = 77",
        "UPDATE position SET header = 7",
    ],
)
def test_what_was_not_stored_so_is_damage(tmp_path: Path, driver: Driver, sql: str) -> None:
    """Work, outbox or position of another type, round or content is LedgerCorrupt, and nothing of it is sent."""
    path, raw = tmp_path / "agent.db", build_work(driver, 2).commit

    async def save(store: Store) -> None:
        await store.save(build_position(driver, 1))
        await store.save(SaveScores(build_scores(driver, 2)))
        await store.save(SaveWork(build_work(driver, 2)))
        await store.save(SaveOutbox(hash_message(raw), Round(2), raw))

    visit(path, driver, save)
    assert load(path, driver).outbox == {hash_message(raw): (Round(2), raw)}
    change(path, sql)
    with pytest.raises(LedgerCorrupt):
        load(path, driver)


def test_another_devices_work_is_damage(tmp_path: Path, driver: Driver) -> None:
    """A message that another device has signed is never sent as this one's."""
    path, other = tmp_path / "agent.db", make_reveal(driver.chain, 1, 2)
    visit(path, driver, lambda store: store.save(SaveWork(build_work(driver, 2))))
    change(path, "UPDATE work SET commit_raw = ?", seal_commit(driver.chain, 1, other))
    with pytest.raises(LedgerCorrupt, match="not a COMMIT of this device"):
        load(path, driver)


@pytest.mark.parametrize("damage", [lambda data: b"x" * 100 + data[100:], lambda data: data[: len(data) // 2]])
def test_a_damaged_file_is_the_disks_fault(tmp_path: Path, driver: Driver, damage: Callable[[bytes], bytes]) -> None:
    """Another start of the file, or half of it, is LedgerCorrupt, never a bare error of SQLite."""
    path = tmp_path / "agent.db"
    visit(path, driver, lambda store: store.save(build_position(driver, 1)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LedgerCorrupt):
        load(path, driver)


def test_another_chains_store_is_refused(tmp_path: Path, driver: Driver) -> None:
    """A device that is given another genesis does not mix two chains, and its store stays as it was."""
    path = tmp_path / "agent.db"
    visit(path, driver, lambda store: store.save(build_position(driver, 1)))
    with pytest.raises(ConfigError, match="another chain"):
        load(path, drive(0, seed=2))
    assert load(path, driver).light.model_round == 1


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, driver: Driver) -> None:
    """Without room StoreFull comes out; position and outbox are those of the last success."""
    path, saved = tmp_path / "agent.db", []

    async def fill(store: Store) -> None:
        await store.save(build_position(driver, 1))
        async with store._db.execute("PRAGMA page_count") as cursor:
            row = await cursor.fetchone()
        assert row is not None
        await store._db.execute(f"PRAGMA max_page_count = {row[0] + FREE_PAGES}")
        for number in range(100):
            raw = bytes((number,)) * 1000
            await store.save(SaveOutbox(hash_message(raw), Round(2), raw))
            saved.append(hash_message(raw))

    with pytest.raises(StoreFull):
        visit(path, driver, fill)
    stored = load(path, driver)
    assert 0 < len(saved) < 100 and set(stored.outbox) == set(saved)
    assert stored.light.model_round == 1


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, driver: Driver) -> None:
    """Killed at random points while it saves, a store opens, and holds what was acknowledged or something newer."""
    path, chooser = tmp_path / "agent.db", random.Random(7)
    positions = [build_position(driver, number) for number in (1, 2, 3)]

    def save(acknowledge: Callable[[int], None]) -> None:
        async def write(store: Store) -> None:
            while True:
                for number, position in enumerate(positions, start=1):
                    await store.save(SaveOutbox(hash_message(bytes((number,))), Round(number), bytes((number,))))
                    await store.save(SaveWork(build_work(driver, number)))
                    await store.save(position)
                    acknowledge(number)

        visit(path, driver, write)

    for _ in range(KILLS):
        last = kill_after(chooser.randrange(5), save)
        stored = load(path, driver)
        if last is None:
            continue
        following = last % 3 + 1
        assert stored.light.model_round in (last, following)
        assert stored.work is not None and stored.work.round in (last, following)
        assert hash_message(bytes((last,))) in stored.outbox
        assert (stored.residual == get_residual(stored.light.model_round)).all()
        assert stored.light.height == Height(get_settle_height(stored.light.model_round))
