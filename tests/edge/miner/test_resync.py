"""`resync`: a damaged ledger keeps what checks and what the miner has said, and the miner never contradicts itself."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError
from flchain.base.types import Height
from flchain.wire.envelope import decode, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import Vote
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.mqtt.seam import FakeLink
from flchain_edge.process.event_loop import EventQueue
from flchain_edge.storage.database_files import refuse_if_open
from miner.core.machine import build_miner_state
from miner.core.tip import Standing
from miner.core.values import Connected, Event, MinerConfig, PacketReceived, SaveVote, Timer, TimerFired
from miner.edge.ledger import resync as ledger_resync
from miner.edge.ledger.file import LedgerFile
from miner.edge.ledger.ledger import Ledger, StoredBlock, get_resynced_path
from miner.edge.ledger.resync import Resynced, VotesLost, resync_ledger
from miner.edge.scorer import ConstantScorer
from miner.runner import MinerRunner
from tests.support.builders.chain import Driver, build_chain
from tests.support.builders.ledger import change, drive, flip, get_row, read_rows, write_ledger
from tests.support.crash import kill_after
from tools.inspect.audit import audit_file

ME = 0
BAD = 7


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(3)


@pytest.fixture
def path(driver: Driver, tmp_path: Path) -> Path:
    """A ledger of 13 blocks whose miner has voted at height 14."""
    path = tmp_path / "data" / "ledger.db"
    write_ledger(path, driver)
    with_ledger(path, driver, lambda ledger: ledger.save(SaveVote(Height(14), get_vote(driver), driver.blocks[-1])))
    return path


def get_vote(driver: Driver, number: int = ME) -> bytes:
    return seal(Vote(14, 0, 1, None), driver.chain.id, driver.chain.miners[number])


def with_ledger(path: Path, driver: Driver, do: Callable[[Ledger], object]) -> list[object]:
    """Open the ledger as a miner does, and give what the calls of `do` give."""

    async def scenario() -> list[object]:
        ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
        try:
            result: object = do(ledger)
            return [await result] if asyncio.iscoroutine(result) else []
        finally:
            await ledger.close()

    return asyncio.run(scenario())


def damage_block(path: Path, driver: Driver, height: int = BAD) -> None:
    body = get_row(driver, height - 1).body
    change(path, "UPDATE blocks SET body = ? WHERE height = ?", flip(body, len(body) // 2), height)


def resync(path: Path, driver: Driver, accept: bool = False) -> Resynced | None:
    chain = driver.chain
    return resync_ledger(path, chain.genesis, chain.model, chain.miners[ME], accept)


def check_mended(path: Path, driver: Driver, kept: int) -> None:
    """The blocks that checked, all votes with their blocks, and silence up to where the miner had been."""
    assert read_rows(path) == [get_row(driver, index) for index in range(kept)]
    assert audit_file(path).state.head == driver.states[kept].head
    assert with_ledger(path, driver, lambda ledger: ledger.get_own(Height(14))) == [
        ((get_vote(driver),), (driver.blocks[-1],))
    ]
    assert with_ledger(path, driver, lambda ledger: ledger.get_silence()) == [13]


def test_blocks_up_to_the_fault_and_all_votes_are_kept(path: Path, driver: Driver) -> None:
    """The damaged ledger is moved aside as it was; the new one has six blocks, the votes, and silence up to 13."""
    damage_block(path, driver)
    before = path.read_bytes()
    done = resync(path, driver)
    assert done is not None and (done.kept, done.silent_until) == (BAD - 1, 13)
    assert f"height {BAD}: body" in done.faults[0]
    assert done.aside == path.with_name("ledger.db.damaged-1") and done.aside.read_bytes() == before
    check_mended(path, driver, BAD - 1)
    assert sorted(file.name for file in path.parent.iterdir()) == ["ledger.db", "ledger.db.damaged-1"]


def test_a_second_resync_remembers_the_silence_of_the_first(path: Path, driver: Driver) -> None:
    """Damaged again before it has caught up, the miner is still silent up to where it had first been."""
    damage_block(path, driver)
    resync(path, driver)
    damage_block(path, driver, 3)
    done = resync(path, driver)
    assert done is not None and done.aside is not None and done.aside.name == "ledger.db.damaged-2"
    check_mended(path, driver, 2)


def test_a_sound_ledger_is_left_alone(path: Path, driver: Driver) -> None:
    """Without a fault nothing is moved."""
    before = path.read_bytes()
    assert resync(path, driver) is None
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_missing_block_is_a_fault(path: Path, driver: Driver) -> None:
    """A gap is damage though every block that is there checks."""
    change(path, "DELETE FROM blocks WHERE height = 5")
    done = resync(path, driver)
    assert done is not None and "height 5: the block is missing" in done.faults[0]
    check_mended(path, driver, 4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda driver: ("UPDATE own_messages SET raw = ?", flip(get_vote(driver), 100)),
        lambda driver: ("UPDATE own_messages SET raw = ?", get_vote(driver, 1)),
        lambda driver: ("UPDATE own_messages SET raw = CAST(raw AS TEXT)",),
        lambda driver: ("UPDATE own_messages SET height = ?", 15),
        lambda driver: ("UPDATE own_blocks SET body = ?", flip(driver.blocks[-1].body_bytes, 3)),
        lambda driver: ("UPDATE own_messages SET height = 'x'",),
        lambda driver: ("DROP TABLE own_messages",),
    ],
)
def test_without_readable_votes_it_refuses(
    path: Path, driver: Driver, damage: Callable[[Driver], tuple[str] | tuple[str, object]]
) -> None:
    """A vote that is damaged, another's, or of another height stops the resync, until the operator takes the blame."""
    sql, *values = damage(driver)
    change(path, sql, *values)
    with pytest.raises(VotesLost, match="--i-lost-my-votes"):
        resync(path, driver)
    assert list(path.parent.iterdir()) == [path]
    done = resync(path, driver, accept=True)
    assert done is not None and (done.kept, done.silent_until) == (13, 13)
    assert audit_file(path).state.head == driver.state.head
    assert with_ledger(path, driver, lambda ledger: ledger.get_own(Height(14))) == [((), ())]


