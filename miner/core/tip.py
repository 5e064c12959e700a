"""What a miner keeps in memory of its ledger for nodes that are behind: newest block, validator changes, payloads."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeAlias

from flchain.base.fixedpoint import VALUE_BYTES
from flchain.base.types import Height, Round
from flchain.ledger.block import Block, is_body_for_devices, is_settling
from flchain.ledger.limits import PAYLOADS_MAX
from flchain.ledger.state import NO_HEIGHT, ChainState
from flchain.light.body import build_light_body
from flchain.light.trust import CertifiedHeader, encode_sets

CHANGES_KEPT_MAX = 256
"""A device that has missed more changes of the validators than this needs a checkpoint."""

PAYLOADS_BYTES_MAX = 4_000_000
PAYLOAD_FRAME_BYTES = 5
"""What a packet adds to one payload."""


@dataclass(frozen=True)
class Tip:
    """The newest final block: header, certificate and validators in `head`, and what devices need of its body."""

    head: CertifiedHeader
    body: bytes | None
    """None unless devices need it: updates or a settlement."""
    light_body: bytes | None
    """What light devices take instead; None if the block settles nothing or arrived with a state."""
    is_change: bool
    """True if the next block has other validators."""


Payloads: TypeAlias = tuple[tuple[Round, bytes], ...]
"""The payloads by which the newest settled rounds changed the model, round after round."""
Changes: TypeAlias = tuple[tuple[Height, CertifiedHeader], ...]
"""The final headers at which validators changed, in order of height: what leads a light client to the present ones."""


@dataclass(frozen=True)
class LedgerSummary:
    """What a miner answers with, beyond the blocks in its ledger."""

    tip: Tip | None = None
    """None at the very start of a chain."""
    changes: Changes = ()
    """The newest CHANGES_KEPT_MAX of them."""
    payloads: Payloads = ()
    base: Height = NO_HEIGHT
    """The ledger has the blocks after this height: 0, or the height of the state that it begins with."""


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a miner stands after a start: the chain's state according to its ledger, and the ledger's summary."""

    chain: ChainState
    ledger: LedgerSummary = field(default_factory=LedgerSummary)


def build_tip(block: Block, certificate: bytes, before: ChainState, after: ChainState) -> Tip:
    """Return the tip for the block that leads from one state to the next."""
    head = CertifiedHeader(block.header_bytes, certificate, encode_sets(before.validators, after.validators))
    body = block.body_bytes if is_body_for_devices(block.header) else None
    light_body = None
    if is_settling(block.header):
        light_body = build_light_body(block.decode_body(), after.payload)
    return Tip(head, body, light_body, is_change=block.header.validators_hash != block.header.next_validators_hash)


def extend(standing: Standing, block: Block, certificate: bytes, after: ChainState) -> Standing:
    """Return the standing after one more final block."""
    return Standing(after, add_block(standing.ledger, block, certificate, standing.chain, after))


def add_block(
    ledger: LedgerSummary, block: Block, certificate: bytes, before: ChainState, after: ChainState
) -> LedgerSummary:
    """Return the summary after one more final block, which leads from `before` to `after`."""
    tip = build_tip(block, certificate, before, after)
    changes = add_change(ledger.changes, after.height, tip)
    return LedgerSummary(tip, changes, add_payload(ledger.payloads, before, after), ledger.base)


def add_payload(payloads: Payloads, before: ChainState, after: ChainState) -> Payloads:
    """Return the payloads with that of the block between two states.

    The oldest are dropped once all together would be longer than the model.
    """
    if after.round.number == before.round.number:
        return payloads
    room = min(PAYLOADS_BYTES_MAX, VALUE_BYTES * after.params.parameters_count)
    kept: list[tuple[Round, bytes]] = []
    for number, payload in ((before.round.number, after.payload), *reversed(payloads)):
        room -= len(payload) + PAYLOAD_FRAME_BYTES
        if room < 0 or len(kept) == PAYLOADS_MAX:
            break
        kept.append((number, payload))
    return tuple(reversed(kept))


def add_change(changes: Changes, height: Height, tip: Tip) -> Changes:
    """Return the changes, with this block's header added if the validators change after it.

    A miner that is far behind learns of changes by proof before it has the blocks up to them: they may come in any
    order, and twice. Those that it answers with are in order of height, as nodes have to follow them.
    """
    if not tip.is_change or any(at == height for at, _ in changes):
        return changes
    return tuple(sorted((*changes, (height, tip.head)), key=itemgetter(0))[-CHANGES_KEPT_MAX:])
