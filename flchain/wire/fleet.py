"""What boards and their operator tell each other: how a board does, in one word and a few numbers."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar

import msgspec

from flchain.wire.fields import Bytes32, Counter, Kind, Message

STATUS_BYTES_MAX = 768
LABELS_MAX = 8
REASON_CHARACTERS_MAX = 80
NAME_FORM = "at most 32 letters, digits, dots, _ and -, a letter or digit first"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"
LABEL_FORM = "at most 24 small letters, digits and ._=-, a letter or digit first"
LABEL_PATTERN = r"[a-z0-9][a-z0-9._=-]{0,23}"
VERSION_PATTERN = r"[A-Za-z0-9][A-Za-z0-9.+~-]{0,31}"
SYSTEM_PATTERN = r"[a-z0-9][a-z0-9._-]{0,15}"
"""Of a distribution's release, as bookworm, and of an architecture, as arm64."""

# Everything is printable ASCII: it is shown on terminals, where other characters can hide, reorder or erase text.
Name = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{NAME_PATTERN})?\Z")]
Label = Annotated[str, msgspec.Meta(pattern=rf"\A{LABEL_PATTERN}\Z")]
Version = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{VERSION_PATTERN})?\Z")]
SystemName = Annotated[str, msgspec.Meta(pattern=rf"\A(?:{SYSTEM_PATTERN})?\Z")]
Task = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{0,64}\Z")]
Reason = Annotated[str, msgspec.Meta(pattern=rf"\A[ -~]{{0,{REASON_CHARACTERS_MAX}}}\Z")]


class Health(IntEnum):
    """How a board does, in one word; what is worse has a higher number."""

    OK = 0
    HELD = 1
    """Its scheduler lets nothing run: quiet hours, heat, battery, memory."""
    BATTERY_LOW = 2
    HOT = 3
    UNDERVOLTED = 4
    BEHIND = 5
    """It does not hold the newest model yet."""
    CUT_OFF = 6
    """It hears no miner, or no miner hears it."""
    SENSOR_FAILED = 7
    """A source of samples has failed, or is silent."""
    TRAINING_FAILED = 8
    UPDATE_FAILED = 9
    """It refused the newest release, or went back to the version before."""
    EXPIRED = 10
    """It was away for so long that it cannot tell which chain is the true one."""
    MISMATCH = 11
    """It computed another model than the chain's, and takes part no more."""

    @property
    def is_sick(self) -> bool:
        """Return whether a person has to do something: such a board does not do its work."""
        return self >= Health.CUT_OFF


class UpdateState(IntEnum):
    """How far a board has come with the newest release that concerns it."""

    NONE = 0
    """It knows of no release."""
    WAITING = 1
    """For its tranche, for the end of a round, or for its battery."""
    FETCHING = 2
    READY = 3
    """The package is here and checked."""
    INSTALLING = 4
    CHECKING = 5
    """The new version runs, and has yet to prove itself."""
    DONE = 6
    ROLLED_BACK = 7
    """The new version did not prove itself, and the one before runs again."""
    REFUSED = 8
    """A wrong signature, an older version, no package for this system, a package that does not check."""

    @property
    def is_failed(self) -> bool:
        """Return whether the board will not get to the release by itself."""
        return self in (UpdateState.ROLLED_BACK, UpdateState.REFUSED)


class Status(Message, frozen=True):
    """A device's word to its operator, retained: its model, its health, its software. Unknown texts are empty."""

    kind: ClassVar[Kind] = Kind.STATUS
    bytes_max: ClassVar[int] = STATUS_BYTES_MAX
    round: Counter
    """Newest round whose model this device has computed."""
    model_hash: Bytes32
    is_mismatch: bool
    """True if the device computed another model than the chain's, and so keeps its old one."""
    training_ms: Counter
    """Of its last round; 0 if it took no part."""
    bytes_up: Counter
    bytes_down: Counter
    """Since the process started, MQTT payloads and topics."""
    written_ms: Counter
    """UNIX time, by the chain; 0 while the device does not know the time."""
    up_s: Counter
    """How long the process has run."""
    report_s: Counter
    """The longest time between two words; 0 if it tells each round, so nothing says when it is overdue."""
    name: Name
    labels: Annotated[tuple[Label, ...], msgspec.Meta(max_length=LABELS_MAX)]
    task: Task
    """What it trains: the chain's name."""
    version: Version
    suite: SystemName
    """The release of its distribution."""
    architecture: SystemName
    """As its distribution calls it."""
    health: Health
    reason: Reason
    battery_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] | None
    """Null is unmeasured, here and below."""
    temperature_c: Annotated[int, msgspec.Meta(ge=-60, le=200)] | None
    release: Counter
    """Sequence number of the release that `update` is about."""
    update: UpdateState