@pytest.mark.parametrize(
    "damage", [lambda data: b"x" * 100 + data[100:], lambda data: data[: len(data) // 2], lambda _: b""]
)
def test_a_file_that_is_no_database_needs_the_operators_word(
    path: Path, driver: Driver, damage: Callable[[bytes], bytes]
) -> None:
    """Another start of the file, half of it, nothing: refused first, then mended with what was readable."""
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(VotesLost):
        resync(path, driver)
    done = resync(path, driver, accept=True)
    assert done is not None and done.aside is not None
    assert read_rows(path) == [get_row(driver, index) for index in range(done.kept)]


def test_random_damage_never_loses_a_vote_unseen(path: Path, driver: Driver, tmp_path: Path) -> None:
    """Whatever page is overwritten: nothing to do, refused, or mended with every vote and a prefix of the blocks."""
    chooser, original, mended, refused = random.Random(11), path.read_bytes(), 0, 0
    for run in range(25):
        damaged = tmp_path / str(run) / "ledger.db"
        damaged.parent.mkdir()
        place = chooser.randrange(len(original) // 512) * 512
        damaged.write_bytes(original[:place] + chooser.randbytes(512) + original[place + 512 :])
        try:
            done = resync(damaged, driver)
        except VotesLost:
            refused += 1
            continue
        if done is not None:
            mended += 1
            check_mended(damaged, driver, done.kept)
    assert mended > 5 and refused > 0


def test_a_crash_at_any_step_is_finished_by_the_next(
    path: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off before any rename, no miner starts on an empty ledger in between, and a second resync ends it."""
    damage_block(path, driver)
    for step in ("move_aside", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"miner.edge.ledger.resync.{step}", _crash)
            with pytest.raises(KeyboardInterrupt):
                resync(path, driver)
        with pytest.raises(ConfigError, match="interrupted"):
            with_ledger(path, driver, lambda ledger: None)
    assert not path.exists() and get_resynced_path(path).exists()
    done = resync(path, driver)
    assert done is not None and done.aside is None
    check_mended(path, driver, BAD - 1)


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


def test_kill_9_in_the_middle(path: Path, driver: Driver) -> None:
    """Killed at random points while it writes, a resync begun again ends with the votes."""
    damage_block(path, driver)
    original = ledger_resync._get

    def run(acknowledge: Callable[[int], None]) -> None:
        def get(damaged: LedgerFile, height: int) -> StoredBlock:
            acknowledge(height)
            return original(damaged, height)

        ledger_resync._get = get
        resync(path, driver)  # in a fork of its own

    for count in (0, 1, 3, 6):
        kill_after(count, run)
    done = resync(path, driver)
    assert done is None or done.kept == BAD - 1
    check_mended(path, driver, BAD - 1)


def list_kinds(link: FakeLink) -> list[Kind]:
    """What kinds of messages the miner has published; STATUS stands for a packet that is no message."""
    kinds = []
    for published in link.published:
        packet = decode_packet(published.payload)
        is_message = packet.type in (PacketType.MESSAGE, PacketType.PROPOSAL)
        kinds.append(Kind(decode(decode(packet.fields[0], 10**6).value[2], 10**6)[0]) if is_message else Kind.STATUS)
    return kinds


def test_a_resynced_miner_signs_nothing_until_it_has_caught_up(path: Path, driver: Driver) -> None:
    """Offered votes, timers and peers' blocks it only asks; at height 13 it stands as it stood before the damage."""
    damage_block(path, driver)
    resync(path, driver)
    chain, link, queue = driver.chain, FakeLink(), EventQueue[Event]()
    topics, peer = Topics.of_chain(chain.id), chain.miners[1]

    async def scenario() -> None:
        ledger = await Ledger.open(path, chain.genesis, chain.model)
        state = build_miner_state(
            MinerConfig(chain.miners[ME]), Standing(driver.states[BAD - 1]), *await ledger.get_own(Height(BAD))
        )
        runner = MinerRunner(
            state,
            ledger,
            link,
            ConstantScorer(5_000),
            queue,
            silent_until=await ledger.get_silence(),
        )
        vote = seal(Vote(BAD, 0, 1, driver.blocks[BAD - 1].hash), chain.id, peer)
        head = encode_packet(PacketType.HEAD, driver.blocks[-1].header_bytes, driver.certificates[-1], b"")
        for event in (
            Connected(),
            PacketReceived(topics.miner_bft(peer.address), encode_packet(PacketType.MESSAGE, vote)),
            PacketReceived("nonsense", b""),
            TimerFired(Timer.PATIENCE),
            TimerFired(Timer.GOSSIP),
            PacketReceived(topics.miner_head(peer.address), head),
            TimerFired(Timer.ASK),
        ):
            await runner._process(event)
        assert list_kinds(link) == [Kind.ASK]
        assert not runner._state.bft.is_started, "nor does it count others' votes, and so decides nothing"
        for index in range(BAD - 1, 13):
            row = get_row(driver, index)
            packet = encode_packet(PacketType.BLOCK, row.header, row.certificate, row.body)
            await runner._process(PacketReceived(topics.miner_to(peer.address, chain.miners[ME].address), packet))
        assert list_kinds(link) == [Kind.ASK], "blocks alone do not make it speak"
        assert runner._state.chain.height == 13
        assert get_vote(driver) in runner._state.height_log.by_bytes, "what it has said at 14 is with it again"
        assert await queue.get() == Connected()
        await runner._process(Connected())
        packet = encode_packet(PacketType.MESSAGE, get_vote(driver, 1))
        await runner._process(PacketReceived(topics.miner_bft(peer.address), packet))
        await runner._process(TimerFired(Timer.GOSSIP))
        assert Kind.VOTE in list_kinds(link), "it takes part again"
        queue.stop_timers()
        await ledger.close()

    asyncio.run(scenario())
    assert audit_file(path).state.head == driver.state.head


def test_another_chains_ledger_is_not_touched(path: Path, driver: Driver) -> None:
    """With the wrong genesis file nothing is mended away."""
    damage_block(path, driver)
    with pytest.raises(ConfigError, match="another chain"):
        resync(path, drive(0, seed=2))
    assert list(path.parent.iterdir()) == [path]


def test_a_miner_that_decides_alone_cannot_fetch(tmp_path: Path) -> None:
    """With more than two thirds of the power nobody else has its blocks for sure: a shorter history is not begun."""
    driver = Driver(build_chain(miners=1))
    driver.run_round()
    path = tmp_path / "ledger.db"
    write_ledger(path, driver)
    damage_block(path, driver, 3)
    with pytest.raises(ConfigError, match="decides alone"):
        resync(path, driver)


def test_a_running_miners_ledger_is_refused(path: Path, driver: Driver) -> None:
    """A database that another process has open is left alone, and free again when that process ends."""
    refused = []

    def hold(acknowledge: Callable[[int], None]) -> None:
        async def scenario() -> None:
            ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
            await ledger.get_tip()
            acknowledge(1)
            await asyncio.sleep(3600)

        asyncio.run(scenario())

    def check() -> None:
        try:
            refuse_if_open(path)
        except ConfigError as error:
            refused.append(str(error))

    kill_after(1, hold, before_kill=check)
    assert len(refused) == 1 and "another program has it open" in refused[0]
    refuse_if_open(path)


def test_ledgers_from_before_are_read_and_mended(path: Path, driver: Driver) -> None:
    """A ledger of the first schema passes the audit as it is, and a resync of it knows no silence yet."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TABLE silence")
        db.execute("PRAGMA user_version = 1")
    old = Path(shutil.copy(path, path.with_name("old.db")))
    assert audit_file(old).state.head == driver.state.head
    damage_block(path, driver)
    resync(path, driver)
    check_mended(path, driver, BAD - 1)
