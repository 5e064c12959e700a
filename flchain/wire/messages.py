"""Frozen typed messages. Field order is the order on the wire; `envelope` turns them into signed bytes and back."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar, TypeAlias, get_args

import msgspec

from flchain.base.crypto import hash_tagged
from flchain.base.types import Address, Hash
from flchain.wire.fields import (
    COUNTER_MAX,
    RANGES_MAX,
    SAMPLES_CAP_MAX,
    SCORES_BYTES_MAX,
    SMALL_BYTES_MAX,
    UPDATE_BYTES_MAX,
    VALIDATORS_MAX,
    Amount,
    Bytes20,
    Bytes32,
    CommissionShare,
    Counter,
    Kind,
    Message,
    PositiveCounter,
    Salt,
    Score,
)
from flchain.wire.fleet import Status
from flchain.wire.release import Release


class Phase(IntEnum):
    """Where a round stands. A block belongs to the phase in which it was made."""

    OPEN = 0
    COMMIT = 1
    REVEAL = 2
    SCORE = 3
    SETTLE = 4


class Commit(Message, frozen=True):
    """A device binds itself to an update before anybody has seen one, and says whether it will score the others'."""

    kind: ClassVar[Kind] = Kind.COMMIT
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    round: Counter
    commitment: Bytes32
    will_score: bool
    """A pledge: the others then wait for its scores (see `phases`)."""


class Reveal(Message, frozen=True):
    """The update that was committed: `update` is the codec's payload, `samples` the rows it was trained on."""

    kind: ClassVar[Kind] = Kind.REVEAL
    bytes_max: ClassVar[int] = UPDATE_BYTES_MAX + SMALL_BYTES_MAX
    round: Counter
    salt: Salt
    samples: Annotated[int, msgspec.Meta(ge=1, le=SAMPLES_CAP_MAX)]
    update: bytes


class ScoreCommit(Message, frozen=True):
    """A scorer binds itself to its scores before it has seen another scorer's."""

    kind: ClassVar[Kind] = Kind.SCORE_COMMIT
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    round: Counter
    commitment: Bytes32


class ScoreReveal(Message, frozen=True):
    """Scores in basis points of accuracy on the scorer's own data: the base model's, each update's, each aggregate's.

    `scores` has one (device address, score) per update of the round. `aggregates` has one (miner address, score) per
    miner whose devices revealed updates: the score of the aggregate of its devices' updates. Both are in order of
    address.
    """

    kind: ClassVar[Kind] = Kind.SCORE_REVEAL
    bytes_max: ClassVar[int] = SCORES_BYTES_MAX
    round: Counter
    salt: Salt
    base_score: Score
    scores: tuple[tuple[Bytes20, Score], ...]
    aggregates: tuple[tuple[Bytes20, Score], ...]


class Proposal(Message, frozen=True):
    """A proposer's block for one view (arXiv 1807.04938, line 19). `valid_view` is -1 for none."""

    kind: ClassVar[Kind] = Kind.PROPOSAL
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    height: Counter
    view: Counter
    valid_view: Annotated[int, msgspec.Meta(ge=-1, le=COUNTER_MAX)]
    block_hash: Bytes32


class Vote(Message, frozen=True):
    """A prevote (1) or precommit (2); `block_hash` is None for nil."""

    kind: ClassVar[Kind] = Kind.VOTE
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    height: Counter
    view: Counter
    step: Annotated[int, msgspec.Meta(ge=1, le=2)]
    block_hash: Bytes32 | None


class Receipt(Message, frozen=True):
    """A miner's answer to a message of a device: `code` is "ok" or the reason why it was refused for good."""

    kind: ClassVar[Kind] = Kind.RECEIPT
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    round: Counter
    digest: Bytes32
    code: Annotated[str, msgspec.Meta(max_length=32)]


class Want(IntEnum):
    """What is asked for."""

    HEAD = 0  # the newest header, with the validators that signed it and the next
    MODEL = 1  # the same, and what leads to the model whose hash it holds: the payloads since, or the model
    CHANGES = 2  # from `height` on the headers at which the validators changed, then the newest
    BLOCKS = 3  # final blocks from `height` on
    STATE = 4  # the whole state after the newest block, for a miner
    FULL_MODEL = 5  # the newest header and model, and what it takes to compute the next one from updates


class Ask(Message, frozen=True):
    """A node asks the miner `to` for something that it lacks."""

    kind: ClassVar[Kind] = Kind.ASK
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    height: PositiveCounter
    to: Bytes20
    want: Want
    model_round: Counter
    """The newest round whose model the asker holds."""


class Resume(Message, frozen=True):
    """Ask `to`, the sender of a packet that came only in part, for the chunks in these ranges (see `chunks`)."""

    kind: ClassVar[Kind] = Kind.RESUME
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    height: PositiveCounter
    """The asker's next height; present only because every message has one."""
    to: Bytes20
    digest: Bytes32
    ranges: Annotated[tuple[tuple[Counter, PositiveCounter], ...], msgspec.Meta(min_length=1, max_length=RANGES_MAX)]
    """(first index, count) each."""


