"""Key files: created once and whole, private, readable by other tools, refused when they are not safe."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from Crypto.PublicKey import ECC

from flchain.base.errors import ConfigError
from flchain_edge.keys.keystore import load_or_create_identity, load_passphrase
from flchain_edge.keys.private_files import create_private


@pytest.mark.parametrize("passphrase", [None, "correct horse ü"])
def test_identity_survives_a_restart(tmp_path: Path, passphrase: str | None) -> None:
    """The key made at the first start is the key of every later one; nobody else may read it; nothing else is left."""
    path = tmp_path / "keys" / "device.pem"
    first = load_or_create_identity(path, passphrase)
    assert load_or_create_identity(path, passphrase) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    assert load_or_create_identity(tmp_path / "other.pem", passphrase) != first


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_another_library_reads_the_file(tmp_path: Path, passphrase: str | None) -> None:
    """The file is plain PKCS#8: a general reader finds the same Ed25519 key, and a file that it wrote is accepted."""
    path = tmp_path / "device.pem"
    identity = load_or_create_identity(path, passphrase)
    key = ECC.import_key(path.read_text(), passphrase=passphrase)
    assert key.curve == "Ed25519"
    assert key.seed == identity.seed
    assert key.public_key().export_key(format="raw") == identity.public_key
    path.write_text(key.export_key(format="PEM", passphrase=passphrase))
    assert load_or_create_identity(path, passphrase) == identity


def test_seed_is_not_in_an_encrypted_file(tmp_path: Path) -> None:
    """With a passphrase the file does not hold the seed, and the passphrase is really asked for."""
    path = tmp_path / "device.pem"
    load_or_create_identity(path, "right")
    assert "ENCRYPTED" in path.read_text()
    with pytest.raises(ConfigError, match="wrong passphrase"):
        load_or_create_identity(path, "wrong")
    with pytest.raises(ConfigError, match="is encrypted"):
        load_or_create_identity(path, None)


def test_passphrase_for_a_clear_file_is_told(tmp_path: Path) -> None:
    """With a passphrase configured an operator believes the key protected: an unencrypted file is refused."""
    path = tmp_path / "device.pem"
    load_or_create_identity(path, None)
    with pytest.raises(ConfigError, match="not encrypted"):
        load_or_create_identity(path, "right")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A key that group or others can touch is refused with the command that mends it."""
    path = tmp_path / "device.pem"
    load_or_create_identity(path, None)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_identity(path, None)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "certificate", "p256", "folder"])
def test_what_is_no_key_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    """Damaged and foreign files raise ConfigError naming the file, and are never overwritten by a new key."""
    path = tmp_path / "device.pem"
    load_or_create_identity(path, None)
    whole = path.read_text()
    if kind == "folder":
        path.unlink()
        path.mkdir(mode=0o700)
    else:
        content = {
            "empty": "",
            "text": "hello",
            "cut": whole[:60],
            "certificate": whole.replace("PRIVATE KEY", "CERTIFICATE"),
            "p256": ECC.generate(curve="P-256").export_key(format="PEM"),
        }[kind]
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"device\.pem"):
        load_or_create_identity(path, None)
    assert kind == "folder" or path.read_text() == content


def test_unwritable_place_is_the_operators_fault(tmp_path: Path) -> None:
    """A folder that cannot be made is a ConfigError."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="key file"):
        load_or_create_identity(tmp_path / "file" / "device.pem", None)


def test_simultaneous_first_starts_agree(tmp_path: Path) -> None:
    """Many first starts at once end with one key that all of them hold."""
    path = tmp_path / "device.pem"
    with ThreadPoolExecutor(8) as pool:
        identities = list(pool.map(lambda _: load_or_create_identity(path, None), range(16)))
    assert len({identity.seed for identity in identities}) == 1
    assert os.listdir(tmp_path) == ["device.pem"]


def test_key_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    """A process that loses the race to create the file takes the winner's key, however late it comes."""
    path = tmp_path / "device.pem"
    winner = load_or_create_identity(path, None)
    create_private(path, b"the loser's")
    assert load_or_create_identity(path, None) == winner
    assert os.listdir(tmp_path) == ["device.pem"]


def test_passphrase_comes_from_where_the_configuration_says(tmp_path: Path) -> None:
    """A variable or a credential file gives the passphrase; both, none of the named, or a public file is refused."""
    file = tmp_path / "passphrase"
    file.write_text("secret words\n")
    file.chmod(0o600)
    assert load_passphrase(None, None, {}) is None
    assert load_passphrase("P", None, {"P": "from the environment"}) == "from the environment"
    assert load_passphrase(None, file, {}) == "secret words"
    with pytest.raises(ConfigError, match="both"):
        load_passphrase("P", file, {"P": "x"})
    with pytest.raises(ConfigError, match="P is not set"):
        load_passphrase("P", None, {})
    with pytest.raises(ConfigError, match="missing"):
        load_passphrase(None, tmp_path / "missing", {})
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="everybody"):
        load_passphrase(None, file, {})
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        load_passphrase(None, file, {})


def test_the_passphrase_may_be_a_credential_of_systemd(tmp_path: Path) -> None:
    """What LoadCredential= brings is used if the configuration names no other source; two of a kind are a question."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(credentials), "P": "from the environment"}
    assert load_passphrase(None, None, environ) is None
    (credentials / "flchain-agent.passphrase").write_text("from systemd\n")
    (credentials / "flchain-agent.passphrase").chmod(0o400)
    assert load_passphrase(None, None, environ) == "from systemd"
    assert load_passphrase("P", None, environ) == "from the environment"
    (credentials / "other.passphrase").write_text("x")
    with pytest.raises(ConfigError, match="name one"):
        load_passphrase(None, None, environ)
