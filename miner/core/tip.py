"""The newest final block as others want it, and the way to its validators: what a miner tells those who are behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from flchain.base.fixedpoint import VALUE_BYTES
from flchain.base.types import Height, Round
from flchain.ledger.limits import DELTAS_MAX
from flchain.ledger.state import NO_HEIGHT, ChainState
from flchain.light.body import build_light_body
from flchain.light.trust import Head, encode_sets
from flchain.rules.blocks import Block, is_body_for_devices, is_settling

CHANGES_KEPT_MAX = 256
"""A device that has missed more changes of the validators than these needs a checkpoint."""

DELTAS_BYTES_MAX = 4_000_000
DELTA_FRAME_BYTES = 5
"""What a packet adds to one payload."""


@dataclass(frozen=True)
class Tip:
    """The newest final block; its head comes with the validators."""

    head: Head
    body: bytes | None
    """Only if devices need it: updates or a settlement."""
    light_body: bytes | None
    """What light devices take in its place; None if the block settles nothing, or came with a state."""
    is_change: bool
    """True if the validators of the next block are others."""


Deltas: TypeAlias = tuple[tuple[Round, bytes], ...]
"""The payloads by which the newest settled rounds changed the model, round after round."""
Changes: TypeAlias = tuple[tuple[Height, Head], ...]
"""The final headers at which validators changed, in order of height: what leads a light client to the present ones."""


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a miner stands after a start: the chain's state by its ledger, and what it tells others of it."""

    chain: ChainState
    tip: Tip | None = None
    changes: Changes = ()
    deltas: Deltas = ()
    base: Height = NO_HEIGHT
    """The ledger has the blocks after this height: 0, or that of the state it began anew with."""


def build_tip(block: Block, certificate: bytes, before: ChainState, after: ChainState) -> Tip:
    """The block between two states, as others want it."""
    head = Head(block.header_bytes, certificate, encode_sets(before.validators, after.validators))
    body = block.body_bytes if is_body_for_devices(block.header) else None
    light_body = None
    if is_settling(block.header):
        light_body = build_light_body(block.decode_body(), after.delta)
    return Tip(head, body, light_body, is_change=block.header.validators_hash != block.header.next_validators_hash)


def extend(standing: Standing, block: Block, certificate: bytes, after: ChainState) -> Standing:
    """After one more final block."""
    tip = build_tip(block, certificate, standing.chain, after)
    changes = add_change(standing.changes, after.height, tip)
    return Standing(after, tip, changes, add_delta(standing.deltas, standing.chain, after), standing.base)


def add_delta(deltas: Deltas, before: ChainState, after: ChainState) -> Deltas:
    """With what the block between two states changed in the model; of the oldest only what is shorter than the model
    together with all later ones."""
    if after.round.number == before.round.number:
        return deltas
    room = min(DELTAS_BYTES_MAX, VALUE_BYTES * after.params.parameters_count)
    kept: list[tuple[Round, bytes]] = []
    for number, delta in ((before.round.number, after.delta), *reversed(deltas)):
        room -= len(delta) + DELTA_FRAME_BYTES
        if room < 0 or len(kept) == DELTAS_MAX:
            break
        kept.append((number, delta))
    return tuple(reversed(kept))


def add_change(changes: Changes, height: Height, tip: Tip) -> Changes:
    """With this block's header if the validators change after it."""
    return (*changes, (height, tip.head))[-CHANGES_KEPT_MAX:] if tip.is_change else changes
