"""The keys of a network's operators, as a node keeps them: whose releases it installs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flchain.base.crypto import PUBLIC_KEY_BYTES, is_public_key
from flchain.base.errors import ConfigError
from flchain_edge.enrolment.messages import read_hex
from flchain_edge.keys.private_files import create_private

OPERATORS_MAX = 16


def keep_operators(path: Path, keys: Sequence[str]) -> None:
    """Write the keys into a file that does not exist yet: later answers of a registrar change nothing. Raise OSError.

    Raise ValueError for what is no key, or too many.
    """
    if not keys or path.exists():
        return
    create_private(path, "".join(f"{_read_key(key).hex()}\n" for key in keys[:OPERATORS_MAX]).encode())


def load_operators(path: Path | None) -> tuple[bytes, ...]:
    """Return the keys; none if there is no file yet. Raise ConfigError."""
    if path is None:
        return ()
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        keys = tuple(_read_key(line) for line in lines if line and not line.startswith("#"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise ConfigError((f"[enrolment] operators {path}: {text}",)) from error
    if len(keys) > OPERATORS_MAX:
        raise ConfigError((f"[enrolment] operators {path}: more than {OPERATORS_MAX} keys",))
    return keys


def _read_key(text: str) -> bytes:
    key = read_hex(text, PUBLIC_KEY_BYTES)
    if not is_public_key(key):
        raise ValueError(f"{text[:64]!r} is no public key")
    return key
