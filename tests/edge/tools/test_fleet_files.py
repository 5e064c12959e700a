"""What an operator's files may look like: packages, the state of a rollout, the folder with its key."""

from __future__ import annotations

import hashlib
import shutil
import stat
from pathlib import Path

import msgspec
import pytest

from flchain.base.errors import ConfigError
from flchain.base.types import Address
from flchain.wire.release import Package
from tests.support.builders.debs import build_ar, build_tar, write_deb
from tests.support.networks.fleet import MODEL
from tests.support.networks.registrar import Registrar, enrol_member, make_registrar, run_command, serving
from tools.cli import main
from tools.fleet.debs import read_deb, read_folder
from tools.fleet.folder import open_folder
from tools.fleet.rollout import Plan, Rollout, Stage
from tools.fleet.state import Saved, build_release, load, save


def test_a_folder_of_packages_is_a_release(tmp_path: Path) -> None:
    """Suite and architecture from the control file, hash and size of the file; others' packages are passed over."""
    for mark, architecture in (("deb13", "arm64"), ("deb12", "amd64"), ("deb12", "arm64")):
        path = write_deb(tmp_path, "0.2.0", mark=mark, architecture=architecture)
    write_deb(tmp_path, "0.9.0", name="flchain-miner")
    debs = read_folder(tmp_path)
    assert [(deb.package.suite, deb.package.architecture) for deb in debs] == [
        ("bookworm", "amd64"),
        ("bookworm", "arm64"),
        ("trixie", "arm64"),
    ]
    assert debs[1].path == path and debs[1].version == "0.2.0"
    assert debs[1].package.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert debs[1].package.size_bytes == path.stat().st_size


def test_all_problems_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    """No package, two versions, two for one system, damaged, renamed: each a line, and nothing is announced."""
    with pytest.raises(ConfigError, match="make debs"):
        read_folder(tmp_path)
    good = write_deb(tmp_path, "0.2.0")
    write_deb(tmp_path, "0.3.0")
    shutil.copyfile(good, tmp_path / "flchain-agent_copy.deb")
    (tmp_path / "flchain-agent_torn.deb").write_bytes(good.read_bytes()[:40])
    write_deb(tmp_path, "0.2.0", name="flchain-miner").rename(tmp_path / "flchain-agent_renamed.deb")
    with pytest.raises(ConfigError) as caught:
        read_folder(tmp_path)
    said = "\n".join(caught.value.problems)
    for text in ("versions 0.2.0, 0.3.0", "more than one package", "no control part", "a package of flchain-miner"):
        assert text in said


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "has 0 bytes"),
        (b"PK\x03\x04" * 50, "is not a Debian package"),
        (build_ar({"debian-binary": b"2.0\n", "control.tar.gz": b"torn"}), "damaged control part"),
        (build_ar({"debian-binary": b"2.0\n", "control.tar.gz": build_tar({"x": b""})}), "no control file"),
        (build_ar({"debian-binary": b"2.0\n", "control.tar.zst": b"torn"}), "dpkg-deb"),
        (build_ar({"control.tar.xz": build_tar({"control": b"Package: flchain-agent\n"}, "w:xz")}), "has version"),
        (
            build_ar({"control.tar.gz": build_tar({"control": b"Package: flchain-agent\nVersion: 0.2.0rc1\n"})}),
            "has version 0.2.0rc1",
        ),
    ],
)
def test_what_is_no_package_of_the_agent_is_named(tmp_path: Path, data: bytes, text: str) -> None:
    """Empty, another format, torn, of another packing, without a version that boards can order."""
    path = tmp_path / "flchain-agent_x.deb"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=text):
        read_deb(path)


PACKAGES = (Package("bookworm", "arm64", b"h" * 32, 1_000),)
PLAN = Plan("0.2.0", (100, 10_000), soak_s=5, health_min=80, patience_s=50)
ROLLOUT = Rollout(PLAN, frozenset({Address(b"a" * 20)}), 1, 12.5, 20.0, Stage.HALTED, "by hand", 3, (5, 10_000))


