"""A node's Ed25519 key in a file: PKCS#8 in PEM, encrypted if there is a passphrase. Other tools can read it."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError
from flchain_edge.keys.private_files import create_private

ED25519_OID = "1.3.101.112"
SEED_BYTES = 32
KEY_FILE_BYTES_MAX = 4096
PROTECTION = "scryptAndAES256-CBC"
SCRYPT_COST = 16_384
SCRYPT_BLOCK_SIZE = 8
"""scrypt with 16 MiB (RFC 7914): fast enough for a small board's start, slow for an attacker."""
_CLEAR = "PRIVATE KEY"
_ENCRYPTED = "ENCRYPTED PRIVATE KEY"
_SEED_HEADER = bytes((0x04, SEED_BYTES))
"""RFC 8410: the seed is an OCTET STRING within PKCS#8's own."""
_CLEAR_HEADER = bytes.fromhex("302e020100300506032b65700422") + _SEED_HEADER
"""Everything before the seed of an unencrypted key without attributes."""


def load_or_create_identity(path: Path, passphrase: str | None) -> Identity:
    """Return the identity in the file, which is created on first use (mode 600, in a folder of mode 700).

    Raise ConfigError: readable by others, wrong or missing passphrase, a passphrase for an unencrypted file, not
    an Ed25519 key, not readable, not writable.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_private(path, _encode_key(secrets.token_bytes(SEED_BYTES), passphrase).encode())
        text = _read_private(path)
    except OSError as error:
        raise ConfigError((f"key file {path}: {error.strerror or error}",)) from error
    try:
        return Identity.from_seed(_decode_key(text, passphrase))
    except ValueError as error:
        raise ConfigError((f"key file {path}: {error}",)) from error


def load_passphrase(env: str | None, file: Path | None, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the passphrase from the environment variable or the file that the configuration names.

    If it names neither: from the credential *.passphrase that systemd has given this service, or None. Raise
    ConfigError: both named, the variable unset, the file unreadable, readable by everybody, or empty.
    """
    environ = os.environ if environ is None else environ
    if env and file:
        raise ConfigError(("passphrase: name an environment variable or a file, not both",))
    if env:
        value = environ.get(env)
        if not value:
            raise ConfigError((f"passphrase: the environment variable {env} is not set",))
        return value
    file = file or _find_credential(environ)
    if file is None:
        return None
    try:
        if file.stat().st_mode & stat.S_IROTH:
            raise ConfigError((f"passphrase file {file}: everybody can read it; run: chmod 600 {file}",))
        value = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError((f"passphrase file {file}: {error.strerror or error}",)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"passphrase file {file}: is not text: {error}",)) from error
    if not value:
        raise ConfigError((f"passphrase file {file}: is empty",))
    return value


def _find_credential(environ: Mapping[str, str]) -> Path | None:
    """Return the file of the passphrase among the unit's credentials (LoadCredential=, systemd.exec(5))."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    found = sorted(Path(folder).glob("*.passphrase")) if folder else []
    if len(found) > 1:
        raise ConfigError((f"passphrase: {len(found)} credentials fit *.passphrase: name one in passphrase_file",))
    return found[0] if found else None


def _encode_key(seed: bytes, passphrase: str | None) -> str:
    from Crypto.IO import PEM, PKCS8

    key = _SEED_HEADER + seed
    if passphrase is None:
        return str(PEM.encode(PKCS8.wrap(key, ED25519_OID, key_params=None), _CLEAR))
    wrapped = PKCS8.wrap(
        key,
        ED25519_OID,
        passphrase=passphrase,
        protection=PROTECTION,
        prot_params={
            "iteration_count": SCRYPT_COST,
            "block_size": SCRYPT_BLOCK_SIZE,
            "parallelization": 1,
            "salt_size": 16,
        },
        key_params=None,
    )
    return str(PEM.encode(wrapped, _ENCRYPTED))


def _decode_key(text: str, passphrase: str | None) -> bytes:
    """Return the seed. Raise ValueError, which says what is wrong in words for the operator."""
    if passphrase is None and (seed := _read_clear_seed(text)) is not None:
        return seed
    from Crypto.IO import PEM, PKCS8

    try:
        der, marker, _ = PEM.decode(text)
    except ValueError as error:
        raise ValueError(f"is not a PEM key file ({error})") from error
    if marker not in (_CLEAR, _ENCRYPTED):
        raise ValueError(f'holds "{marker}", not a PKCS#8 private key')
    if marker == _ENCRYPTED and passphrase is None:
        raise ValueError("is encrypted: say in the configuration where its passphrase is")
    if marker == _CLEAR and passphrase is not None:
        raise ValueError("is not encrypted, yet a passphrase is configured: it protects nothing")
    try:
        oid, key, _ = PKCS8.unwrap(der, passphrase)
    except (ValueError, IndexError) as error:
        raise ValueError("wrong passphrase" if marker == _ENCRYPTED else f"is damaged ({error})") from error
    if oid != ED25519_OID or len(key) != len(_SEED_HEADER) + SEED_BYTES or not key.startswith(_SEED_HEADER):
        raise ValueError("is not an Ed25519 key")
    return bytes(key[len(_SEED_HEADER) :])


def _read_clear_seed(text: str) -> bytes | None:
    """Return the seed of an unencrypted key in the one form of RFC 8410 (section 10.3); None for all others.

    The library that reads the others would cost an agent 4 MB for its whole life.
    """
    lines = text.strip().split("\n")
    if (lines[0], lines[-1]) != (f"-----BEGIN {_CLEAR}-----", f"-----END {_CLEAR}-----"):
        return None
    try:
        der = base64.b64decode("".join(lines[1:-1]), validate=True)
    except ValueError:
        return None
    is_known = len(der) == len(_CLEAR_HEADER) + SEED_BYTES and der.startswith(_CLEAR_HEADER)
    return der[len(_CLEAR_HEADER) :] if is_known else None


def _read_private(path: Path) -> str:
    """Return the file's text if nobody else can read it, as checked on the open file, which cannot be swapped."""
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError((f"key file {path}: is not a regular file",))
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError((f"key file {path}: group or others have access to it; run: chmod 600 {path}",))
        return stream.read(KEY_FILE_BYTES_MAX).decode("ascii", errors="replace")