class Transfer(Message, frozen=True):
    """Pay `amount` to the account of a public key, which is created if it does not exist.

    `sequence` counts a sender's orders.
    """

    kind: ClassVar[Kind] = Kind.TRANSFER
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    sequence: Counter
    to_key: Bytes32
    amount: Amount


class Register(Message, frozen=True):
    """Become a candidate: bond `amount` of one's own, and declare the commission kept before delegators get their
    share.
    """

    kind: ClassVar[Kind] = Kind.REGISTER
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    sequence: Counter
    commission_bp: CommissionShare
    amount: Amount


class Delegate(Message, frozen=True):
    """Put `amount` behind a candidate. Behind oneself it raises the bond."""

    kind: ClassVar[Kind] = Kind.DELEGATE
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    sequence: Counter
    candidate: Bytes20
    amount: Amount


class Undelegate(Message, frozen=True):
    """Take `amount` back.

    It is paid out when the unbonding delay after the next election has passed, and can be slashed until then.
    """

    kind: ClassVar[Kind] = Kind.UNDELEGATE
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    sequence: Counter
    candidate: Bytes20
    amount: Amount


class Unjail(Message, frozen=True):
    """A candidate whose time in jail is over asks to be electable again."""

    kind: ClassVar[Kind] = Kind.UNJAIL
    bytes_max: ClassVar[int] = SMALL_BYTES_MAX
    sequence: Counter


class Evidence(Message, frozen=True):
    """Two votes, or two proposals, that one validator signed for the same slot. Anyone may submit them."""

    kind: ClassVar[Kind] = Kind.EVIDENCE
    bytes_max: ClassVar[int] = 3 * SMALL_BYTES_MAX
    height: Counter
    first: bytes
    second: bytes


AnyMessage: TypeAlias = (
    Commit
    | Reveal
    | ScoreCommit
    | ScoreReveal
    | Proposal
    | Vote
    | Receipt
    | Status
    | Ask
    | Transfer
    | Register
    | Delegate
    | Undelegate
    | Unjail
    | Evidence
    | Resume
    | Release
)

MESSAGE_TYPES: dict[Kind, type[AnyMessage]] = {message.kind: message for message in get_args(AnyMessage)}
MESSAGE_BYTES_MAX: dict[Kind, int] = {kind: message.bytes_max for kind, message in MESSAGE_TYPES.items()}

assert MESSAGE_TYPES.keys() == set(Kind), "each kind has one class, and each class its own kind"
assert set(get_args(AnyMessage)) == set(Message.__subclasses__()), "AnyMessage names every class of message"


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What validators sign. `round` and `phase` say what the block is part of, `next_*` what holds after it."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    chain: Bytes32
    height: Annotated[int, msgspec.Meta(ge=1, le=COUNTER_MAX)]
    time_ms: Counter
    """When it was proposed, by the proposer's clock, in ms since 1970; always later than the block before."""
    round: Counter
    phase: Phase
    next_round: Counter
    next_phase: Phase
    previous: Bytes32
    proposer: Bytes20
    body_root: Bytes32
    state_root: Bytes32
    model_hash: Bytes32
    validators_hash: Bytes32
    """The set whose certificate makes this block final."""
    next_validators_hash: Bytes32


class Settlement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The end of a round: the devices whose updates were accepted, in order of address. With none the model stays."""

    accepted: tuple[Bytes20, ...]


class Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The signed messages of a block, and the settlement if the block closes a round.

    `transactions` are what the phase asks for, one per sender, in order of senders. `orders` concern money and
    validators and may be in any block, in order of sender, sequence and kind.
    """

    transactions: tuple[bytes, ...]
    orders: tuple[bytes, ...]
    settlement: Settlement | None


class Certificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Precommits of more than two thirds of the power, as (index in the validator set, signature), indices rising."""

    view: Counter
    signatures: tuple[
        tuple[
            Annotated[int, msgspec.Meta(ge=0, le=VALIDATORS_MAX - 1)],
            Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)],
        ],
        ...,
    ]


class ValidatorEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A candidate at genesis, with the stake of its own that it starts with."""

    public_key: Bytes32
    bond: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    commission_bp: CommissionShare


class DeviceEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device at genesis and the miner it is associated with, its home."""

    public_key: Bytes32
    home: Bytes20


class HolderEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An account that owns money at genesis, to pay and to delegate with."""

    public_key: Bytes32
    balance: Amount


def compute_update_commitment(chain: bytes, sender: Address, reveal: Reveal) -> Hash:
    """Return the commitment to an update.

    The address is part of it: another device that copies the commitment cannot open it.
    """
    numbers = reveal.round.to_bytes(8, "big") + reveal.samples.to_bytes(4, "big")
    return hash_tagged("update-commitment", chain + sender + numbers + reveal.salt + reveal.update)


def compute_score_commitment(chain: bytes, sender: Address, reveal: ScoreReveal) -> Hash:
    """Return the commitment to a scorer's scores. The address is part of it."""
    numbers = reveal.round.to_bytes(8, "big") + reveal.base_score.to_bytes(2, "big")
    counts = len(reveal.scores).to_bytes(4, "big")  # separates the one list from the other
    listed = b"".join(address + score.to_bytes(2, "big") for address, score in (*reveal.scores, *reveal.aggregates))
    return hash_tagged("score-commitment", chain + sender + numbers + reveal.salt + counts + listed)
