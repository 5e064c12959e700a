"""What the registrar remembers: tokens (only their hashes), nodes, certificates; and an audit log of all it did."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flchain.base.errors import ConfigError

REGISTER_FILE = "registrar.db"
AUDIT_FILE = "audit.log"
BUSY_S = 10.0
"""How long `sign`, `revoke` and `serve` wait for each other; a decision takes milliseconds."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    hash BLOB PRIMARY KEY, role TEXT NOT NULL, address TEXT NOT NULL, home TEXT NOT NULL,
    expires_s INTEGER NOT NULL, used_by TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS nodes (
    address TEXT PRIMARY KEY, role TEXT NOT NULL, public_key TEXT NOT NULL, home TEXT NOT NULL,
    enrolled_s INTEGER NOT NULL, revoked_s INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, key BLOB NOT NULL, pem TEXT NOT NULL,
    not_after_s INTEGER NOT NULL, revoked_s INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS certificates_by_name ON certificates (name);
"""


@dataclass(frozen=True)
class TokenRecord:
    """A token, by its hash. An empty text means: any address, no home named, not used yet."""

    hash: bytes
    role: str
    address: str
    home: str
    expires_s: int
    used_by: str = ""


@dataclass(frozen=True)
class NodeRecord:
    """A board or a miner that has enrolled; addresses and keys in hexadecimal."""

    address: str
    role: str
    public_key: str
    home: str
    enrolled_s: int
    revoked_s: int = 0


@dataclass(frozen=True)
class CertificateRecord:
    """A certificate; `name` is its common name, `key` its public key (DER)."""

    serial: str
    name: str
    role: str
    key: bytes
    pem: str
    not_after_s: int
    revoked_s: int = 0


class Register:
    """One registrar's database and log. Every change is on disk before the request is answered."""

    def __init__(self, folder: Path, *, busy_s: float = BUSY_S) -> None:
        """Open the database. Raise ConfigError if that fails."""
        self._audit_path = folder / AUDIT_FILE
        try:
            self._db = sqlite3.connect(folder / REGISTER_FILE, timeout=busy_s, isolation_level=None)
            os.chmod(folder / REGISTER_FILE, 0o600)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ConfigError((f"{folder / REGISTER_FILE}: {error}",)) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def note(self, clock_s: int, event: str, **details: object) -> None:
        """Append a line to the audit log, on disk when this returns."""
        when = datetime.fromtimestamp(clock_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = (json.dumps({"time": when, "event": event, **details}) + "\n").encode()
        descriptor = os.open(self._audit_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            while line:  # a disk that is nearly full takes a part and refuses the rest
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def add_token(self, token: TokenRecord) -> None:
        """Add a token."""
        row = (token.hash, token.role, token.address, token.home, token.expires_s)
        self._db.execute("INSERT INTO tokens (hash, role, address, home, expires_s) VALUES (?, ?, ?, ?, ?)", row)

    def get_token(self, token_hash: bytes) -> TokenRecord | None:
        """Return the token with this hash."""
        row = self._get("SELECT hash, role, address, home, expires_s, used_by FROM tokens WHERE hash = ?", token_hash)
        return TokenRecord(*row) if row else None

    def get_node(self, address: str) -> NodeRecord | None:
        """Return the node with this address."""
        row = self._get("SELECT * FROM nodes WHERE address = ?", address)
        return NodeRecord(*row) if row else None

    def list_nodes(self) -> list[NodeRecord]:
        """Return all nodes, miners too, by address."""
        return [NodeRecord(*row) for row in self._db.execute("SELECT * FROM nodes ORDER BY address")]

    def list_certificates(self, name: str | None = None) -> list[CertificateRecord]:
        """Return all certificates, or those of this name, the oldest first."""
        where, values = ("", ()) if name is None else (" WHERE name = ?", (name,))
        rows = self._db.execute(f"SELECT * FROM certificates{where} ORDER BY rowid", values)
        return [CertificateRecord(*row) for row in rows]

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Make the block one step: other processes come before it or after, and a crash leaves nothing of it.

        Otherwise `sign` beside `serve` could take one token twice, and a renewal could outlive a `revoke`.
        """
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            yield

    def enrol(self, token_hash: bytes, node: NodeRecord) -> None:
        """Add a node, and mark its token as used by it."""
        self._db.execute("UPDATE tokens SET used_by = ? WHERE hash = ?", (node.address, token_hash))
        row = (node.address, node.role, node.public_key, node.home, node.enrolled_s)
        self._db.execute(
            "INSERT OR IGNORE INTO nodes (address, role, public_key, home, enrolled_s) VALUES (?, ?, ?, ?, ?)", row
        )

    def add_certificate(self, made: CertificateRecord) -> None:
        """Add a certificate."""
        row = (made.serial, made.name, made.role, made.key, made.pem, made.not_after_s)
        self._db.execute(
            "INSERT INTO certificates (serial, name, role, key, pem, not_after_s) VALUES (?, ?, ?, ?, ?, ?)", row
        )

    def revoke(self, name: str, clock_s: int) -> int:
        """Revoke a node (or a server) and every certificate that it has; return how many."""
        self._db.execute("UPDATE nodes SET revoked_s = ? WHERE address = ? AND revoked_s = 0", (clock_s, name))
        revoked = self._db.execute(
            "UPDATE certificates SET revoked_s = ? WHERE name = ? AND revoked_s = 0", (clock_s, name)
        )
        return revoked.rowcount

    def _get(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        return row
