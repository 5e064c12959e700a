"""The ring of samples: batches, bounds, wrong clocks, kill -9, a full disk, a damaged file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from agent.edge.data import sample_ring
from agent.edge.data.ring_reader import list_channels, open_ring, read_boots, read_channels
from agent.edge.data.sample_ring import SampleRing
from agent.edge.data.settings import RING_FILE, SampleSettings
from agent.edge.sensors.source import Clock
from flchain.base.errors import ConfigError
from flchain_edge.storage.sqlite import StoreFull
from tests.support.builders.ring import SECOND, WALL_US, FakeTime, fill_ring, make_sample

DAY_S = 86_400


@contextlib.asynccontextmanager
async def opened(folder: Path, time: FakeTime, settings: SampleSettings | None = None) -> AsyncIterator[SampleRing]:
    ring = await SampleRing.open(folder / RING_FILE, settings or SampleSettings(), time.moment)
    try:
        yield ring
    finally:
        await ring.close()


def read_times(folder: Path, channel: str = "imu.a") -> dict[int, list[int]]:
    with open_ring(folder / RING_FILE) as db:
        content = read_channels(db, [channel])
    return {number: found[channel].times_us.tolist() for number, found in content.series.items() if channel in found}


def test_what_is_flushed_can_be_read_with_units_and_sources(tmp_path: Path) -> None:
    """Sources and sets of channels stay apart; positions keep their digits, measurements those of float32."""
    t0 = 1000 * SECOND
    samples = [
        make_sample(t0 + 2, "gps", {"lat": 48.123456789}, "deg"),
        make_sample(t0, "imu", {"a": 1.5, "b": -2.0}, "m/s2"),
        make_sample(t0 + 5, "imu", {"a": 2.5, "b": -3.0}, "m/s2"),
        make_sample(t0 + 3, "imu", {"a": 2.0}, "m/s2"),
    ]
    fill_ring(tmp_path, samples)
    with open_ring(tmp_path / RING_FILE) as db:
        assert list_channels(db) == ["gps.lat", "imu.a", "imu.b"]
        content = read_channels(db, ["gps.lat", "imu.a"])
    assert content.series[1]["gps.lat"].values.tolist() == [48.123456789]
    assert content.series[1]["imu.a"].times_us.tolist() == [t0, t0 + 3, t0 + 5]
    assert content.series[1]["imu.a"].values.tolist() == [1.5, 2.0, 2.5]
    assert content.units == {"gps.lat": "deg", "imu.a": "m/s2"}


def test_retention_by_samples_and_bytes_drops_the_oldest(tmp_path: Path) -> None:
    """However much comes, the ring holds the newest up to its bounds, and counts what it holds."""

    async def scenario() -> None:
        time = FakeTime()
        async with opened(tmp_path, time, SampleSettings(rows_max=1000)) as ring:
            for _ in range(12):
                for n in range(200):
                    ring.add(make_sample(time.now_us + n * 10_000, "imu", {"a": float(n)}))
                time = time.after(2)
                assert await ring.flush(time.moment)
            assert ring.rows == 1000
        async with opened(tmp_path, time, SampleSettings(rows_max=10**6, megabytes_max=0.0005)) as ring:
            assert ring.rows == 1000
            assert await ring.flush(time.moment)
            assert ring.rows < 1000

    asyncio.run(scenario())
    times = read_times(tmp_path)[1]
    assert times[-1] == 1000 * SECOND + 11 * 2 * SECOND + 199 * 10_000


def test_retention_by_age_in_one_boot(tmp_path: Path) -> None:
    """Samples older than the limit go at the next flush."""

    async def scenario() -> None:
        time = FakeTime()
        async with opened(tmp_path, time, SampleSettings(age_max_days=1)) as ring:
            for _ in range(5):
                ring.add(make_sample(time.now_us, "imu", {"a": 0.0}))
                assert await ring.flush(time.moment)
                time = time.after(0.4 * DAY_S)

    asyncio.run(scenario())
    assert read_times(tmp_path)[1] == [(1000 + round(0.4 * DAY_S) * n) * SECOND for n in (2, 3, 4)]


@pytest.mark.parametrize("wrong_by_days", [-20_000, 50_000])
def test_a_clock_wrong_at_boot_destroys_nothing(tmp_path: Path, wrong_by_days: int) -> None:
    """A boot in 1970 or in 2160 drops no sample for its age; once a server has set the clock, real age counts again."""
    limits = SampleSettings(age_max_days=10)
    first = FakeTime()
    fill_ring(tmp_path, [make_sample(first.now_us, "imu", {"a": 1.0})], first, limits)
    reboot = FakeTime("boot-b", 5 * SECOND, WALL_US + wrong_by_days * DAY_S * SECOND, False)

    async def scenario() -> None:
        async with opened(tmp_path, reboot, limits) as ring:
            ring.add(make_sample(6 * SECOND, "imu", {"a": 2.0}))
            assert await ring.flush(reboot.after(5).moment)
            assert ring.rows == 2
            # the server answers: it is 3 days later, then 11
            set_right = FakeTime("boot-b", 20 * SECOND, WALL_US + 3 * DAY_S * SECOND, True)
            assert await ring.flush(set_right.moment)
            assert ring.rows == 2
            assert ring.boot.to_wall(6 * SECOND) == WALL_US + (3 * DAY_S + 6) * SECOND
            later = FakeTime("boot-b", 8 * DAY_S * SECOND, WALL_US + 3 * DAY_S * SECOND, True)
            assert await ring.flush(later.moment)
            assert ring.rows == 1, "11 days later the first boot's sample is too old, the second's is not"

    asyncio.run(scenario())
    with open_ring(tmp_path / RING_FILE) as db:
        notes = [row[0] for row in db.execute("SELECT detail FROM notes WHERE kind = 'clock'")]
        assert len(read_boots(db)) == 2
    assert len(notes) == 1, "the jump is marked once"


def test_a_restart_of_the_agent_goes_on_in_the_same_boot(tmp_path: Path) -> None:
    """Another process of the same boot adds to the same series, and a source can learn where it stopped."""
    fill_ring(tmp_path, [make_sample(1000 * SECOND, "imu", {"a": 1.0})])

    async def scenario() -> None:
        async with opened(tmp_path, FakeTime().after(9)) as ring:
            assert await ring.get_newest_us() == {"imu": 1000 * SECOND}
            ring.add(make_sample(1008 * SECOND, "imu", {"a": 1.0}))
            await ring.flush(FakeTime().after(9).moment)
        async with opened(tmp_path, FakeTime("boot-b", 3 * SECOND)) as ring:
            assert await ring.get_newest_us() == {}

    asyncio.run(scenario())
    assert read_times(tmp_path) == {1: [1000 * SECOND, 1008 * SECOND]}


def test_a_full_disk_loses_the_oldest_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With no page left the oldest blocks make room; the ring goes on with the newest, and the log stays short."""

    async def scenario() -> tuple[int, int]:
        time = FakeTime()
        async with opened(tmp_path, time) as ring:
            await ring._db.execute("PRAGMA max_page_count = 25")
            values = np.random.default_rng(1).random((60, 500))
            for step in range(40):
                for n in range(500):
                    ring.add(make_sample(time.now_us + n * 1000, "imu", {"a": float(values[step, n])}))
                time = time.after(1)
                assert await ring.flush(time.moment), "the newest can always be written"
            return ring.dropped, time.now_us

    dropped, now_us = asyncio.run(scenario())
    times = read_times(tmp_path)[1]
    assert dropped > 1000
    assert len(times) + dropped == 40 * 500
    assert times[-1] == now_us - SECOND + 499 * 1000
    said = [record.message for record in caplog.records if "the oldest samples are dropped" in record.message]
    assert len(said) == 1


