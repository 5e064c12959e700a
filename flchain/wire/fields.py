"""What messages are made of: the limits and types of their fields, their kinds, and their base class."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar

import msgspec

from flchain.base.types import ADDRESS_BYTES, HASH_BYTES, SHARE_ALL

SALT_BYTES = 16
SCORE_MAX = SHARE_ALL
SAMPLES_CAP_MAX = 2**20 - 1
"""Most samples a message may claim: with at most 2**10 updates, weighted sums of int32 stay below 2**61."""
VALIDATORS_MAX = 64
UPDATE_BYTES_MAX = 16_000_000
"""An update's codec payload: 4 million parameters as they are."""
SCORES_BYTES_MAX = 32_768
"""The scores of 1024 updates."""
SMALL_BYTES_MAX = 512
"""Everything else: a few numbers, a few hashes, a signature."""
RANGES_MAX = 8
"""Most ranges of chunks in one question."""

Bytes32 = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
Bytes20 = Annotated[bytes, msgspec.Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]
Salt = Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
COUNTER_MAX = 2**53
Counter = Annotated[int, msgspec.Meta(ge=0, le=COUNTER_MAX)]
Score = Annotated[int, msgspec.Meta(ge=0, le=SCORE_MAX)]
PositiveCounter = Annotated[int, msgspec.Meta(ge=1, le=COUNTER_MAX)]
Amount = Annotated[int, msgspec.Meta(ge=1, le=COUNTER_MAX)]
CommissionShare = Annotated[int, msgspec.Meta(ge=0, le=SHARE_ALL)]


class Kind(IntEnum):
    """The kind of a message: the first field of every signed payload, and the domain of its signature."""

    COMMIT = 1
    REVEAL = 2
    SCORE_COMMIT = 3
    SCORE_REVEAL = 4
    PROPOSAL = 5
    VOTE = 6
    RECEIPT = 7
    STATUS = 8
    ASK = 9
    TRANSFER = 10
    REGISTER = 11
    DELEGATE = 12
    UNDELEGATE = 13
    UNJAIL = 14
    EVIDENCE = 15
    RESUME = 16
    RELEASE = 17


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What every message has: a kind, a limit, and a first field that says which round or height it is for."""

    kind: ClassVar[Kind]
    bytes_max: ClassVar[int]
    """Longest signed message of this kind; a longer one is refused before anything else of it is read."""
