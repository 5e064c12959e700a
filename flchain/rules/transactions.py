"""The messages of devices and scorers in a round: what each kind must fulfil, and what it adds to the round.

A message is checked against the round as it is in the state. All messages of a block are added at once, so that a
block with a thousand of them takes a thousand steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from flchain.base.errors import BadCommitment, DuplicateMessage, MalformedMessage, UnknownSender, WrongPhase, WrongRound
from flchain.base.frozen import replace
from flchain.base.types import Address, Hash
from flchain.codecs.decoded import keep_decoded
from flchain.ledger.state import ChainState, RevealedScores, RevealedUpdate, RoundState, find_device, find_validator
from flchain.rules.model_step import decode_update
from flchain.rules.phases import PHASE_KINDS, get_present
from flchain.rules.scores import get_homes
from flchain.wire.envelope import Letter, OpenedUpdate, Verified, verify_letter
from flchain.wire.fields import Kind
from flchain.wire.messages import (
    AnyMessage,
    Commit,
    Reveal,
    ScoreCommit,
    ScoreReveal,
    compute_score_commitment,
    compute_update_commitment,
)

DEVICE_KINDS = frozenset({Kind.COMMIT, Kind.REVEAL})
SCORE_KINDS = frozenset({Kind.SCORE_COMMIT, Kind.SCORE_REVEAL})
"""Sent by validators, and by devices that mine."""


def verify_transaction(state: ChainState, letter: Letter) -> Verified:
    """Check round, known sender in the right role, signature, fields, in this order.

    Raises InvalidMessage's subclasses.
    """
    if letter.number != state.round.number:
        raise WrongRound(f"round {letter.number} is not the open round {state.round.number}")
    return verify_letter(letter, state.chain, get_key_for(state, letter.kind, letter.sender))


def get_key_for(state: ChainState, kind: Kind, sender: Address) -> bytes:
    """Return the public key of a sender that may send this kind of transaction. Raises UnknownSender."""
    device = find_device(state, sender)
    if device is not None and kind in DEVICE_KINDS | SCORE_KINDS:
        return device.public_key
    validator = find_validator(state, sender)
    if validator is not None and kind in SCORE_KINDS:
        return validator.public_key
    raise UnknownSender(f"{sender.hex()} may not send a {kind.name}")


def check_transaction(state: ChainState, said: Verified) -> Verified:
    """Check that a block of the present phase may carry this message. Return it with what was computed, to be kept.

    Raises InvalidMessage's subclasses.
    """
    if PHASE_KINDS.get(state.round.phase) is not said.kind:
        raise WrongPhase(f"a {said.kind.name} is not for phase {state.round.phase.name}")
    if said.sender in get_present(state):
        raise DuplicateMessage(f"{said.sender.hex()} has already sent a {said.kind.name} in this round")
    return TRANSACTION_RULES[said.kind].check(state, said)


def _check_commit(state: ChainState, said: Verified) -> Verified:
    return said


def _add_commits(state: ChainState, said: Sequence[Verified]) -> RoundState:
    round_, new, pledges = state.round, [], []
    for one in said:
        assert isinstance(one.message, Commit)
        new.append((one.sender, Hash(one.message.commitment)))
        if one.message.will_score:
            pledges.append(one.sender)
    return replace(
        round_, commits=tuple(sorted((*round_.commits, *new))), pledges=tuple(sorted((*round_.pledges, *pledges)))
    )


def _check_reveal(state: ChainState, said: Verified) -> Verified:
    assert isinstance(said.message, Reveal)
    commitment = said.opened.commitment if said.opened is not None else None
    if commitment is None:
        commitment = compute_update_commitment(state.chain, said.sender, said.message)
    if state.round.commitments.get(said.sender) != commitment:
        raise BadCommitment(f"the update of {said.sender.hex()} does not open its commitment")
    if said.opened is not None:
        return said
    update = decode_update(state.params, state.chain, state.round.number, said.sender, said.message.update)
    return msgspec.structs.replace(said, opened=OpenedUpdate(commitment, keep_decoded(update, len(state.devices))))


def build_update(state: ChainState, said: Verified) -> RevealedUpdate:
    """Return what the round keeps of a device's update."""
    assert isinstance(said.message, Reveal)
    samples = min(said.message.samples, state.params.samples_cap)
    decoded = said.opened.decoded if said.opened is not None else None
    return RevealedUpdate(said.sender, samples, said.message.update, decoded)


