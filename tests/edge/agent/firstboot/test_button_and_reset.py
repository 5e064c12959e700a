"""Factory reset: by a file, by a button that is held, by the command; and what it leaves."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from agent.cli import main as agent
from agent.firstboot.button import (
    GET_CHIP,
    GET_LINE,
    GET_LINE_INFO,
    GET_VALUES,
    PressedFor,
    is_held,
    open_line,
)
from agent.firstboot.places import Places
from agent.firstboot.programs import NoPrograms
from agent.firstboot.provision import boot
from agent.firstboot.reset import reset
from agent.provisioning.announcement import BoardState, decide_state

TOKEN = f"flchain1/registrar.lan:8443/{'F' * 43}/{'s' * 22}"
OLD = 'name = "north-3"\n[network.wifi]\nssid = "field"\npassword = "correct horse"\n'
NEW = f'name = "south-1"\n[registrar]\ntoken = "{TOKEN}"\n'
NAMES = ("ID_SDA", "ID_SCL", "GPIO17", "")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A board that is provisioned and enrolled, and its file on the boot partition."""
    for folder in ("boot/firmware", "etc/avahi/services", "usr/sbin", "dev", "home"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/sbin/NetworkManager").touch()
    places = Places(tmp_path)
    (tmp_path / "boot/firmware/flchain.toml").write_text(OLD + NEW.split("\n", 1)[1])
    boot(places, NoPrograms())
    places.agent_config.write_text('genesis = "g"\n')
    (places.agent / "data").mkdir()
    (places.agent / "data" / "agent.db").write_bytes(b"rounds")
    (places.agent / "link").symlink_to(tmp_path / "home")
    (tmp_path / "home/mine").write_text("not the agent's")
    boot(places, NoPrograms())
    return places


def test_a_reset_leaves_a_board_that_waits(places: Places) -> None:
    """Key, data, settings, Wi-Fi and words are gone, the system and what a link pointed to are not."""
    programs = NoPrograms()
    removed = list(reset(places, programs))
    assert list(places.agent.iterdir()) == [] and list(places.state.iterdir()) == []
    assert not list((places.root / "etc/NetworkManager/system-connections").iterdir())
    assert (places.root / "home/mine").exists() and (places.root / "etc/hostname").read_text() == "north-3\n"
    assert not (places.root / "boot/firmware/flchain.toml").exists(), "without a token it would bring the old back"
    assert str(places.agent_config) in removed and str(places.agent / "data") in removed
    assert programs.commands[0][:2] == ("systemctl", "stop")
    _, facts = boot(places, NoPrograms())
    assert decide_state(facts) is BoardState.WAITING


def test_a_new_file_beside_the_request_is_taken_after_it(places: Places) -> None:
    """flchain-reset and a file with a new token: one boot later the board enrols anew, under its new name."""
    (places.root / "boot/firmware/flchain.toml").write_text(NEW)
    (places.root / "boot/firmware/flchain-reset").touch()
    outcome, facts = boot(places, NoPrograms())
    assert decide_state(facts) is BoardState.ENROLLING and facts.name == "south-1" and not outcome.problems
    assert any(line.startswith("reset: removed") for line in outcome.done)
    assert not places.find_reset_file() and not list(places.root.glob("etc/NetworkManager/system-connections/*"))
    again, _ = boot(places, NoPrograms())
    assert again.done == []


@pytest.mark.parametrize("folder", ["boot/firmware", "boot/flchain", "etc/flchain"])
def test_a_reset_while_the_board_waits_for_its_genesis_destroys_the_token(tmp_path: Path, folder: str) -> None:
    """The registrar has used it up, and agent.toml is not there yet: no file keeps the token or brings it back."""
    places, text = Places(tmp_path), f'[registrar]\ntoken = "{TOKEN}"\n'
    for name in (folder, "var/lib/cloud/instances/nocloud"):
        (tmp_path / name).mkdir(parents=True)
    given, copied = tmp_path / folder / "flchain.toml", tmp_path / "var/lib/cloud/instances/nocloud/user-data.txt"
    given.write_text(text)
    copied.write_text(text)
    boot(places, NoPrograms())
    assert places.token.read_text() == TOKEN
    assert agent(["reset", "--yes", "--root", str(tmp_path)]) == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN in path.read_text()] == []
    _, facts = boot(places, NoPrograms())
    assert decide_state(facts) is BoardState.WAITING and not given.exists()


def test_a_new_token_beside_the_one_that_was_taken_stays(tmp_path: Path) -> None:
    """The operator has left the old line as a comment: the file is still the new one."""
    places, file = Places(tmp_path), tmp_path / "boot/firmware/flchain.toml"
    file.parent.mkdir(parents=True)
    file.write_text(NEW)
    boot(places, NoPrograms())
    fresh = TOKEN.replace("s" * 22, "t" * 22)
    file.write_text(f'# token = "{TOKEN}"\n[registrar]\ntoken = "{fresh}"\n')
    list(reset(places, NoPrograms()))
    assert fresh in file.read_text()
    boot(places, NoPrograms())
    assert places.token.read_text() == fresh