def test_the_state_of_a_rollout_comes_back(tmp_path: Path) -> None:
    """All of it, and nobody else may read it; without a file there was no rollout."""
    saved = Saved(ROLLOUT, 9, 900, PACKAGES)
    assert load(tmp_path) is None
    save(tmp_path, saved)
    assert load(tmp_path) == saved
    assert stat.S_IMODE((tmp_path / "rollout.json").stat().st_mode) == 0o600
    release = build_release(saved, 77)
    assert (release.sequence, release.share_bp, release.state.name, release.issued_s) == (9, 10_000, "HALTED", 77)


@pytest.mark.parametrize("change", [{"tranche": 2}, {"version": 2}, {"stage": "flying"}, {"well_before": ["xy"]}])
def test_a_state_that_cannot_be_is_refused_with_a_way_out(tmp_path: Path, change: dict[str, object]) -> None:
    """A tranche that is none, another version, a damaged line: named, and nothing is announced by it."""
    save(tmp_path, Saved(ROLLOUT, 9, 900, PACKAGES))
    path = tmp_path / "rollout.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | change))
    with pytest.raises(ConfigError, match="move it away"):
        load(tmp_path)


@pytest.fixture
def registrar(tmp_path: Path) -> Registrar:
    """With a genesis of one board."""
    registrar = make_registrar(tmp_path / "registrar")
    enrol_member(registrar, tmp_path / "miner", "miner")
    enrol_member(registrar, tmp_path / "board", "device")
    (registrar.folder / "model.tflite").write_bytes(MODEL.read_bytes())
    head = 'name = "field"\nmodel = "registrar/model.tflite"\npreset = "minimal"\n'
    (tmp_path / "network.toml").write_text(head + registrar.run("network"))
    genesis = str(registrar.folder / "genesis.cbor")
    run_command("genesis", "make", "--network", str(tmp_path / "network.toml"), "--out", genesis)
    return registrar


def test_an_operators_folder_is_made_by_a_token_and_renewed_without(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys, certificate and chain; its key encrypted by a passphrase that only signing needs; private files."""
    operator, secret = tmp_path / "operator", tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    command = ["fleet", "key", "--dir", str(operator)]
    assert main(command) == 78
    assert "flchain registrar token --role operator" in capsys.readouterr().err
    with serving(registrar):
        protected = [*command, "--passphrase-file", str(secret)]
        assert main([*protected, "--token", registrar.make_token("device")]) == 78
        assert "this token is for a device" in capsys.readouterr().err
        token = registrar.make_token("operator")
        assert main([*protected, "--token", token]) == 0
        before = (operator / "tls.pem").read_bytes()
        registrar.clock_offset_s = 25 * 86_400
        assert main(command) == 0
        assert (operator / "tls.pem").read_bytes() != before
    folder = open_folder(operator)
    assert folder.load_identity(None).address == folder.address
    assert b"ENCRYPTED" in (operator / "key.pem").read_bytes()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in operator.iterdir())
    assert '"role": "operator"' in registrar.run("list", "--json")


def test_a_folder_without_a_fleet_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command, in a folder where nothing is: one line, exit code 78."""
    for action in ("list", "status", "halt"):
        assert main(["fleet", action, "--dir", str(tmp_path)]) == 78
        assert "flchain fleet key --token TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--tranches", "25,5"), "--tranches: must rise"),
        (("--health-min", "0"), "--health-min"),
        (("--soak", "2d", "--patience", "1d"), "--patience"),
        (("--window", "1s"), "--window"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_said(
    registrar: Registrar, tmp_path: Path, options: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No broker is asked, no release is signed."""
    operator = tmp_path / "operator"
    with serving(registrar):
        run_command("fleet", "key", "--dir", str(operator), "--token", registrar.make_token("operator"))
    write_deb(tmp_path / "debs", "0.2.0")
    assert main(["fleet", "update", str(tmp_path / "debs"), "--dir", str(operator), *options]) == 78
    assert word in capsys.readouterr().err


def test_without_a_broker_a_command_says_so_and_may_be_tried_again(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 75, and why."""
    monkeypatch.setattr("tools.fleet.link.CONNECT_S", 0.5)
    operator = tmp_path / "operator"
    with serving(registrar):
        run_command("fleet", "key", "--dir", str(operator), "--token", registrar.make_token("operator"))
    assert main(["fleet", "list", "--dir", str(operator)]) == 75
    assert "no connection to the broker at localhost:8883" in capsys.readouterr().err
