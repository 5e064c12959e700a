"""Releases: which version the operator's boards run, and which of them change to it by now. One home for all who ask.

The operator signs a release and raises its share step by step; a board takes part once the share reaches its place.
That place follows from chain, version and address alone, so a board that was in a small tranche stays in every larger
one, and each version tries its luck with other boards first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flchain.base.crypto import compute_address, hash_tagged
from flchain.base.errors import MalformedMessage, UnknownSender, WrongSequence
from flchain.base.types import SHARE_ALL, Address, BasisPoints
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.release import Package, Release, ReleaseState

PLACE_BYTES = 8
"""Of a hash, as a number: the remainder's bias is below one part in 10**15."""


class Obstacle(Enum):
    """Why a board does not install a release. Each is a word for people too."""

    HALTED = "halted"
    NOT_NEWER = "not-newer"
    KNOWN_BAD = "known-bad"
    NO_PACKAGE = "no-package"


@dataclass(frozen=True)
class Installed:
    """What runs on a board: the agent's version, the operating system's release, and what it went back from."""

    version: str
    suite: str
    architecture: str
    bad_versions: frozenset[str] = frozenset()
    """Versions that this board has tried, and gone back from: it never tries them again."""


def read_release(raw: bytes, chain: bytes, operator_key: bytes) -> Release:
    """Return a release that this operator signed for this chain.

    Raise InvalidMessage's subclasses: UnknownSender for another signer, MalformedMessage for packages out of order or
    twice.
    """
    envelope = open_envelope(raw, chain)
    if envelope.kind is not Kind.RELEASE:
        raise MalformedMessage(f"a {envelope.kind.name} is no release")
    if envelope.sender != compute_address(operator_key):
        raise UnknownSender(f"{envelope.sender.hex()} is not this network's operator")
    message = verify_envelope(envelope, chain, operator_key).message
    assert isinstance(message, Release), "its kind was looked at"
    places = [(package.suite, package.architecture) for package in message.packages]
    if places != sorted(set(places)):
        raise MalformedMessage("packages out of order, or two for the same boards")
    return message


def process_release(known: Release | None, heard: Release) -> Release:
    """Return the release that counts after another one was heard: the one with the higher sequence.

    Raise WrongSequence for an older one, and for another one under the number of the known.
    """
    if known is None or heard.sequence > known.sequence or heard == known:
        return heard
    raise WrongSequence(f"release {heard.sequence} of version {heard.version}; {known.sequence} is known")


def compute_place(chain: bytes, version: str, board: Address) -> BasisPoints:
    """Return where a board stands among all: it takes part in every share above this, 0 to 9,999."""
    digest = hash_tagged("release-place", chain + board + version.encode())
    return BasisPoints(int.from_bytes(digest[:PLACE_BYTES], "big") % SHARE_ALL)


def is_in_tranche(release: Release, chain: bytes, board: Address) -> bool:
    """Return whether a board is among those that take part by now."""
    return compute_place(chain, release.version, board) < release.share_bp


def is_newer(version: str, than: str) -> bool:
    """Return whether a version comes after another, number by number. Raise MalformedMessage for another form."""
    return parse_version(version) > parse_version(than)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the three numbers of a version. Raise MalformedMessage."""
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise MalformedMessage(f"{text!r} is no version of three numbers")
    return tuple(int(part) for part in parts)


def find_package(release: Release, suite: str, architecture: str) -> Package | None:
    """Return the package for these boards, None if the release has none for them."""
    return next((p for p in release.packages if (p.suite, p.architecture) == (suite, architecture)), None)


def find_obstacle(release: Release, installed: Installed) -> Obstacle | None:
    """Return why no board of this kind may install a release, whatever its tranche; None if it may."""
    if release.state is ReleaseState.HALTED:
        return Obstacle.HALTED
    if not is_newer(release.version, installed.version):
        return Obstacle.NOT_NEWER
    if release.version in installed.bad_versions:
        return Obstacle.KNOWN_BAD
    if find_package(release, installed.suite, installed.architecture) is None:
        return Obstacle.NO_PACKAGE
    return None