def test_the_command_says_first_and_does_with_yes(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --yes nothing changes; with it everything that goes is named, and who has to be told."""
    assert agent(["reset", "--root", str(places.root)]) == 0
    assert "Nothing was done" in capsys.readouterr().out and places.agent_config.exists()
    assert agent(["reset", "--yes", "--root", str(places.root)]) == 0
    said = capsys.readouterr().out
    assert f"removed {places.agent_config}" in said and "revoke" in said
    assert not places.agent_config.exists() and not places.reset_asked.exists()


@pytest.mark.parametrize(("readings", "held"), [(0, False), (1, False), (49, False), (50, False), (51, True)])
def test_a_button_counts_only_if_it_is_held_all_the_time(readings: int, held: bool) -> None:
    """Five seconds at ten readings a second, and one more at the end."""
    slept: list[float] = []
    assert is_held(PressedFor(readings), 5.0, slept.append) is held
    assert len(slept) == min(readings, 50)


class Kernel:
    """The kernel's side of linux/gpio.h, its structures laid out by the offsets that a C compiler gives them."""

    def __init__(self, names: tuple[str, ...], levels: dict[int, int]) -> None:
        self.names, self.levels = names, levels
        self.requests: list[tuple[int, int]] = []

    def ioctl(self, descriptor: int, code: int, argument: bytes) -> bytes:
        answer = bytearray(argument)
        if code == GET_CHIP:
            assert len(argument) == 68
            answer[64:68] = struct.pack("=I", len(self.names))
        elif code == GET_LINE_INFO:
            assert len(argument) == 256
            (offset,) = struct.unpack_from("=I", argument, 64)
            answer[:32] = self.names[offset].encode().ljust(32, b"\0")
        elif code == GET_LINE:
            assert len(argument) == 592 and struct.unpack_from("=I", argument, 560) == (1,)
            (offset,), (flags,) = struct.unpack_from("=I", argument, 0), struct.unpack_from("=Q", argument, 288)
            self.requests.append((offset, flags))
            struct.pack_into("=i", answer, 588, os.open("/dev/null", os.O_RDONLY))
        else:
            assert code == GET_VALUES and struct.unpack("=QQ", argument) == (0, 1)
            offset, flags = self.requests[-1]
            level = self.levels.get(offset, 1 if flags & 0x100 else 0)
            answer[:8] = struct.pack("=Q", level ^ bool(flags & 0x2))
        return bytes(answer)


def put_button(places: Places, kernel: Kernel, patch: pytest.MonkeyPatch, line: str) -> None:
    (places.root / "dev/gpiochip0").touch()
    patch.setattr(fcntl, "ioctl", kernel.ioctl)
    patch.setattr(is_held, "__defaults__", (lambda seconds: None,))
    (places.root / "boot/firmware/flchain.toml").write_text(f'{OLD}[button]\nline = "{line}"\nhold_s = 2\n')


@pytest.mark.parametrize("line", ["GPIO17", "gpiochip0:2"])
def test_the_button_resets_at_boot(places: Places, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Held to ground: reset. Open, where the pull-up holds the line: an ordinary boot."""
    kernel = Kernel(NAMES, {})
    put_button(places, kernel, monkeypatch, line)
    boot(places, NoPrograms())
    assert places.agent_config.exists() and kernel.requests == [(2, 0x2 | 0x4 | 0x100)]
    kernel.levels[2] = 0
    outcome, facts = boot(places, NoPrograms())
    assert not places.agent_config.exists() and decide_state(facts) is BoardState.WAITING and not outcome.problems


def test_a_button_that_is_not_there_is_said_and_resets_nothing(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown line, a missing chip, a profile without one."""
    put_button(places, Kernel(NAMES, {}), monkeypatch, "GPIO99")
    for text in ("no GPIO line is called GPIO99", "No such file"):
        outcome, _ = boot(places, NoPrograms())
        assert len(outcome.problems) == 1 and text in outcome.problems[0] and places.agent_config.exists()
        put_button(places, Kernel(NAMES, {}), monkeypatch, "gpiochip7:1")


def test_a_line_that_goes_high_when_pressed(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is pulled down, not up."""
    kernel = Kernel(NAMES, {})
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    (places.root / "dev/gpiochip0").touch()
    with open_line("GPIO17", False, places.root / "dev") as line:
        assert not line.is_active()
        kernel.levels[2] = 1
        assert line.is_active() and kernel.requests == [(2, 0x4 | 0x200)]
