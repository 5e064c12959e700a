"""Whose releases root believes: the chain and the operator's keys, pinned the first time they are needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from agent.edge.update.inbox import TRUST, Inbox, Refused
from agent.edge.update.keeper import replace_file
from flchain.base.crypto import is_public_key
from flchain.base.types import HASH_BYTES

TRUST_BYTES_MAX = 4_096
OPERATORS_MAX = 16
ETC_TRUST = Path("/etc/flchain/update-trust.json")
"""What an operator has put there counts, whatever the agent says."""


@dataclass(frozen=True)
class Trust:
    """A chain's id, and the public keys whose releases for it are believed."""

    chain: bytes
    operators: tuple[bytes, ...]


def encode_trust(trust: Trust) -> bytes:
    """Return the file."""
    return json.dumps({"chain": trust.chain.hex(), "operators": [key.hex() for key in trust.operators]}).encode()


def decode_trust(data: bytes, name: str) -> Trust:
    """Read the file. Raise Refused."""
    try:
        content = json.loads(data)
        found = Trust(bytes.fromhex(content["chain"]), tuple(bytes.fromhex(key) for key in content["operators"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused(f"{name}: cannot be read: {error}") from error
    if len(found.chain) != HASH_BYTES or not all(is_public_key(key) for key in found.operators):
        raise Refused(f"{name}: has no chain, or a key that is none")
    if not 0 < len(found.operators) <= OPERATORS_MAX:
        raise Refused(f"{name}: names {len(found.operators)} operators; 1 to {OPERATORS_MAX} are possible")
    return found


def load_or_pin(folder: Path, inbox: Inbox, etc: Path = ETC_TRUST) -> Trust:
    """Return what is pinned in root's folder or in /etc; the first time, pin what the agent learned when it enrolled.

    Raise Refused, OSError.
    """
    for path in (etc, folder / TRUST):
        if path.is_file():
            return decode_trust(path.read_bytes(), str(path))
    found = decode_trust(inbox.read(TRUST, TRUST_BYTES_MAX), TRUST)
    replace_file(folder / TRUST, encode_trust(found))
    return found
