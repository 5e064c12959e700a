"""Which board this is and what fits it: profiles, `flchain-agent board`, and the words of doctor and check."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agent.cli import main
from agent.commands.board import check_model_fits, check_profile, list_warnings
from agent.edge.cpu.settings import CpuSettings
from agent.edge.power.files import ROOT_VARIABLE, BoardRoots, SensorFiles
from agent.edge.power.profiles import INSTALLED_DIRS, choose_board, load_profiles
from agent.edge.power.settings import PowerSettings
from agent.scheduling.memory import MODEL_PARAMETERS_MAX, compute_memory_need, compute_parameters_max
from agent.settings import AgentSettings
from flchain.ledger.genesis import encode_genesis
from flchain_edge.checks.checkup import Finding, Level
from flchain_edge.settings.node import KeySettings
from tests.support.boards_page import PATH, build_table
from tests.support.builders.board_trees import plant
from tests.support.builders.chain import build_chain

SHIPPED = INSTALLED_DIRS[-1]
MODEL_FILE = "firmware/devicetree/base/model"


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", "rpi-zero-2-w"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "rpi-3b-plus"),
        ("Raspberry Pi Compute Module 3 Plus Rev 1.0", "rpi-3b-plus"),
        ("Raspberry Pi 4 Model B Rev 1.5", "rpi-4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "rpi-cm4"),
        ("Raspberry Pi 5 Model B Rev 1.0", "rpi-5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "rpi-cm5"),
        ("NVIDIA Jetson Nano Developer Kit", "jetson-nano"),
        ("NVIDIA Orin Nano Developer Kit", "jetson-orin-nano"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "jetson-orin-nano"),
        ("NVIDIA Orin NX Developer Kit", "jetson-orin-nx"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson-orin-nx"),
        ("linux,dummy-virt", "qemu-arm64"),
        ("Xunlong Orange Pi Zero", None),
    ],
)
def test_every_board_of_the_table_is_known_by_its_device_tree(tmp_path: Path, model: str, wanted: str | None) -> None:
    """The model strings are those that people have printed on these boards; another maker's board is not guessed."""
    roots = BoardRoots(plant(tmp_path, {MODEL_FILE: f"{model}\0"}), tmp_path)
    board = choose_board(PowerSettings(boards_dir=SHIPPED), SensorFiles(roots), "aarch64")
    assert board.model == model
    assert (board.file.profile.name if board.file else None) == wanted


def test_a_profile_of_two_powers_alone_stays_enough(tmp_path: Path) -> None:
    """An operator's file of docs/power.md needs none of the newer keys; wrong ones are told all at once."""
    (tmp_path / "mine.toml").write_text('name="Mine"\nmodels=["M"]\nidle_w=4\ncore_w=1\ncores=4\nsource="a meter"\n')
    assert load_profiles(tmp_path)["mine"].memory_mb == ()
    (tmp_path / "bad.toml").write_text(
        'name="Bad"\nmodels=["M"]\nidle_w=4\ncore_w=1\ncores=4\nsource="a meter"\n'
        'memory_mb=[1.5]\npower_sensors="ina219"\nwatchdog="/dev/watchdog"\nreset_line=17\n'
    )
    with pytest.raises(Exception, match=r"bad\.toml") as caught:
        load_profiles(tmp_path)
    for part in (
        "memory_mb must be a list of whole numbers",
        "power_sensors must be a list of texts",
        "watchdog and watchdog_s belong together",
        "reset_line must be a text",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "measured_mb"), [(12_519, 60), (101_770, 78), (1_017_610, 179), (3_021_010, 402)]
)
def test_the_rule_of_memory_is_above_what_was_measured(parameters: int, measured_mb: int) -> None:
    """`flchain bench agent` measured these; the rule asks for more, and for less than half as much again."""
    assert measured_mb * 1e6 <= compute_memory_need(parameters) <= measured_mb * 1.5e6


def test_what_fits_which_memory() -> None:
    """A Zero 2 W trains a model of a million parameters; with 1 GB fits all that the protocol carries."""
    assert 1_000_000 < compute_parameters_max(425_000_000) < 1_500_000
    assert compute_parameters_max(900_000_000) == MODEL_PARAMETERS_MAX == 4_000_000
    assert compute_parameters_max(100_000_000) == 0


def write_genesis(folder: Path, parameters: int) -> None:
    made = build_chain().genesis
    params = msgspec.structs.replace(made.params, parameters_count=parameters)
    (folder / "genesis.cbor").write_bytes(encode_genesis(msgspec.structs.replace(made, params=params)))


