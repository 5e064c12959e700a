"""What boards say of power and heat, on trees of real boards; and that no fault of a file becomes a figure."""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.edge.power import SOURCES
from agent.edge.power.board import merge
from agent.edge.power.files import FILE_BYTES_MAX, BoardRoots, SensorFiles, read_file
from agent.edge.power.raspberry import RaspberryFlags
from agent.edge.power.source import Look
from tests.support.builders.board_trees import LAPTOP, RPI_4, RPI_5, RPI_FIRMWARE, TREES, Tree, plant

UEVENT = "class/power_supply/BAT0/uevent"


class FakeBoard:
    """All sources on one tree, read without threads. `faults` of a file come instead of its bytes."""

    def __init__(self, folder: Path, tree: Tree, board_chip: str = "") -> None:
        self.root = plant(folder, tree)
        self.faults: dict[str, OSError | bytes] = {}
        self.read_names: set[str] = set()
        self._board_chip = board_chip
        self.start()

    def start(self) -> None:
        """A new process on the same board."""
        files = SensorFiles(BoardRoots(self.root, self.root / "no-proc"), self._read)
        self._sources = {name: build(files, self._board_chip) for name, build in SOURCES.items()}

    def _read(self, path: Path) -> bytes:
        name = str(path.relative_to(self.root))
        self.read_names.add(name)
        fault = self.faults.get(name)
        if isinstance(fault, OSError):
            raise fault
        return read_file(path) if fault is None else fault

    def look(self, is_find: bool = True) -> Look:
        return merge({name: source.read() for name, source in self._sources.items() if not is_find or source.find()})

    def change(self, **tree: str) -> None:
        plant(self.root, tree)


def find_warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return [(str(getattr(record, "file", "")), str(getattr(record, "cause", ""))) for record in records]


