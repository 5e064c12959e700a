"""The board as the runner sees it: readings, energy, profiles; and a sensor that hangs harms nothing but itself."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.edge.power import SOURCES
from agent.edge.power.board import Board
from agent.edge.power.files import ROOT_VARIABLE, BoardRoots, SensorFiles, read_board_roots
from agent.edge.power.profiles import INSTALLED_DIRS, choose_profile, load_profiles
from agent.edge.power.settings import PowerSettings
from agent.edge.power.source import Look
from agent.scheduling.energy import Energy, EnergySource, compute_energy
from agent.scheduling.readings import BoardReading
from flchain.base.errors import ConfigError
from tests.support.builders.board_trees import PROC, TREES, Tree, plant

SHIPPED = INSTALLED_DIRS[-1]


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def build_board(folder: Path, tree: Tree, clock: Clock | None = None, **changes: object) -> Board:
    plant(folder / "proc", PROC)
    plant(folder / "sys", tree)
    roots = BoardRoots(folder / "sys", folder / "proc")
    return Board(PowerSettings(boards_dir=SHIPPED), roots, clock=clock or Clock(), **changes)  # type: ignore[arg-type]


def set_busy(folder: Path, busy_ticks: int) -> None:
    plant(folder / "proc", {"stat": f"cpu  {busy_ticks} 0 0 90000 300 0 0 0 0 0\n"})


def test_readings_of_a_measured_board(tmp_path: Path) -> None:
    """A Jetson's rails give watts at once, and joules between two readings."""

    async def scenario() -> None:
        clock = Clock()
        board = build_board(tmp_path, TREES["jetson-nano"], clock)
        reading = await board.read()
        assert reading == BoardReading(free_memory_bytes=2_048_000 * 1024, temperature_c=41.5, power_w=1.75)
        before = board.snapshot()
        clock.now_s += 10
        await board.read()
        assert compute_energy(before, board.snapshot()) == Energy(17.5, EnergySource.MEASURED)

    asyncio.run(scenario())


def test_readings_of_an_estimated_board(tmp_path: Path) -> None:
    """A Pi 4 has no meter: its profile estimates, and the reading says so; without a profile nothing is told."""

    async def scenario() -> None:
        clock = Clock()
        board = build_board(tmp_path, TREES["rpi-4"], clock)
        assert board.profile is not None and board.profile.name == "rpi-4"
        set_busy(tmp_path, 0)
        first = await board.read()
        assert first.power_w is None, "nobody knows yet how busy it is"
        before = board.snapshot()
        clock.now_s += 10
        set_busy(tmp_path, 20 * os.sysconf("SC_CLK_TCK"))
        reading = await board.read()
        assert reading.power_w == pytest.approx(2.7 + 2 * 0.93) and reading.is_power_estimated
        energy = compute_energy(before, board.snapshot())
        assert energy.source is EnergySource.ESTIMATED and energy.joules == pytest.approx(45.6)
        board.profile = None
        clock.now_s += 10
        reading = await board.read()
        assert reading.power_w is None and not reading.is_power_estimated

    asyncio.run(scenario())


def test_a_counter_gives_power(tmp_path: Path) -> None:
    """RAPL alone: watts are the counter's growth since the last reading; on battery its gauge measures more."""

    async def scenario() -> None:
        clock = Clock()
        tree = {name: text for name, text in TREES["laptop"].items() if "power_supply" not in name}
        board = build_board(tmp_path, tree, clock)
        await board.read()
        clock.now_s += 5
        plant(tmp_path / "sys", {"class/powercap/intel-rapl:0:2/energy_uj": "41000000"})
        reading = await board.read()
        assert reading.power_w == pytest.approx(8.0) and not reading.is_power_estimated
        plant(tmp_path / "sys", {name: text for name, text in TREES["laptop"].items() if "power_supply" in name})
        board._looks = 0  # time to look for sensors again
        clock.now_s += 5
        assert (await board.read()).power_w == pytest.approx(16.751)

    asyncio.run(scenario())


