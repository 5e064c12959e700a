"""The newest final block as others want it, and the way to its validators: what a miner tells those who are behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from flchain.chain import Block, is_body_for_devices
from flchain.state import NO_HEIGHT, ChainState
from flchain.trust import Head, encode_sets
from flchain.types import Height

CHANGES_KEPT_MAX = 256
"""A device that has missed more changes of the validators than these needs a checkpoint."""


@dataclass(frozen=True)
class Tip:
    """The newest final block; its head comes with the validators."""

    head: Head
    body: bytes | None
    """Only if devices need it: updates or a settlement."""
    is_change: bool
    """True if the validators of the next block are others."""


Changes: TypeAlias = tuple[tuple[Height, Head], ...]
"""The final headers at which validators changed, in order of height: what leads a light client to the present ones."""


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a miner stands after a start: the chain's state by its ledger, and what it tells others of it."""

    chain: ChainState
    tip: Tip | None = None
    changes: Changes = ()
    base: Height = NO_HEIGHT
    """The ledger has the blocks after this height: 0, or that of the state it began anew with."""


def build_tip(block: Block, certificate: bytes, before: ChainState, after: ChainState) -> Tip:
    """The block between two states, as others want it."""
    head = Head(block.header_bytes, certificate, encode_sets(before.validators, after.validators))
    body = block.body_bytes if is_body_for_devices(block.header) else None
    return Tip(head, body, is_change=block.header.validators_hash != block.header.next_validators_hash)


def extend(standing: Standing, block: Block, certificate: bytes, after: ChainState) -> Standing:
    """After one more final block."""
    tip = build_tip(block, certificate, standing.chain, after)
    return Standing(after, tip, add_change(standing.changes, after.height, tip), standing.base)


def add_change(changes: Changes, height: Height, tip: Tip) -> Changes:
    """With this block's header if the validators change after it."""
    return (*changes, (height, tip.head))[-CHANGES_KEPT_MAX:] if tip.is_change else changes
