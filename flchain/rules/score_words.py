"""The work of every scorer, a miner or a device that mines: which models to test, and how to state the scores.

A *subject* is what a score is of: None is the base model, a device its update, a miner the aggregate of its devices'
updates. Only one subject's model need be in memory at a time: a score is two bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from flchain.base.crypto import Identity
from flchain.base.fixedpoint import add
from flchain.base.types import Address, Hash, ModelVector, Round
from flchain.ledger.params import ChainParams
from flchain.ledger.state import RevealedUpdate
from flchain.rules.model_step import compute_delta
from flchain.rules.scores import group_by_home
from flchain.wire.fields import SALT_BYTES
from flchain.wire.messages import ScoreCommit, ScoreReveal, compute_score_commitment

Subject: TypeAlias = Address | None
Updates: TypeAlias = Sequence[RevealedUpdate]
"""Revealed updates of one round, in order of device."""
HomeOf: TypeAlias = Callable[[Address], Address]
"""The miner that a device is associated with."""


def get_subjects(
    updates: Updates, home_of: HomeOf, device: Address | None, *, are_all_known: bool
) -> dict[Subject, tuple[RevealedUpdate, ...]]:
    """Return what a scorer must score, in the order in which it becomes known, with the updates that make each model.

    Aggregates are known only when all updates are; the aggregate of a single device is its update. A mining `device`
    does not test its own update, since its score of it does not count (see `scores`), unless it is a miner's aggregate
    too. Without a device the scorer is a validator, whose scores all count.
    """
    subjects: dict[Subject, tuple[RevealedUpdate, ...]] = {None: ()}
    subjects |= {update.sender: (update,) for update in updates if update.sender != device}
    if are_all_known:
        for home, parts in group_by_home(updates, home_of).items():
            subjects[_get_subject_of(home, parts)] = parts
    return subjects


def _get_subject_of(home: Address, parts: tuple[RevealedUpdate, ...]) -> Address:
    return home if len(parts) > 1 else parts[0].sender


def compute_subject_model(
    params: ChainParams, base: ModelVector, parts: Updates, chain: Hash, number: Round
) -> ModelVector:
    """Return the model to test, shape (P,): the base plus the aggregate of these updates, before it is compressed.

    Raises InvalidMessage's subclasses.
    """
    return add(base, compute_delta(params, chain, number, tuple(parts))) if parts else base


def build_score_reveal(
    number: Round, salt: bytes, updates: Updates, home_of: HomeOf, scores: Mapping[Subject, int]
) -> ScoreReveal:
    """Return the message with the scores, once there is one for each of `get_subjects`.

    A device that has not tested its own update states no gain for it: the score of the base model.
    """
    base = scores[None]
    of_devices = tuple((bytes(update.sender), scores.get(update.sender, base)) for update in updates)
    groups = group_by_home(updates, home_of)
    of_miners = tuple((bytes(home), scores[_get_subject_of(home, parts)]) for home, parts in groups.items())
    return ScoreReveal(number, salt, base, of_devices, of_miners)


def build_score_commit(chain: Hash, me: Address, reveal: ScoreReveal) -> ScoreCommit:
    """Return the commitment that binds scorer `me` to its scores."""
    return ScoreCommit(reveal.round, compute_score_commitment(chain, me, reveal))


def derive_score_salt(identity: Identity, chain: Hash, number: Round) -> bytes:
    """Return a secret function of key and round, so that a restart opens the commitment made before it."""
    return identity.derive_secret("score-salt", chain + number.to_bytes(8, "big"))[:SALT_BYTES]
