"""The operator's message to its boards: which version they shall run, and from when on (see `rules.releases`)."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, ClassVar

import msgspec

from flchain.base.types import SHARE_ALL
from flchain.wire.fields import Bytes32, Counter, Kind, Message, PositiveCounter

RELEASE_BYTES_MAX = 4_096
"""A release with as many packages as it may name."""
PACKAGES_MAX = 32
"""Most packages of a release: every suite and architecture that a network's boards run."""
PACKAGE_BYTES_MAX = 256_000_000
"""The largest package that a board downloads."""
WINDOW_S_MIN, WINDOW_S_MAX = 60, 86_400
"""How long a board may be given to show that a new version works."""

VersionNumbers = Annotated[
    str, msgspec.Meta(max_length=20, pattern=r"^(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}\Z")
]
"""Three numbers, as 0.2.0: what has any other form cannot be ordered by all alike."""
PackageWord = Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[a-z0-9]+\Z")]


class ReleaseState(IntEnum):
    """What boards shall do with a release."""

    ROLLING = 0  # those in its tranche install it
    HALTED = 1  # nobody begins to


class Package(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The agent's package for one release of the operating system and one architecture, by its hash."""

    suite: PackageWord
    """VERSION_CODENAME of /etc/os-release: bookworm, trixie, ..."""
    architecture: PackageWord
    """As dpkg names it: amd64, arm64."""
    sha256: Bytes32
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=PACKAGE_BYTES_MAX)]


class Release(Message, frozen=True):
    """The operator's word on which version its boards shall run, and how many of them by now.

    Every change of it, a larger share too, has a higher `sequence`, and the highest counts.
    """

    kind: ClassVar[Kind] = Kind.RELEASE
    bytes_max: ClassVar[int] = RELEASE_BYTES_MAX
    sequence: PositiveCounter
    version: VersionNumbers
    packages: Annotated[tuple[Package, ...], msgspec.Meta(min_length=1, max_length=PACKAGES_MAX)]
    """In order of suite and architecture, none twice."""
    share_bp: Annotated[int, msgspec.Meta(ge=0, le=SHARE_ALL)]
    """The tranche: how many of the boards take part by now."""
    state: ReleaseState
    window_s: Annotated[int, msgspec.Meta(ge=WINDOW_S_MIN, le=WINDOW_S_MAX)]
    """Within this time a board must have spoken in a round, otherwise it goes back to the version before."""
    issued_s: Counter
    """When the operator signed it, seconds since 1970, for people."""
