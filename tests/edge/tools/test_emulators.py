"""What a person sees after a wrong option of an emulator, or a place where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.cli import main
from tools.emulators.cli import build_parser


@pytest.mark.parametrize(
    "command",
    [
        "watch --subject 10",
        "watch --speed 0",
        "watch --speed nan",
        "weather --rate -1",
        "nmea --rate 0",
        "watch --port 0",
        "uav --port 65536",
        "uav --system 256",
        "watch --seconds -1",
        "iio --root x --recording-s inf",
        "examples --out x --subject 3 -1",
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_is_tried(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown wearer, a rate of zero, a port out of range: the option is named, and no broker is contacted."""
    with pytest.raises(SystemExit) as refused:
        build_parser().parse_args(command.split())
    assert refused.value.code == 2
    assert f"argument {command.split()[-2 if '3 -1' not in command else -3]}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["examples --out", "iio --root", "nmea --link"])
def test_a_place_that_cannot_be_written_is_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the path and why, no traceback."""
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "below"
    assert main(["emulate", *command.split(), str(place)]) == 78
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "file" in said and len(said.splitlines()) == 1


def test_a_listener_without_a_name_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A UAV's host that cannot be found is the operator's error."""
    assert main(["emulate", "uav", "--host", "no host here", "--seconds", "1"]) == 78
    assert "no host here" in capsys.readouterr().err


def test_what_is_in_the_place_of_a_link_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, or a real receiver's port, is not deleted for the emulator's link; an old link gives way."""
    port = tmp_path / "ttyGPS"
    port.write_text("precious")
    assert main(["emulate", "nmea", "--link", str(port), "--seconds", "0.1"]) == 78
    assert port.read_text() == "precious" and "not a link" in capsys.readouterr().err
    port.unlink()
    port.symlink_to("/gone")
    assert main(["emulate", "nmea", "--link", str(port), "--seconds", "0.1", "--rate", "50"]) == 0
    assert not port.is_symlink()
