"""All boards of a fleet as their last words tell: who is well, who is not, who is silent. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from flchain.base.errors import MalformedMessage
from flchain.base.types import Address
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain.wire.fleet import Health, Status

SILENT_REPORTS = 3
"""A board whose word is older than so many of its own periods is silent."""
SILENT_S_MIN = 300.0
REPORT_S_USUAL = 900
"""Counted for a board that tells each round: nothing says when its next one ends."""


class Standing(IntEnum):
    """How a board stands with its operator; what is worse has a higher number."""

    WELL = 0
    STRAINED = 1
    """It does its work as far as heat, charge and its schedule allow."""
    NEVER = 2
    """A member of the network from which no word is known: it may never have been switched on."""
    SILENT = 3
    """Its last word is too old."""
    SICK = 4

    @property
    def is_good(self) -> bool:
        """Return whether nobody has to look at it."""
        return self <= Standing.STRAINED


@dataclass(frozen=True)
class Heard:
    """A board's newest word, and when it came, UNIX time of this machine."""

    status: Status
    heard_s: float
    is_retained: bool
    """The broker had kept it: it came when this machine subscribed, and says nothing of when it was said."""


@dataclass(frozen=True)
class Board:
    """One board, as of now."""

    address: Address
    status: Status | None = None
    age_s: float | None = None
    """Of its word; None if there is none, or nothing tells when it was said."""
    standing: Standing = Standing.NEVER

    @property
    def title(self) -> str:
        """Return its name, or the beginning of its address."""
        return (self.status.name if self.status else "") or self.address.hex()[:12]


def read_word(raw: bytes, chain: bytes, address: Address, public_key: bytes) -> Status:
    """Return what this board has signed. Raise InvalidMessage's subclasses, also for another kind or signer."""
    envelope = open_envelope(raw, chain)
    message = verify_envelope(envelope, chain, public_key).message
    if not isinstance(message, Status) or envelope.sender != address:
        raise MalformedMessage("not a status of this board")
    return message


def take_word(known: Heard | None, fresh: Heard) -> Heard:
    """Return the newer of two words: a broker may repeat an old one, and brokers reorder."""
    if known is None or fresh.status.written_ms >= known.status.written_ms or not fresh.status.written_ms:
        return fresh
    return known


def build_board(address: Address, heard: Heard | None, now_s: float) -> Board:
    """Return a board as of now, UNIX time."""
    if heard is None:
        return Board(address)
    status, age_s = heard.status, compute_age(heard, now_s)
    return Board(address, status, age_s, judge_standing(status, age_s))


def compute_age(heard: Heard, now_s: float) -> float | None:
    """Return how long ago the word was said: since it arrived, or by its own time if the broker had kept it."""
    if not heard.is_retained:
        return max(0.0, now_s - heard.heard_s)  # whatever the clocks of boards and of this machine say
    return max(0.0, now_s - heard.status.written_ms / 1000) if heard.status.written_ms else None


def judge_standing(status: Status, age_s: float | None) -> Standing:
    """Return how a board stands, by its word and the age of it."""
    every_s = status.report_s or REPORT_S_USUAL
    if age_s is None or age_s > max(SILENT_S_MIN, SILENT_REPORTS * every_s):
        return Standing.SILENT
    if status.health.is_sick:
        return Standing.SICK
    return Standing.WELL if status.health is Health.OK else Standing.STRAINED


def build_roster(members: Iterable[Address], heard: Mapping[Address, Heard], now_s: float) -> tuple[Board, ...]:
    """Return all boards, the worst first; of equals, by name, then address."""
    boards = [build_board(address, heard.get(address), now_s) for address in members]
    return tuple(sorted(boards, key=_rank))


def _rank(board: Board) -> tuple[int, int, str, bytes]:
    health = board.status.health if board.status else Health.OK
    return -board.standing, -health, board.title.lower(), board.address


def choose(boards: Iterable[Board], labels: Iterable[str]) -> tuple[Board, ...]:
    """Return the boards that have all of these labels."""
    wanted = set(labels)
    return tuple(board for board in boards if wanted <= set(board.status.labels if board.status else ()))


def count_standings(boards: Iterable[Board]) -> dict[Standing, int]:
    """Return how many boards stand how, the worst first, without those that nobody is."""
    counts = Counter(board.standing for board in boards)
    return {standing: counts[standing] for standing in reversed(Standing) if counts[standing]}


def count_versions(boards: Iterable[Board]) -> dict[str, int]:
    """Return how many boards have said that they run which version, the most frequent first."""
    counts = Counter(board.status.version or "unknown" for board in boards if board.status)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
