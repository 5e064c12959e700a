"""The base of a ledger: a state that a final header certifies, which replaces the blocks up to it."""

from __future__ import annotations

from dataclasses import dataclass

from flchain.base.errors import InvalidMessage, LedgerCorrupt
from flchain.base.types import Height
from flchain.ledger.block import hash_header
from flchain.ledger.certificate import verify_certificate
from flchain.ledger.limits import compute_state_bytes_max
from flchain.ledger.snapshot import decode_state
from flchain.ledger.state import ChainState
from flchain.light.trust import CertifiedHeader, decode_sets
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from miner.core.tip import LedgerSummary, Standing, Tip

BASE_COLUMNS = "header, certificate, sets, state"
BASE_QUERY = f"SELECT {BASE_COLUMNS} FROM base"


@dataclass(frozen=True)
class StoredBase:
    """A row of BASE_COLUMNS."""

    head: CertifiedHeader
    data: bytes


def read_base(row: tuple[object, ...] | None) -> StoredBase | None:
    """Return the stored base, if there is one. Raises LedgerCorrupt: SQLite allows any type in any column."""
    if row is None:
        return None
    header, certificate, sets, state = row
    if not (
        isinstance(header, bytes)
        and isinstance(certificate, bytes)
        and isinstance(sets, bytes)
        and isinstance(state, bytes)
    ):
        raise LedgerCorrupt(0, "base: not stored as bytes")
    return StoredBase(CertifiedHeader(header, certificate, sets), state)


def restore_base(genesis_state: ChainState, base: StoredBase | None) -> Standing:
    """Return where the ledger begins. The base's validators are taken from the ledger unchecked; all else is checked.

    Raises LedgerCorrupt.
    """
    if base is None:
        return Standing(genesis_state)
    try:
        header = decode_struct(base.head.header, Header, HEADER_BYTES_MAX)
        if header.chain != genesis_state.chain:
            raise LedgerCorrupt(header.height, "base: belongs to another chain")
        signing, _ = decode_sets(header, base.head.sets)
        height, block_hash = Height(header.height), hash_header(base.head.header)
        verify_certificate(genesis_state.chain, signing, height, block_hash, base.head.certificate)
        params = genesis_state.params
        bytes_max = compute_state_bytes_max(params, len(genesis_state.devices))
        state = decode_state(base.data, base.head.header, params, bytes_max)
    except InvalidMessage as error:
        raise LedgerCorrupt(0, f"base: {error.code}: {error}") from error
    is_change = header.validators_hash != header.next_validators_hash
    return Standing(state, LedgerSummary(Tip(base.head, None, None, is_change), base=height))
