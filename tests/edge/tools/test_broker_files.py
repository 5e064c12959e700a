"""What `flchain registrar broker` writes, and the firewalls beside it: read by the programs they are for."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from flchain.base.errors import ConfigError
from flchain_edge.mqtt.settings import Endpoint
from tests.support.networks.registrar import Registrar, enrol_member, make_registrar
from tools.cli import main
from tools.registrar.broker_files import BrokerPlan, find_data_folder, render_broker
from tools.registrar.enroller import Enroller
from tools.registrar.topic_files import CLONE, build_files, replace_table

NFT = shutil.which("nft", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
YEAR_S = 365 * 86_400


@pytest.fixture
def registrar(tmp_path: Path) -> Registrar:
    return make_registrar(tmp_path / "registrar")


def test_files_are_whole_private_and_keep_the_brokers_key(registrar: Registrar, tmp_path: Path) -> None:
    """Written again, the list changes and the broker's key does not; another host gets another key; all is private."""
    out = tmp_path / "out"
    member = enrol_member(registrar, tmp_path / "node", "device")
    registrar.render_broker("mosquitto", out, 8883)
    key = (out / "server-key.pem").read_bytes()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in out.iterdir())
    assert len(x509.load_pem_x509_crl((out / "crl.pem").read_bytes())) == 0
    registrar.run("revoke", member.address)
    registrar.render_broker("mosquitto", out, 8883)
    assert len(x509.load_pem_x509_crl((out / "crl.pem").read_bytes())) == 1
    assert f"user {member.address}\ntopic deny #" in (out / "acl").read_text()
    assert (out / "server-key.pem").read_bytes() == key
    registrar.render_broker("mosquitto", out, 8883, host="other.example")
    assert (out / "server-key.pem").read_bytes() != key


def test_the_list_of_the_revoked_outlives_its_operator(registrar: Registrar) -> None:
    """OpenSSL shuts everybody out after a list's date: it is valid for years, and omits expired certificates."""
    enroller = Enroller.open(registrar.folder, None)
    member = enrol_member(registrar, registrar.folder.parent / "node", "device", clock_s=0)
    enroller.revoke(member.address, 60)
    early, late = (x509.load_pem_x509_crl(enroller.build_crl(s).encode()) for s in (60, YEAR_S))
    assert [entry.serial_number for entry in early] and not list(late)
    assert late.next_update_utc is not None and late.next_update_utc.timestamp() > 9 * YEAR_S
    enroller.register.close()


def test_rules_and_page_follow_the_table() -> None:
    """Brokers' rules and docs/protocol.md are what the table gives; after a change: tools.registrar.topic_files."""
    for path, text in build_files().items():
        assert (CLONE / path).read_text() == text, f"{path}: run python -m tools.registrar.topic_files"


def test_a_page_without_marks_is_not_overwritten() -> None:
    """A page that has lost the marks around its table is refused: the text around it would be lost."""
    with pytest.raises(ValueError, match="marks"):
        replace_table("# The protocol\n")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"host": "a\nallow_anonymous true"}, "misread"),
        ({"user": "root\nx"}, "misread"),
        ({"kind": "nats", "bridges": (Endpoint("b", 1),)}, "cluster"),
        ({"kind": "emqx"}, "one of"),
    ],
)
def test_nothing_is_smuggled_into_a_configuration(
    registrar: Registrar, tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    """A host or user with a line of its own, a bridge where there is none, an unknown kind: nothing is written."""
    plan = {"kind": "mosquitto", "host": "b", "port": 1, "bind": "::", "folder": tmp_path, "data": tmp_path} | changes
    enroller = Enroller.open(registrar.folder, None)
    with pytest.raises(ConfigError, match=word):
        render_broker(enroller, BrokerPlan(**plan), tmp_path / "out", 0)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    enroller.register.close()


@pytest.mark.skipif(NFT is None or os.geteuid() != 0, reason="nft is not installed, or may not be asked (root only)")
@pytest.mark.parametrize("name", ["device.nft", "edge.nft"])
def test_firewalls_load(name: str) -> None:
    """nft takes every line."""
    assert NFT is not None
    path = find_data_folder() / "firewall" / name
    done = subprocess.run([NFT, "--check", "--file", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_operator_is_told_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No registrar there, one already, a malformed broker, a wrong passphrase, an unknown home: each is explained."""
    folder = str(tmp_path / "registrar")
    assert main(["registrar", "list", "--dir", folder]) == 78
    init = ["registrar", "init", "--dir", folder, "--host", "localhost"]
    assert main([*init, "--broker", "nowhere"]) == 78
    assert not (tmp_path / "registrar" / "registrar.toml").exists()
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    assert main([*init, "--broker", "edge:8883", "--passphrase-file", str(secret)]) == 0
    assert main([*init, "--broker", "edge:8883"]) == 78
    assert main(["registrar", "token", "--dir", folder]) == 78, "encrypted, and no passphrase"
    with_passphrase = ["--dir", folder, "--passphrase-file", str(secret)]
    assert main(["registrar", "token", *with_passphrase]) == 0
    assert main(["registrar", "token", *with_passphrase, "--home", "ab" * 20]) == 78
    assert main(["registrar", "token", *with_passphrase, "--address", "xy"]) == 78
    assert main(["registrar", "revoke", *with_passphrase, "ab" * 20]) == 78
    assert main(["registrar", "network", *with_passphrase]) == 0
    said = capsys.readouterr().err
    for word in (
        "no registrar here",
        "already holds a registrar",
        "host:port",
        "no miner",
        "hexadecimal",
        "given it no certificate",
    ):
        assert word in said, word
    assert "Traceback" not in said


def test_a_registrar_of_another_user_is_left_alone(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What root wrote into the service's folder, the service could not write on: refused, with the command to use."""
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert main(["registrar", "token", "--dir", str(registrar.folder)]) == 78
    assert "runuser" in capsys.readouterr().err