class Hanging:
    """A source whose read blocks until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.returned = threading.Event()

    def find(self) -> bool:
        return True

    def read(self) -> Look:
        self.release.wait()
        self.returned.set()
        return Look(power_w=9.0)


async def until(is_true: Callable[[], bool]) -> None:
    while not is_true():
        await asyncio.sleep(0.001)


def test_a_source_that_hangs_keeps_nothing_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on, the other sensors are read, no second thread hangs behind the first; it is said once.

    When the sensor comes back it is read again.
    """

    async def scenario() -> None:
        source = Hanging()
        sources = {"rapl": SOURCES["rapl"], "hwmon": lambda files, chip: source, "thermal": SOURCES["thermal"]}
        board = build_board(tmp_path, TREES["rpi-4"], sources=sources, source_timeout_s=1.0)
        others = set(threading.enumerate())
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        for _ in range(5):
            reading = await board.read()
            assert (reading.temperature_c, reading.power_w) == (48.686, None)
        ticking.cancel()
        assert ticks > 10
        await until(lambda: len(set(threading.enumerate()) - others) == 1)
        source.release.set()
        await until(lambda: not board._stuck)
        reading = await board.read()
        assert reading.power_w == 9.0
        await until(lambda: not set(threading.enumerate()) - others)

    asyncio.run(scenario())
    assert len([record for record in caplog.records if "no answer in" in str(getattr(record, "cause", ""))]) == 1


def test_a_round_does_not_wait_for_a_sensor(tmp_path: Path) -> None:
    """Who refreshes the meter gets its new state, or the last one while a sensor hangs; that reading goes on."""

    async def scenario() -> None:
        source, clock = Hanging(), Clock()
        source.release.set()
        sources = {"hwmon": lambda files, chip: source}
        board = build_board(tmp_path, TREES["rpi-4"], clock, sources=sources, source_timeout_s=30.0)
        await board.read()
        clock.now_s += 5
        assert (await board.refresh()).last == board.snapshot().last
        assert board.snapshot().seconds == {EnergySource.MEASURED: 5.0}
        clock.now_s += 5
        source.release.clear()
        before = board.snapshot()
        assert await board.refresh() == before
        source.release.set()
        await until(lambda: board.snapshot().seconds == {EnergySource.MEASURED: 10.0})

    asyncio.run(scenario())


def test_a_file_that_hangs(tmp_path: Path) -> None:
    """The same with a real file that no open returns from, as I2C drivers have them: a pipe without a writer."""

    async def scenario() -> None:
        board = build_board(tmp_path, TREES["rpi-4-ina219"], source_timeout_s=1.0)
        pipe = tmp_path / "sys/class/hwmon/hwmon2/power1_input"
        pipe.unlink()
        os.mkfifo(pipe)
        for _ in range(2):
            reading = await board.read()
            assert (reading.temperature_c, reading.power_w, reading.is_throttled) == (48.686, None, False)
        with pipe.open("w") as writer:
            writer.write("5000000\n")
        await until(lambda: not board._stuck)

    asyncio.run(scenario())


def test_a_source_that_raises_is_unmeasured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one source costs its own sensors, and is said."""

    class Broken(Hanging):
        def read(self) -> Look:
            raise ZeroDivisionError("oops")

    async def scenario() -> None:
        sources = {"hwmon": lambda files, chip: Broken(), "thermal": SOURCES["thermal"]}
        board = build_board(tmp_path, TREES["rpi-4"], sources=sources)
        for _ in range(3):
            assert (await board.read()).temperature_c == 48.686

    asyncio.run(scenario())
    assert [getattr(record, "cause", "") for record in caplog.records].count("ZeroDivisionError: oops") == 1


def test_what_is_plugged_in_later_is_found(tmp_path: Path) -> None:
    """Sensors are looked for again from time to time; between, what is gone is unmeasured."""

    async def scenario() -> None:
        board = build_board(tmp_path, TREES["rpi-4"])
        assert (await board.read()).power_w is None
        plant(tmp_path / "sys", TREES["rpi-4-ina219"])
        board._looks = 60
        assert (await board.read()).power_w == 3.32
        for path in (tmp_path / "sys/class/hwmon/hwmon2").iterdir():
            path.unlink()
        reading = await board.read()
        assert reading.power_w is None and reading.temperature_c == 48.686

    asyncio.run(scenario())


def test_sensors_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often the board is read: which sensors there are, and how power comes about."""
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        plant(tmp_path / "proc", PROC)
        plant(tmp_path / "sys", TREES["jetson-nano"])
        board = Board(PowerSettings(boards_dir=SHIPPED), BoardRoots(tmp_path / "sys", tmp_path / "proc"))
        for _ in range(4):
            await board.read()
        assert sum(board.snapshot().seconds.values()) > 0

    asyncio.run(scenario())
    (record,) = [record for record in caplog.records if record.message == "power and heat"]
    assert (record.__dict__["sensors"], record.__dict__["power"]) == ("thermal, jetson-iio", "measured")