FULL_DISK = """
import asyncio, sys
import numpy as np
from pathlib import Path
from agent.edge.data.settings import RING_FILE, SampleSettings
from agent.edge.data.sample_ring import SampleRing
from tests.support.builders.ring import FakeTime, make_sample

async def main():
    time, values, flushed = FakeTime(), np.random.default_rng(0).random(2000), 0
    ring = await SampleRing.open(Path(sys.argv[1]) / RING_FILE, SampleSettings(), time.moment)
    for _ in range(40):
        for n, value in enumerate(values):
            ring.add(make_sample(time.now_us + n, "imu", {"a": float(value), "b": 1 / float(value)}))
        time = time.after(1)
        flushed += await ring.flush(time.moment)
    print(flushed, ring.rows, ring.dropped, ring.waiting)
    await ring.close()

asyncio.run(main())
"""


def test_a_disk_without_one_free_byte_takes_the_newest(tmp_path: Path) -> None:
    """On a file system of 1 MB, filled to the end, every flush still comes through, and a new start does as well."""
    script = f'mount -t tmpfs -o size=1000k tmpfs "$1" && for n in 1 2; do {sys.executable} -c "$2" "$1"; done'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path), FULL_DISK]
    if shutil.which("unshare") is None or subprocess.run([*command[:3], "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount in a name space of his own")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    results = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(results) == 2, done.stderr
    for flushed, rows, dropped, waiting in results:
        assert (flushed, waiting) == (40, 0)
        assert rows > 10_000
        assert dropped > 10_000


def test_a_disk_that_takes_nothing_costs_the_oldest_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples wait in bounded memory and are written when the disk is there again; both are said once."""
    monkeypatch.setattr(sample_ring, "BUFFERED_SAMPLES_MAX", 100)
    caplog.set_level("INFO")

    async def scenario() -> None:
        time = FakeTime()
        async with opened(tmp_path, time) as ring:

            def full(db: object) -> object:
                raise StoreFull("no room")

            monkeypatch.setattr(sample_ring, "transaction", full)
            for n in range(250):
                ring.add(make_sample(time.now_us + n, "imu", {"a": float(n)}))
                if n % 50 == 0:
                    assert not await ring.flush(time.moment)
            assert (ring.waiting, ring.dropped) == (100, 150)
            monkeypatch.undo()
            assert await ring.flush(time.moment)
            assert (ring.waiting, ring.rows) == (0, 100)

    asyncio.run(scenario())
    assert read_times(tmp_path)[1] == [1000 * SECOND + n for n in range(150, 250)]
    texts = [record.message for record in caplog.records]
    assert sum("cannot be written" in text for text in texts) == 1
    assert sum("can be written again" in text for text in texts) == 1


def test_a_peer_that_invents_names_fills_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond STREAMS_MAX sets of channels samples are dropped and counted; those known before are kept."""
    monkeypatch.setattr(sample_ring, "STREAMS_MAX", 5)

    async def scenario() -> None:
        async with opened(tmp_path, FakeTime()) as ring:
            for n in range(20):
                ring.add(make_sample(1000 * SECOND + n, "x", {f"c{n}": 1.0}))
            assert await ring.flush(FakeTime().moment)
            assert (ring.rows, ring.dropped) == (5, 15)

    asyncio.run(scenario())


WRITER = """
import asyncio, sys
from pathlib import Path
from agent.edge.data.settings import RING_FILE, SampleSettings
from agent.edge.data.sample_ring import SampleRing
from tests.support.builders.ring import FakeTime, make_sample

async def main():
    time = FakeTime()
    ring = await SampleRing.open(Path(sys.argv[1]) / RING_FILE, SampleSettings(), time.moment)
    count = 0
    while True:
        for n in range(100):
            ring.add(make_sample(time.now_us + n * 1000, "imu", {"a": float(count), "b": 1.0}))
            count += 1
        time = time.after(1)
        await ring.flush(time.moment)
        print(count, flush=True)

asyncio.run(main())
"""


def test_kill_9_keeps_what_was_flushed(tmp_path: Path) -> None:
    """Killed in the midst of writing, again and again, the ring opens and holds all that a flush has confirmed."""
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert process.stdout is not None
        confirmed = [int(process.stdout.readline()) for _ in range(3 + 7 * attempt)]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with open_ring(folder / RING_FILE) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(read_times(folder)[1]) >= confirmed[-1]
        fill_ring(folder, [make_sample(5000 * SECOND, "imu", {"a": 0.0})], FakeTime().after(5000))


def test_a_flush_that_was_cut_in_half_is_taken_back_by_whoever_reads(tmp_path: Path) -> None:
    """Files as a kill leaves them in the midst of a transaction: a reader finds the state before, without the agent."""
    fill_ring(tmp_path, [make_sample(1000 * SECOND, "imu", {"a": 1.0})])
    left = tmp_path / "left"
    left.mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / RING_FILE, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = PERSIST; PRAGMA cache_size = 2; BEGIN IMMEDIATE")
        for _ in range(50):
            db.execute(
                "INSERT INTO blocks (stream, boot, first_us, last_us, samples, bytes, data) "
                "SELECT stream, boot, first_us, last_us, samples, bytes, zeroblob(9000) FROM blocks WHERE id = 1"
            )
        db.execute("UPDATE blocks SET data = x'00'")
        for name in (RING_FILE, f"{RING_FILE}-journal"):
            shutil.copyfile(tmp_path / name, left / name)
        db.execute("ROLLBACK")
    with (
        pytest.raises(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{left / RING_FILE}?mode=ro", uri=True)) as db,
    ):
        db.execute("SELECT 1 FROM blocks")
    assert read_times(left) == {1: [1000 * SECOND]}


def test_a_damaged_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Samples are replaced by new ones; the damaged file is kept once, and the agent starts."""
    path = tmp_path / RING_FILE
    for _ in range(3):
        path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
        fill_ring(tmp_path, [make_sample(1000 * SECOND, "imu", {"a": 0.0})])
        assert read_times(tmp_path) == {1: [1000 * SECOND]}
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_one_damaged_block_costs_itself_only(tmp_path: Path) -> None:
    """A block whose bytes were changed is left out and counted."""
    for start in (1000, 1001):
        fill_ring(tmp_path, [make_sample(start * SECOND, "imu", {"a": 1.0})], FakeTime().after(start - 999))
    with contextlib.closing(sqlite3.connect(tmp_path / RING_FILE)) as db:
        db.execute("UPDATE blocks SET data = x'00ff' WHERE id = 1")
        db.commit()
    with open_ring(tmp_path / RING_FILE) as db:
        content = read_channels(db, ["imu.a"])
    assert content.damaged_blocks == 1
    assert content.series[1]["imu.a"].times_us.tolist() == [1001 * SECOND]


def test_reading_is_bounded_and_changes_nothing(tmp_path: Path) -> None:
    """The newest samples up to the bound are read; no statement of a reader can write."""
    for step in range(10):
        time = FakeTime().after(step)
        fill_ring(tmp_path, [make_sample(time.now_us + n, "imu", {"a": float(n)}) for n in range(100)], time)
    with open_ring(tmp_path / RING_FILE) as db:
        series = read_channels(db, ["imu.a"], samples_max=250).series[1]["imu.a"]
        assert len(series.times_us) == 300, "whole blocks"
        assert series.times_us[0] == FakeTime().after(7).now_us
        with pytest.raises(sqlite3.OperationalError):
            db.execute("DELETE FROM blocks")
    with pytest.raises(ConfigError, match="no such file yet"), open_ring(tmp_path / "none.db"):
        pass


def test_the_boot_clock_never_goes_back() -> None:
    """The real clock counts from power-on in microseconds."""
    clock = Clock()
    first = clock.read_us()
    assert 0 < first <= clock.read_us()
