"""First boot on a tree of files: the file is taken, applied, handed on, and its token destroyed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import main as agent
from agent.firstboot.places import Places
from agent.firstboot.programs import NoPrograms
from agent.firstboot.provision import boot, provision
from agent.provisioning.announcement import BoardState, decide_state
from agent.provisioning.example import EXAMPLE
from flchain_edge.newer_python import tomllib
from flchain_edge.process.command_line import EXIT_CONFIG

TOKEN = "flchain1/registrar.lan:8443/" + "F" * 43 + "/" + "s" * 22
FORM = f"""\
name = "North-3"
timezone = "Europe/Berlin"
ssh_keys = ["ssh-ed25519 {"A" * 68} field"]
examples = "examples.npz"
[registrar]
token = "{TOKEN}"
passphrase = "a long one"
[network.wifi]
ssid = "field"
password = "correct horse"
country = "DE"
[tasks]
follow = "light"
[[sensors]]
name = "imu"
kind = "replay"
replay = {{ file = "walk.csv", loop = true }}
[dataset]
channels = ["imu.x"]
label = {{ channel = "imu.label" }}
"""
AGENT = (
    'genesis = "genesis.cbor"\nmodel = "model.tflite"\nexamples = "e.npz"\ndata_dir = "data"\n[key]\nfile = "key.pem"\n'
)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The unit's, so that what is open to all is so on purpose."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A system as Raspberry Pi OS lays it out, with a provisioning file and its data on the boot partition."""
    for folder in (
        "boot/firmware",
        "etc/ssh/sshd_config.d",
        "etc/avahi/services",
        "usr/sbin",
        "usr/share/zoneinfo/Europe",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr/sbin/NetworkManager").touch()
    (tmp_path / "usr/share/zoneinfo/Europe/Berlin").touch()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\npi:x:1000:1000::/x:/bin/sh\nnobody:x:65534:1::/:/x\n")
    (tmp_path / "boot/firmware/flchain.toml").write_bytes(FORM.encode())
    (tmp_path / "boot/firmware/examples.npz").write_bytes(b"npz")
    (tmp_path / "boot/firmware/walk.csv").write_text("time,x,label\n0,1,0\n")
    return Places(tmp_path)


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_first_boot_takes_all_of_it(places: Places) -> None:
    """Name, time zone, Wi-Fi, keys, data, settings and token are where the system looks for them."""
    programs = NoPrograms()
    outcome, facts = boot(places, programs)
    assert not outcome.problems and decide_state(facts) is BoardState.ENROLLING
    root = places.root
    assert (root / "etc/hostname").read_text() == "north-3\n" and "127.0.1.1 north-3" in (
        root / "etc/hosts"
    ).read_text()
    assert (root / "etc/localtime").readlink() == Path("/usr/share/zoneinfo/Europe/Berlin")
    wifi = root / "etc/NetworkManager/system-connections/flchain-wifi.nmconnection"
    assert "psk=correct horse" in wifi.read_text() and stat.S_IMODE(wifi.stat().st_mode) == 0o600
    keys = root / "etc/ssh/authorized_keys.d/pi"
    assert keys.read_text().startswith("ssh-ed25519 AAAA")
    assert (stat.S_IMODE(keys.parent.stat().st_mode), stat.S_IMODE(keys.stat().st_mode)) == (0o755, 0o644), "for sshd"
    assert places.token_credentials[0].read_text() == TOKEN and places.passphrase_credential.read_text() == "a long one"
    assert (places.agent / "walk.csv").is_file() and (places.agent / "examples.npz").read_bytes() == b"npz"
    extra = tomllib.loads(places.provisioned.read_text())
    assert extra["follow"] == "light" and extra["sensors"][0]["replay"] == {"file": "walk.csv", "loop": True}
    assert extra["board"] == {"name": "North-3"}
    assert "registrar" not in extra and "network" not in extra
    assert stat.S_IMODE(places.state.stat().st_mode) == 0o700 and TOKEN not in places.settings.read_text()
    assert "(enrolling)" in places.issue.read_text() and "state=enrolling" in places.service.read_text()
    assert ("hostnamectl", "set-hostname", "north-3") in programs.commands


def test_a_second_boot_does_nothing(places: Places) -> None:
    """No file is written again, no program is run but what starts what is not running."""
    boot(places, NoPrograms())
    before = {path: path.stat().st_mtime_ns for path in places.root.rglob("*") if path.is_file()}
    programs = NoPrograms()
    outcome, _ = boot(places, programs)
    assert outcome.done == [] and outcome.problems == []
    assert {path: path.stat().st_mtime_ns for path in places.root.rglob("*") if path.is_file()} == before
    assert programs.commands == [("systemctl", "start", "--no-block", "ssh.service")]


def test_without_the_file_it_goes_on_with_what_it_kept(places: Places) -> None:
    """The card's file may be deleted, and /etc may be in memory: the next boot writes the same again."""
    boot(places, NoPrograms())
    etc = read_tree(places.root / "etc")
    for path in (places.root / "boot/firmware").iterdir():
        path.unlink()
    for name in ("etc/hostname", "etc/NetworkManager/system-connections/flchain-wifi.nmconnection"):
        (places.root / name).unlink()
    places.token_credentials[0].unlink()
    outcome, facts = boot(places, NoPrograms())
    assert not outcome.problems and decide_state(facts) is BoardState.ENROLLING
    assert read_tree(places.root / "etc") == etc and places.token_credentials[0].read_text() == TOKEN


def test_an_enrolled_board_holds_no_token(places: Places) -> None:
    """Boot partition, state, credentials and cloud-init's files: destroyed in place, and it stays enrolled."""
    cloud = places.root / "var/lib/cloud/instances/i-1/user-data.txt"
    cloud.parent.mkdir(parents=True)
    for path in (cloud, places.root / "boot/firmware/user-data"):
        path.write_text(f"#cloud-config\nwrite_files:\n- content: |\n    token = '{TOKEN}'\n")
    boot(places, NoPrograms())
    inode = (places.root / "boot/firmware/flchain.toml").stat().st_ino
    places.agent_config.write_text(AGENT)
    outcome, facts = provision(places, NoPrograms())
    assert decide_state(facts) is BoardState.TRAINING and not outcome.problems
    for name, content in read_tree(places.root).items():
        assert b"ssssss" not in content, name
    assert not places.token.exists() and not places.token_credentials[0].exists()
    assert (places.root / "boot/firmware/flchain.toml").stat().st_ino == inode, "overwritten where it lies"
    assert agent(["provision", "--check", str(places.root / "boot/firmware/flchain.toml")]) == 0


def test_a_changed_file_changes_an_enrolled_board(places: Places) -> None:
    """New sensor settings go into agent.toml, which keeps what enrolment found out and what a person has added."""
    boot(places, NoPrograms())
    places.agent_config.write_text(AGENT + "[log]\nlevel = 'debug'\n")
    boot(places, NoPrograms())
    path = places.root / "boot/firmware/flchain.toml"
    path.write_text(path.read_text().replace('follow = "light"', 'follow = "full"').replace('"field"', '"station"'))
    outcome, _ = boot(places, NoPrograms())
    assert not outcome.problems
    config = tomllib.loads(places.agent_config.read_text())
    assert (config["follow"], config["log"]["level"], config["genesis"]) == ("full", "debug", "genesis.cbor")
    assert stat.S_IMODE(places.agent_config.stat().st_mode) == 0o600


def test_all_problems_at_once_and_the_last_good_file_holds(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong file is refused whole, with file and key of each problem; the settings before it stay."""
    boot(places, NoPrograms())
    path = places.root / "boot/firmware/flchain.toml"
    bad = 'tokn = 1\nlabels = ["Site"]\n[registrar]\ntoken = "flchain1/x"\n'
    path.write_text(bad + '[network.wifi]\nssid = "x"\npassword = "short"\n')
    outcome, _ = boot(places, NoPrograms())
    assert len(outcome.problems) == 4 and all("flchain.toml: " in problem for problem in outcome.problems)
    assert "short" not in str(outcome.problems), "a password is not repeated"
    assert (places.root / "etc/hostname").read_text() == "north-3\n"
    assert "tokn: unknown key" in places.issue.read_text()
    assert agent(["provision", "--check", str(path)]) == EXIT_CONFIG
    assert capsys.readouterr().err.count("error: ") == 4


def test_without_any_file_it_waits_and_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The console names the file and the command that makes the token; nothing else is changed."""
    (tmp_path / "boot/firmware").mkdir(parents=True)
    assert agent(["provision", "--boot", "--root", str(tmp_path)]) == 0
    issue = (tmp_path / "run/issue.d/flchain.issue").read_text()
    assert "(waiting)" in issue and "/boot/firmware/flchain.toml" in issue
    assert set(read_tree(tmp_path)) == {"run/issue.d/flchain.issue", "run/flchain-provision/state.json"}
    assert agent(["provision", "--status", "--root", str(tmp_path)]) == 0
    assert "waiting" in capsys.readouterr().out


def test_an_ending_that_windows_hides(places: Places) -> None:
    """The board says that the file is called otherwise than its writer sees."""
    path = places.root / "boot/firmware/flchain.toml"
    path.rename(path.with_name("flchain.toml.txt"))
    outcome, facts = boot(places, NoPrograms())
    assert outcome.problems == ["flchain.toml.txt: rename it to flchain.toml (its ending may be hidden)"]
    assert decide_state(facts) is BoardState.REFUSED and "rename it" in places.issue.read_text()


def test_the_example_is_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it is printed, with a byte order mark and Windows' line ends, and with its comments switched on."""
    assert agent(["provision", "--example"]) == 0
    assert capsys.readouterr().out == EXAMPLE
    path = tmp_path / "flchain.toml"
    path.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.replace("\n", "\r\n").encode())
    assert agent(["provision", "--check", str(path)]) == 0
    for name in ("examples.npz", "recording.csv"):
        (tmp_path / name).touch()
    lines = [
        line[2:] if line.startswith("# ") and (" = " in line or line[2] == "[") else line
        for line in EXAMPLE.splitlines()
    ]
    path.write_text("\n".join(lines).replace("AAAA...", "A" * 68).replace('"..."', '"correct horse"'))
    assert agent(["provision", "--check", str(path)]) == 0, capsys.readouterr().err