def build_settings(folder: Path, memory_max_mb: int = 256) -> AgentSettings:
    return AgentSettings(
        genesis=folder / "genesis.cbor",
        model=folder / "model.tflite",
        examples=folder / "examples.npz",
        data_dir=folder / "data",
        key=KeySettings(folder / "key.pem"),
        power=PowerSettings(boards_dir=SHIPPED),
        cpu=CpuSettings(memory_max_mb=memory_max_mb),
    )


def build_roots(folder: Path, total_kb: int, model: str = "Raspberry Pi Zero 2 W Rev 1.0", **sysfs: str) -> BoardRoots:
    plant(folder / "proc", {"meminfo": f"MemTotal:  {total_kb} kB\nMemAvailable: 9000 kB\n"})
    plant(folder / "sys", {MODEL_FILE: model, **sysfs})
    return BoardRoots(folder / "sys", folder / "proc")


def get_words(findings: list[Finding]) -> str:
    return "\n".join(f"{finding.level.name} {finding.reason} -> {finding.advice}" for finding in findings)


def test_a_model_that_does_not_fit_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor and check name the model's size, the board's memory and the largest model; a small model is fine."""
    roots = build_roots(tmp_path, 425_000_000 // 1024)
    write_genesis(tmp_path, 2_500_000)
    words = get_words(list(check_model_fits(build_settings(tmp_path), roots)))
    assert "WARN a model of 2,500,000 parameters needs about 368 MB" in words
    assert "at most 1,260,8" in words and "smaller model" in words
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert "2,500,000 parameters" in list_warnings(build_settings(tmp_path))[0]
    write_genesis(tmp_path, 12_519)
    assert [finding.level for finding in check_model_fits(build_settings(tmp_path), roots)] == [Level.OK]
    assert list_warnings(build_settings(tmp_path)) == ()


def test_a_worker_that_may_not_take_enough_is_warned_of(tmp_path: Path) -> None:
    """On a large board the limit of the worker counts: the warning names the key and the value to set."""
    roots = build_roots(tmp_path, 8_000_000, "Raspberry Pi 5 Model B")
    write_genesis(tmp_path, 3_900_000)
    words = get_words(list(check_model_fits(build_settings(tmp_path), roots)))
    assert words.startswith("WARN") and "set [cpu] memory_max_mb = 351 or more" in words
    assert [finding.level for finding in check_model_fits(build_settings(tmp_path, 400), roots)] == [Level.OK]


def test_an_unknown_board_gets_a_clear_word(tmp_path: Path) -> None:
    """It names what the board calls itself, says that the agent runs all the same, and where to read on."""
    roots = build_roots(tmp_path, 2_000_000, "Xunlong Orange Pi Zero")
    words = get_words(list(check_profile(build_settings(tmp_path), roots)))
    assert words.startswith("WARN no profile knows Xunlong Orange Pi Zero") and "docs/boards.md" in words


def test_a_board_without_its_memory_controller_is_told_the_remedy(tmp_path: Path) -> None:
    """Raspberry Pi OS switches it off: doctor says which word goes into cmdline.txt, and is silent once it is there."""
    listed = "fs/cgroup/cgroup.controllers"
    roots = build_roots(tmp_path, 400_000, **{listed: "cpuset cpu io pids"})
    words = get_words(list(check_profile(build_settings(tmp_path), roots)))
    assert "OK profile rpi-zero-2-w" in words and "cgroup_enable=memory" in words
    plant(tmp_path / "sys", {listed: "cpuset cpu io memory pids"})
    assert "cgroup_enable" not in get_words(list(check_profile(build_settings(tmp_path), roots)))


def test_the_command_shows_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It needs no configuration; `--json` has the same for programs; a wrong name lists the known ones."""
    build_roots(tmp_path, 425_000_000 // 1024)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    assert main(["board"]) == 0
    shown = capsys.readouterr().out
    for part in ("Raspberry Pi Zero 2 W Rev 1.0", "rpi-zero-2-w", "models of up to 1,260,", "GPIO17", "/dev/watchdog0"):
        assert part in shown
    assert main(["board", "--json", "--profile", "rpi-5"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["board"] == "Raspberry Pi Zero 2 W Rev 1.0" and shown["profile"]["watchdog_s"] == 15
    assert main(["board", "--profile", "pi"]) == 78
    assert "there is no profile 'pi'; there are: jetson-nano" in capsys.readouterr().err


def test_the_page_has_the_profiles_as_they_are() -> None:
    """docs/boards.md's table is made from the files: `python -m tests.support.boards_page`."""
    assert build_table() in PATH.read_text()
