"""Messages that wait for a block: bounded, one of a kind per sender and round, and it says what it drops."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flchain.base.errors import DuplicateMessage, InvalidMessage, PoolFull
from flchain.base.types import Address, Hash, Round
from flchain.ledger.state import ChainState, find_device
from flchain.rules.blocks import process_transaction, verify_transaction
from flchain.rules.phases import PHASE_KINDS
from flchain.wire.envelope import Envelope, open_envelope
from flchain.wire.messages import Kind

POOL_BYTES_MAX = 256_000_000

Key = tuple[Round, Kind, Address]


@dataclass(frozen=True)
class Mempool:
    """Signed messages by (round, kind, sender); `bytes_held` is the sum of their lengths."""

    messages: dict[Key, bytes] = field(default_factory=dict)
    digests: dict[Key, Hash] = field(default_factory=dict)
    bytes_held: int = 0


def get_key(envelope: Envelope) -> Key:
    """Where a message belongs."""
    return Round(envelope.number), envelope.kind, envelope.sender


def is_known(pool: Mempool, envelope: Envelope) -> bool:
    """True if these very bytes wait already. Raises DuplicateMessage if the sender has said something else here."""
    held = pool.digests.get(get_key(envelope))
    if held is not None and held != envelope.digest():
        raise DuplicateMessage(f"another {envelope.kind.name} of {envelope.sender.hex()} in round {envelope.number}")
    return held is not None


def insert(pool: Mempool, state: ChainState, envelope: Envelope) -> tuple[Mempool, tuple[Key, ...]]:
    """Add a verified message; returns what was dropped for it.

    When full, messages of devices with the lowest reputation go first. Raises PoolFull if the new one is the lowest.
    """
    messages, digests = dict(pool.messages), dict(pool.digests)
    bytes_held, dropped = pool.bytes_held, []
    is_full = bytes_held + len(envelope.raw) > POOL_BYTES_MAX
    # Sorted only then: with a thousand devices the look at every reputation takes longer than all the rest.
    for key in sorted(messages, key=lambda key: (_get_reputation(state, key[2]), key)) if is_full else ():
        if bytes_held + len(envelope.raw) <= POOL_BYTES_MAX:
            break
        if _get_reputation(state, key[2]) >= _get_reputation(state, envelope.sender):
            raise PoolFull(f"{POOL_BYTES_MAX} bytes wait already")
        bytes_held -= len(messages.pop(key))
        del digests[key]
        dropped.append(key)
    key = get_key(envelope)
    messages[key], digests[key] = envelope.raw, envelope.digest()
    return Mempool(messages, digests, bytes_held + len(envelope.raw)), tuple(dropped)


def _get_reputation(state: ChainState, sender: Address) -> int:
    device = find_device(state, sender)
    return device.reputation if device else 10_001  # validators' scores are small and never dropped for a device


def get_candidates(pool: Mempool, round_number: Round, kind: Kind | None) -> dict[Address, bytes]:
    """The messages of one kind for one round, by sender."""
    return {key[2]: raw for key, raw in pool.messages.items() if key[0] == round_number and key[1] is kind}


def remove(pool: Mempool, digests: frozenset[Hash]) -> Mempool:
    """Without these messages: a rule of the chain refuses them for good."""
    return _keep(pool, frozenset(key for key, digest in pool.digests.items() if digest not in digests))


def drop_refused(pool: Mempool, state: ChainState) -> tuple[Mempool, tuple[InvalidMessage, ...]]:
    """When a phase begins: without what came before it and turns out to break a rule of the chain, and why."""
    refused: dict[Hash, InvalidMessage] = {}
    for raw in get_candidates(pool, state.round.number, PHASE_KINDS.get(state.round.phase)).values():
        envelope = open_envelope(raw, state.chain)
        try:
            process_transaction(state, verify_transaction(state, envelope), envelope.sender)
        except InvalidMessage as error:
            refused[envelope.digest()] = error
    return remove(pool, frozenset(refused)), tuple(refused.values())


def prune(pool: Mempool, round_number: Round) -> Mempool:
    """Without the messages of rounds that are over."""
    return _keep(pool, frozenset(key for key in pool.messages if key[0] >= round_number))


def _keep(pool: Mempool, keys: frozenset[Key]) -> Mempool:
    messages = {key: raw for key, raw in pool.messages.items() if key in keys}
    digests = {key: digest for key, digest in pool.digests.items() if key in keys}
    return replace(pool, messages=messages, digests=digests, bytes_held=sum(map(len, messages.values())))