EXPECTED = {
    "rpi-4": Look(temperature_c=48.686, is_throttled=False, is_undervolted=False),
    "rpi-4-ina219": Look(temperature_c=48.686, is_throttled=False, is_undervolted=False, power_w=3.32),
    "rpi-5": Look(temperature_c=52.35, is_undervolted=True),
    "jetson-nano": Look(temperature_c=41.5, power_w=1.75),
    "orin-nano": Look(temperature_c=50.781, power_w=5.056 * 0.944),
    "laptop": Look(
        temperature_c=54.0,
        is_on_battery=True,
        battery_fraction=0.93,
        battery_wh=70.15,
        power_w=16.751,
        coarse_j=0.0,
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_a_board_is_read(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each board gives what its sensors say, in whole units; what it lacks is None, and nothing is complained of."""
    board = FakeBoard(tmp_path, TREES[name])
    if name == "orin-nano":
        board.faults["class/thermal/thermal_zone2/temp"] = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    look, wanted = board.look(), EXPECTED[name]
    for part in ("temperature_c", "power_w", "battery_wh", "battery_fraction", "coarse_j", "counter_j"):
        assert getattr(look, part) == (None if getattr(wanted, part) is None else pytest.approx(getattr(wanted, part)))
    for part in ("is_throttled", "is_undervolted", "is_on_battery"):
        assert getattr(look, part) is getattr(wanted, part), part
    assert [file for file, _ in find_warnings(caplog)] == [
        str(tmp_path / "class/thermal/thermal_zone2/temp") for _ in range(name == "orin-nano")
    ]


FAULTS: dict[str, Callable[[], OSError | bytes]] = {
    "vanished": lambda: OSError(errno.ENOENT, os.strerror(errno.ENOENT)),
    "unplugged": lambda: OSError(errno.ENODEV, os.strerror(errno.ENODEV)),
    "i/o error": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "no data": lambda: OSError(errno.ENODATA, os.strerror(errno.ENODATA)),
    "switched off": lambda: OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
    "forbidden": lambda: OSError(errno.EACCES, os.strerror(errno.EACCES)),
    "a time-out": lambda: OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),
    "empty": lambda: b"",
    "garbage": lambda: b"\xff\x00zz garbage \x80",
    "negative": lambda: b"-6\n",
    "beyond all": lambda: b"99999999999999999999999\n",
}


def iterate_values(look: Look) -> Iterator[float]:
    for part in ("temperature_c", "power_w", "counter_j", "coarse_j", "battery_fraction", "battery_wh"):
        if (value := getattr(look, part)) is not None:
            yield value


@pytest.mark.parametrize("name", TREES)
def test_no_fault_becomes_a_figure(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Any file with any fault: no exception, no power of 0 or of a fantasy; and each fault is said at most once.

    The Jetson Nano's GPU rail really draws 0 W: that is not the board.
    """
    board = FakeBoard(tmp_path, TREES[name])
    whole_w = board.look().power_w
    allowed_w = (None,) if whole_w is None else (None, pytest.approx(whole_w))
    for file, (kind, make) in itertools.product(sorted(board.read_names), FAULTS.items()):
        caplog.clear()
        board.faults = {}
        board.start()
        board.look()
        board.faults = {file: make()}
        for is_find in (False, False, True):
            look = board.look(is_find)
            assert look.power_w in allowed_w, (file, kind)
            assert look.temperature_c is None or -60 <= look.temperature_c <= 150, (file, kind)
            assert look.battery_fraction is None or 0 <= look.battery_fraction <= 1, (file, kind)
            assert all(value >= 0 for value in iterate_values(look) if value != look.temperature_c), (file, kind)
        said = find_warnings(caplog)
        assert len(said) == len(set(said)), (file, kind, said)
        assert len([1 for said_of, _ in said if said_of.endswith(file)]) <= 1, (file, kind, said)


def test_frost_is_a_temperature(tmp_path: Path) -> None:
    """Minus 12.5 degrees in a field are measured, minus 6,000 are not."""
    board = FakeBoard(tmp_path, RPI_4)
    board.change(**{"class/thermal/thermal_zone0/temp": "-12500", "class/hwmon/hwmon0/temp1_input": "-6000000"})
    assert board.look().temperature_c == -12.5


def test_firmware_flags(tmp_path: Path) -> None:
    """Bits of now set flags, bits of the past do not; the alarm of rpi_volt knows of the voltage alone."""
    board = FakeBoard(tmp_path, RPI_4)
    for text, throttled, undervolted in (
        ("50000", False, False),
        ("0x50005", True, True),
        ("1", False, True),
        ("8", True, False),
        ("2", True, False),
    ):
        board.change(**{RPI_FIRMWARE: text})
        assert (board.look().is_throttled, board.look().is_undervolted) == (throttled, undervolted), text
    assert FakeBoard(tmp_path / "5", RPI_5).look().is_throttled is None


def test_the_kernel_holds_the_clock_down(tmp_path: Path) -> None:
    """A cooling device of the clock that is on means throttled; a fan does not."""
    board = FakeBoard(tmp_path, RPI_5)
    board.change(
        **{"class/thermal/cooling_device1/type": "cpufreq-cpu0", "class/thermal/cooling_device1/cur_state": "0"}
    )
    assert board.look().is_throttled is False
    board.change(**{"class/thermal/cooling_device1/cur_state": "2"})
    assert board.look().is_throttled is True


def test_the_command_is_the_last_resort(tmp_path: Path) -> None:
    """vcgencmd is asked only on a Raspberry Pi without either file, and its failures are unmeasured."""
    command, asked = tmp_path / "vcgencmd", tmp_path / "asked"
    command.write_text(f"#!/bin/sh\necho x >> {asked}\necho throttled=0x50001\n")
    command.chmod(0o755)
    bare = {name: text for name, text in RPI_4.items() if name != RPI_FIRMWARE and "hwmon1" not in name}
    for number, (tree, is_asked) in enumerate(((RPI_4, False), (LAPTOP, False), (bare, True))):
        root = plant(tmp_path / str(number), tree)
        source = RaspberryFlags(SensorFiles(BoardRoots(root, root)), command=str(command))
        assert source.find() is (is_asked or tree is RPI_4)
        if is_asked:
            assert source.read() == Look(is_throttled=False, is_undervolted=True)
        assert asked.exists() is is_asked
    for script in ("#!/bin/sh\nexit 1\n", "#!/bin/sh\necho nonsense\n", "no script"):
        command.write_text(script)
        assert source.read() == Look()


def test_several_meters_are_not_added(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two chips without names could be the board's and a solar panel's: unmeasured, until the operator names one."""
    tree = {
        **TREES["rpi-4-ina219"],
        "class/hwmon/hwmon5/name": "ina226",
        "class/hwmon/hwmon5/power1_input": "9000000",
    }
    assert FakeBoard(tmp_path, tree).look().power_w is None
    assert "power.board_chip: ina219" in find_warnings(caplog)[0][1]
    assert FakeBoard(tmp_path, tree, "ina226").look().power_w == 9.0
    for number, address in ((2, "1-0040"), (5, "1-0041")):
        (tmp_path / "devices" / address).mkdir(parents=True)
        (tmp_path / f"class/hwmon/hwmon{number}/device").symlink_to(tmp_path / "devices" / address)
    assert FakeBoard(tmp_path, tree, "1-0040").look().power_w == pytest.approx(3.32)


def test_a_counter_that_wraps(tmp_path: Path) -> None:
    """RAPL's package and memory are added, its core, which is in the package, is not; a wrap is no jump."""
    package, memory = "class/powercap/intel-rapl:0/energy_uj", "class/powercap/intel-rapl:0:2/energy_uj"
    tree = {name: text for name, text in LAPTOP.items() if "power_supply" not in name}
    board = FakeBoard(tmp_path, tree)
    assert board.look().counter_j == 0.0
    board.change(**{package: "1389012", memory: "3000000"})
    assert board.look().counter_j == pytest.approx(2.0 + 2.0)
    board.faults[package] = OSError(errno.EACCES, "Permission denied")
    assert board.look().counter_j is None
    del board.faults[package]
    first = board.look().counter_j
    board.change(**{package: "6389012"})
    assert first is not None and board.look().counter_j == pytest.approx(first + 5.0)
    board.change(**{package: str(65532610987 + 5)})
    assert board.look().counter_j is None, "beyond its own range"


def test_a_platform_counter_is_not_added_to_its_parts(tmp_path: Path) -> None:
    """psys measures the whole platform: where it is, it is all that is read."""
    board = FakeBoard(tmp_path, {name: text for name, text in LAPTOP.items() if "power_supply" not in name})
    folder = "class/powercap/intel-rapl:1"
    board.change(
        **{f"{folder}/name": "psys", f"{folder}/energy_uj": "5", f"{folder}/max_energy_range_uj": "65532610987"}
    )
    board.look()
    board.change(**{f"{folder}/energy_uj": "7000005", "class/powercap/intel-rapl:0/energy_uj": "99"})
    assert board.look().counter_j == pytest.approx(7.0)


def test_throttle_counters(tmp_path: Path) -> None:
    """An x86 is throttled if a counter has grown since the last look, whatever it has counted before."""
    board = FakeBoard(tmp_path, LAPTOP)
    assert board.look().is_throttled is None
    assert board.look().is_throttled is False
    board.change(**{"devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "13"})
    assert board.look().is_throttled is True
    assert board.look().is_throttled is False


@pytest.mark.parametrize(
    ("changes", "online", "wanted"),
    [
        ({}, "0", Look(is_on_battery=True, power_w=16.751, battery_fraction=0.93, battery_wh=70.15)),
        ({"STATUS": "Charging"}, "1", Look(is_on_battery=False, battery_fraction=0.93, battery_wh=70.15)),
        ({"STATUS": "Discharging"}, "1", Look(is_on_battery=False, battery_fraction=0.93, battery_wh=70.15)),
        ({"STATUS": "Unknown"}, None, Look(is_on_battery=False, battery_fraction=0.93, battery_wh=70.15)),
        (
            {"STATUS": "Discharging"},
            None,
            Look(is_on_battery=True, power_w=16.751, battery_fraction=0.93, battery_wh=70.15),
        ),
        # gauges that know charge and current alone, the latter with a sign
        (
            {
                "POWER_NOW": None,
                "CURRENT_NOW": "-1000000",
                "ENERGY_NOW": None,
                "CHARGE_NOW": "2000000",
                "CAPACITY": "40",
            },
            "0",
            Look(is_on_battery=True, power_w=12.473, battery_fraction=0.4, battery_wh=21.6),
        ),
        (
            {"CAPACITY": None},
            "0",
            Look(is_on_battery=True, power_w=16.751, battery_fraction=70.15 / 75.39, battery_wh=70.15),
        ),
        ({"POWER_NOW": "0"}, "0", Look(is_on_battery=True, battery_fraction=0.93, battery_wh=70.15)),
        ({"CAPACITY": "-7", "POWER_NOW": "many"}, "0", Look(is_on_battery=True, battery_wh=70.15)),
        ({"PRESENT": "0"}, "1", Look(is_on_battery=False)),
        ({"PRESENT": "0"}, "0", Look()),
    ],
)
def test_batteries(tmp_path: Path, changes: dict[str, str | None], online: str | None, wanted: Look) -> None:
    """Whether the board lives on its battery, how full that is and what it gives; a gauge's 0 W is unmeasured."""
    lines = dict(line.split("=", 1) for line in LAPTOP[UEVENT].splitlines())
    lines |= {f"POWER_SUPPLY_{name}": text for name, text in changes.items() if text is not None}
    for name in (name for name, text in changes.items() if text is None):
        del lines[f"POWER_SUPPLY_{name}"]
    tree = {name: text for name, text in LAPTOP.items() if "power_supply" in name}
    tree[UEVENT] = "\n".join(f"{name}={text}" for name, text in lines.items())
    if online is None:
        tree = {name: text for name, text in tree.items() if "/AC/" not in name}
    else:
        tree["class/power_supply/AC/uevent"] = f"POWER_SUPPLY_ONLINE={online}"
    look = FakeBoard(tmp_path, tree).look()
    for part in ("is_on_battery", "power_w", "battery_fraction", "battery_wh"):
        found, expected = getattr(look, part), getattr(wanted, part)
        assert found == (pytest.approx(expected) if isinstance(expected, float) else expected), part


def test_two_batteries_are_one(tmp_path: Path) -> None:
    """A laptop with two batteries has their energy, and the power of the one that empties."""
    tree = {name: text for name, text in LAPTOP.items() if "power_supply" in name}
    other = LAPTOP[UEVENT].replace("Discharging", "Unknown").replace("=70150000", "=10000000")
    tree |= {"class/power_supply/BAT1/type": "Battery", "class/power_supply/BAT1/uevent": other}
    look = FakeBoard(tmp_path, tree).look()
    assert look.battery_wh == pytest.approx(80.15)
    assert look.power_w == pytest.approx(16.751)
    assert look.battery_fraction == pytest.approx(80.15 / (2 * 75.39))


def test_the_battery_counts_what_leaves_it(tmp_path: Path) -> None:
    """Joules by the gauge's steps while the board lives on the battery; charging in between counts nothing."""
    board = FakeBoard(tmp_path, {name: text for name, text in LAPTOP.items() if "power_supply" in name})

    def look(energy_uwh: int, status: str = "Discharging") -> float | None:
        text = LAPTOP[UEVENT].replace("=70150000", f"={energy_uwh}").replace("Discharging", status)
        board.change(
            **{UEVENT: text, "class/power_supply/AC/uevent": f"POWER_SUPPLY_ONLINE={int(status != 'Discharging')}"}
        )
        return board.look().coarse_j

    assert look(70_150_000) == 0.0
    assert look(70_140_000) == pytest.approx(36.0)
    assert look(70_500_000, "Charging") is None
    assert look(70_400_000) == pytest.approx(36.0)
    assert look(70_390_000) == pytest.approx(72.0)


def test_a_huge_file_is_read_in_part(tmp_path: Path) -> None:
    """No attribute is longer than a page: what a broken driver adds is not read."""
    path = tmp_path / "endless"
    path.write_bytes(b"7" * 1_000_000)
    assert len(read_file(path)) == FILE_BYTES_MAX