def test_a_board_without_anything(tmp_path: Path) -> None:
    """No sysfs at all, as in a container: everything is unmeasured, nothing is raised, memory is the machine's."""

    async def scenario() -> None:
        settings = PowerSettings(boards_dir=SHIPPED, board="rpi-5")
        reading = await Board(settings, BoardRoots(tmp_path / "no", tmp_path / "no")).read()
        assert reading == BoardReading(free_memory_bytes=reading.free_memory_bytes) and reading.free_memory_bytes > 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("tree", "machine", "wanted"),
    [
        ("rpi-4", "aarch64", "rpi-4"),
        ("rpi-5", "aarch64", "rpi-5"),
        ("jetson-nano", "aarch64", "jetson-nano"),
        ("orin-nano", "aarch64", "jetson-orin-nano"),
        ("laptop", "x86_64", "x86-64"),
        ("laptop", "riscv64", None),
    ],
)
def test_a_board_knows_its_profile(tmp_path: Path, tree: str, machine: str, wanted: str | None) -> None:
    """`auto` goes by the device tree's model, and by the machine only where there is none."""
    files = SensorFiles(BoardRoots(plant(tmp_path, TREES[tree]), tmp_path))
    profile = choose_profile(PowerSettings(boards_dir=SHIPPED), files, machine)
    assert (profile.name if profile else None) == wanted


def test_an_operators_own_profile_counts_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the first folder wins over a shipped one for the same board; the others' boards stay known."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.toml").write_text(
        'name="Mine"\nmodels=["Raspberry Pi 4 Model B"]\nidle_w=4.1\ncore_w=0.9\ncores=4\nsource="a meter"\n'
    )
    monkeypatch.setattr("agent.edge.power.profiles.INSTALLED_DIRS", (own, tmp_path / "none", SHIPPED))
    for tree, wanted in (("rpi-4", "mine"), ("rpi-5", "rpi-5")):
        files = SensorFiles(BoardRoots(plant(tmp_path / tree, TREES[tree]), tmp_path))
        profile = choose_profile(PowerSettings(), files, "aarch64")
        assert profile is not None and profile.name == wanted


def iterate_shipped() -> Iterator[tuple[str, str]]:
    for name, file in load_profiles(SHIPPED).items():
        for model in file.models:
            yield name, model


def test_the_shipped_profiles(tmp_path: Path) -> None:
    """Every shipped profile loads, says where its numbers are from, and is chosen for the boards that it names."""
    shipped = load_profiles(SHIPPED)
    wanted = {"rpi-3b-plus", "rpi-4", "rpi-5", "rpi-zero-2-w", "jetson-nano", "jetson-orin-nano", "x86-64"}
    assert wanted <= set(shipped)
    assert all(file.profile.source for file in shipped.values())
    for name, model in iterate_shipped():
        plant(tmp_path, {"firmware/devicetree/base/model": f"{model} Rev 1.3\0"})
        profile = choose_profile(
            PowerSettings(boards_dir=SHIPPED), SensorFiles(BoardRoots(tmp_path, tmp_path)), "aarch64"
        )
        assert profile is not None and profile.name == name, model


def test_wrong_profiles_are_told_all_at_once(tmp_path: Path) -> None:
    """Every problem of every file comes in one ConfigError; an unknown name lists the known ones."""
    (tmp_path / "a.toml").write_text('name = 7\nidle_w = "2"\ncore_w = -1\ncores = 4.5\nwatt = 3\n')
    (tmp_path / "b.toml").write_text("no toml")
    (tmp_path / "c.toml").write_text('name="c"\nmachine="m"\nidle_w=1\ncore_w=1.5\ncores=true\nsource="rough"\n')
    files = SensorFiles(BoardRoots(tmp_path, tmp_path))
    with pytest.raises(ConfigError) as caught:
        choose_profile(PowerSettings(boards_dir=tmp_path), files, "m")
    text = str(caught.value)
    for part in (
        "unknown key 'watt'",
        "name must be a text",
        "idle_w must be a number",
        "core_w is not between",
        "cores must be a whole number",
        "source is missing",
        "neither models nor machine",
        "b.toml",
        "c.toml",
    ):
        assert part in text, part
    with pytest.raises(ConfigError, match=r"there is no profile 'pi'; .*rpi-4, rpi-5"):
        choose_profile(PowerSettings(boards_dir=SHIPPED, board="pi"), files, "m")
    with pytest.raises(ConfigError, match="no such folder"):
        choose_profile(PowerSettings(boards_dir=tmp_path / "none"), files, "m")


def test_a_board_of_a_test_is_no_key_of_the_operators_file(tmp_path: Path) -> None:
    """Where the kernel shows the board is asked of the environment; the settings have no key for it."""
    assert read_board_roots({}) == BoardRoots(Path("/sys"), Path("/proc"))
    assert read_board_roots({ROOT_VARIABLE: str(tmp_path)}) == BoardRoots(tmp_path / "sys", tmp_path / "proc")
    assert not [name for name in PowerSettings.__dataclass_fields__ if "root" in name]