def _add_reveals(state: ChainState, said: Sequence[Verified]) -> RoundState:
    reveals = (*state.round.reveals, *(build_update(state, one) for one in said))
    return replace(state.round, reveals=tuple(sorted(reveals, key=lambda update: update.sender)))


def _check_score_commit(state: ChainState, said: Verified) -> Verified:
    return said


def _add_score_commits(state: ChainState, said: Sequence[Verified]) -> RoundState:
    new = []
    for one in said:
        assert isinstance(one.message, ScoreCommit)
        new.append((one.sender, Hash(one.message.commitment)))
    return replace(state.round, score_commits=tuple(sorted((*state.round.score_commits, *new))))


def _check_score_reveal(state: ChainState, said: Verified) -> Verified:
    assert isinstance(said.message, ScoreReveal)
    message, round_ = said.message, state.round
    if round_.score_commitments.get(said.sender) != compute_score_commitment(state.chain, said.sender, message):
        raise BadCommitment(f"the scores of {said.sender.hex()} do not open their commitment")
    if tuple(address for address, _ in message.scores) != tuple(update.sender for update in round_.reveals):
        raise MalformedMessage("scores must name each revealed update once, in order of address")
    if tuple(address for address, _ in message.aggregates) != get_homes(state):
        raise MalformedMessage("scores must name each miner whose devices revealed updates once, in order of address")
    return said


def _add_score_reveals(state: ChainState, said: Sequence[Verified]) -> RoundState:
    new = []
    for one in said:
        assert isinstance(one.message, ScoreReveal)
        listed = tuple(score for _, score in one.message.scores), tuple(score for _, score in one.message.aggregates)
        new.append(RevealedScores(one.sender, one.message.base_score, *listed))
    reveals = sorted((*state.round.score_reveals, *new), key=lambda item: item.scorer)
    return replace(state.round, score_reveals=tuple(reveals))


@dataclass(frozen=True)
class TransactionRule:
    """The checks for one kind of transaction, and what those that pass add to the round."""

    check: Callable[[ChainState, Verified], Verified]
    add: Callable[[ChainState, Sequence[Verified]], RoundState]


TRANSACTION_RULES: dict[Kind, TransactionRule] = {
    Kind.COMMIT: TransactionRule(_check_commit, _add_commits),
    Kind.REVEAL: TransactionRule(_check_reveal, _add_reveals),
    Kind.SCORE_COMMIT: TransactionRule(_check_score_commit, _add_score_commits),
    Kind.SCORE_REVEAL: TransactionRule(_check_score_reveal, _add_score_reveals),
}


def add_transactions(state: ChainState, kind: Kind, said: Sequence[Verified]) -> RoundState:
    """Return the open round with these messages of one kind, which were checked against `state`."""
    return TRANSACTION_RULES[kind].add(state, said)


def is_in_chain(state: ChainState, message: AnyMessage, sender: Address) -> bool:
    """Return True if a device's commitment, update or scores of the open round are already in a block."""
    round_, chain = state.round, state.chain
    match message:
        case Commit():
            is_there = (sender, message.commitment) in round_.commits
        case Reveal():
            is_opened = (sender, compute_update_commitment(chain, sender, message)) in round_.commits
            is_there = is_opened and any(update.sender == sender for update in round_.reveals)
        case ScoreCommit():
            is_there = (sender, message.commitment) in round_.score_commits
        case ScoreReveal():
            is_opened = (sender, compute_score_commitment(chain, sender, message)) in round_.score_commits
            is_there = is_opened and any(scores.scorer == sender for scores in round_.score_reveals)
        case _:
            return False
    return is_there and message.round == round_.number
