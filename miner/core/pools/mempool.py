"""Messages that wait for a block: bounded, one of each kind for a sender and round; what is dropped is reported.

They are kept as they were verified. When a block carries them or a peer repeats them, their bytes are recognised, and
nothing is opened again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flchain.base.errors import DuplicateMessage, InvalidMessage, PoolFull
from flchain.base.frozen import Growing
from flchain.base.types import Address, Round
from flchain.incentives import REPUTATION_MAX
from flchain.ledger.state import ChainState, find_device
from flchain.rules.phases import PHASE_KINDS
from flchain.rules.transactions import check_transaction, verify_transaction
from flchain.wire.envelope import Letter, Verified
from flchain.wire.fields import Kind

POOL_BYTES_MAX = 256_000_000
NEVER_DROPPED = REPUTATION_MAX + 1
"""Above every device's reputation: validators' scores are small and never make room for a device."""

Slot = tuple[Round, Kind]
Key = tuple[Round, Kind, Address]
Pending = Growing[Address, Verified]
"""Messages of one slot, by sender."""
NOTHING_PENDING: Pending = Growing()


@dataclass(frozen=True)
class Mempool:
    """Verified messages by (round, kind) and sender, and by their bytes; `bytes_held` is the sum of their lengths."""

    slots: Mapping[Slot, Pending] = field(default_factory=dict)
    by_bytes: Growing[bytes, Verified] = field(default_factory=Growing)
    bytes_held: int = 0

    def iterate(self) -> Iterator[tuple[Key, Verified]]:
        """Return all messages, each with its place."""
        for (round_number, kind), pending in self.slots.items():
            for sender, said in pending.items():
                yield (round_number, kind, sender), said


def is_known(pool: Mempool, letter: Letter) -> bool:
    """True if these bytes wait already. Raises DuplicateMessage if another message of the sender has this place."""
    held = get_pending(pool, Round(letter.number), letter.kind).get(letter.sender)
    if held is not None and held.raw != letter.raw:
        raise DuplicateMessage(f"another {letter.kind.name} of {letter.sender.hex()} in round {letter.number}")
    return held is not None


def insert(pool: Mempool, state: ChainState, said: Verified) -> tuple[Mempool, tuple[Key, ...]]:
    """Add a message that is not known yet; return also the places of what was dropped for it.

    When full, messages of devices with the lowest reputation go first. Raises PoolFull if the new one is the lowest.
    """
    dropped: tuple[Key, ...] = ()
    if pool.bytes_held + len(said.raw) > POOL_BYTES_MAX:
        pool, dropped = _make_room(pool, state, said)
    slot = Round(said.number), said.kind
    slots = {**pool.slots, slot: pool.slots.get(slot, NOTHING_PENDING).with_item(said.sender, said)}
    by_bytes = pool.by_bytes.with_item(said.raw, said)
    return Mempool(slots, by_bytes, pool.bytes_held + len(said.raw)), dropped


def _make_room(pool: Mempool, state: ChainState, said: Verified) -> tuple[Mempool, tuple[Key, ...]]:
    bytes_held, dropped = pool.bytes_held, []
    for key, held in sorted(pool.iterate(), key=lambda item: (_get_reputation(state, item[0][2]), item[0])):
        if bytes_held + len(said.raw) <= POOL_BYTES_MAX:
            break
        if _get_reputation(state, key[2]) >= _get_reputation(state, said.sender):
            raise PoolFull(f"{POOL_BYTES_MAX} bytes wait already")
        bytes_held -= len(held.raw)
        dropped.append(key)
    return remove(pool, frozenset(dropped)), tuple(dropped)


def _get_reputation(state: ChainState, sender: Address) -> int:
    device = find_device(state, sender)
    return device.reputation if device else NEVER_DROPPED


def get_pending(pool: Mempool, round_number: Round, kind: Kind | None) -> Pending:
    """Return the messages of one kind for one round, by sender."""
    return pool.slots.get((round_number, kind), NOTHING_PENDING) if kind is not None else NOTHING_PENDING


def remove(pool: Mempool, keys: frozenset[Key]) -> Mempool:
    """Return the pool without the messages at these places."""
    return _build(said for key, said in pool.iterate() if key not in keys) if keys else pool


def drop_refused(pool: Mempool, state: ChainState) -> tuple[Mempool, tuple[InvalidMessage, ...]]:
    """When a phase begins, drop its messages that arrived early and turn out to break a rule; return also the reasons.

    The others keep what the rules have worked out.
    """
    slot = state.round.number, PHASE_KINDS.get(state.round.phase)
    kept: list[Verified] = []
    refused: list[InvalidMessage] = []
    for key, said in pool.iterate():
        if key[:2] != slot:
            kept.append(said)
            continue
        try:
            kept.append(check_transaction(state, verify_transaction(state, said)))
        except InvalidMessage as error:
            refused.append(error)
    return _build(kept), tuple(refused)


def prune(pool: Mempool, round_number: Round) -> Mempool:
    """Return the pool without the messages of rounds that are over."""
    if all(slot[0] >= round_number for slot in pool.slots):
        return pool
    return _build(said for key, said in pool.iterate() if key[0] >= round_number)


def _build(listed: Iterable[Verified]) -> Mempool:
    slots: dict[Slot, dict[Address, Verified]] = {}
    by_bytes: dict[bytes, Verified] = {}
    for said in listed:
        slots.setdefault((Round(said.number), said.kind), {})[said.sender] = said
        by_bytes[said.raw] = said
    pending = {slot: Growing(by_sender) for slot, by_sender in slots.items()}
    return Mempool(pending, Growing(by_bytes), sum(map(len, by_bytes)))
