"""Sections of the configuration file that agent and miner share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class KeySettings:
    """Where the node's Ed25519 key is, and its passphrase if it has one."""

    file: Path = field(metadata={"help": "PKCS#8 PEM, mode 600; made at the first start", "example": "key.pem"})
    passphrase_env: str | None = field(default=None, metadata={"help": "environment variable that holds it"})
    passphrase_file: Path | None = field(default=None, metadata={"help": "file that holds it, a systemd credential"})


@dataclass(frozen=True)
class LogSettings:
    """What is said on stderr."""

    level: str = field(default="info", metadata={"choices": ("debug", "info", "warning", "error")})
