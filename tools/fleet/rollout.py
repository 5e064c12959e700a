"""How an update goes through a fleet: on to the next tranche, wait, or halt. Pure; boards in, a decision out.

A tranche is a part of the boards, in order of their places; its share is chosen so that it has at least one board more
than the one before (`flchain.rules.releases`). Judged are only boards that were well before the rollout began: one that
was sick or silent already says nothing about the new version. A failed one has refused the release, has gone back, or
has fallen sick or silent since. The rollout halts once more of a tranche, or of all boards that take part, have failed
than `health_min` allows, and goes on once so many have proved the new version for the whole of `soak_s`. What a halted
rollout has reached never grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from flchain.base.errors import ConfigError
from flchain.base.frozen import replace
from flchain.base.types import SHARE_ALL, Address
from flchain.rules.releases import is_newer
from flchain.wire.fleet import Health, UpdateState
from tools.fleet.roster import Board, Standing

TRANCHES_MAX = 16
TRANCHES = (500, 2_500, SHARE_ALL)
SOAK_S, SOAK_S_MAX = 1_800, 7 * 86_400
PATIENCE_S, PATIENCE_S_MAX = 86_400, 30 * 86_400
HEALTH_MIN = 90


@dataclass(frozen=True)
class Plan:
    """What the operator asks for."""

    version: str
    tranches_bp: tuple[int, ...] = TRANCHES
    """Parts of the boards, rising, in basis points."""
    soak_s: int = SOAK_S
    """How long a tranche must stay well before the next one begins."""
    health_min: int = HEALTH_MIN
    """Percent of a tranche that must come through."""
    patience_s: int = PATIENCE_S
    """After this time a tranche that has not come through halts the rollout: every rollout ends."""

    def __post_init__(self) -> None:
        if problems := tuple(_find_problems(self)):
            raise ConfigError(problems)


def _find_problems(plan: Plan) -> Iterable[str]:
    shares = plan.tranches_bp
    if not 1 <= len(shares) <= TRANCHES_MAX:
        yield f"--tranches: 1 to {TRANCHES_MAX} of them"
    if list(shares) != sorted(set(shares)) or any(not 0 < share <= SHARE_ALL for share in shares):
        yield "--tranches: must rise, each above 0 and at most 100 (percent)"
    if not 1 <= plan.health_min <= 100:
        yield "--health-min: must be 1..100 (percent)"
    if not 0 <= plan.soak_s <= SOAK_S_MAX:
        yield f"--soak: at most {SOAK_S_MAX // 86_400} days"
    if not plan.soak_s < plan.patience_s <= PATIENCE_S_MAX:
        yield f"--patience: must be longer than --soak, and at most {PATIENCE_S_MAX // 86_400} days"


class Stage(Enum):
    """Where a rollout stands."""

    ROLLING = "rolling"
    HALTED = "halted"
    DONE = "done"


class Outcome(IntEnum):
    """What the new version has come to on a board."""

    UPDATED = 0
    PENDING = 1
    """In a tranche that has begun; it has yet to take the release, or to prove it."""
    LATER = 2
    """In a tranche that has not begun."""
    LEFT_OUT = 3
    """The release has no package for its system, or the board's own settings leave it out."""
    UNWELL_BEFORE = 4
    """Was sick, silent or never heard when the rollout began: it may take the release, but is not judged by it."""
    FAILED = 5


@dataclass(frozen=True)
class Rollout:
    """A rollout so far. Times are seconds since 1970."""

    plan: Plan
    well_before: frozenset[Address]
    """Boards that were well when it began."""
    tranche: int = 0
    """Index of the newest tranche."""
    since_s: float = 0.0
    """When that tranche began."""
    sound_s: float | None = None
    """Since when enough of the tranche has come through; None while that is not so."""
    stage: Stage = Stage.ROLLING
    reason: str = ""
    """Why it was halted."""
    first_sequence: int = 1
    """Of the release with which it began: what boards say of earlier ones is not about this version."""
    shares_bp: tuple[int, ...] = (SHARE_ALL,)
    """The share of each tranche, rising: fewer than the plan's in a small fleet."""

    @property
    def share_bp(self) -> int:
        """Return the share that takes part by now."""
        return self.shares_bp[self.tranche]

    @property
    def is_last(self) -> bool:
        """Return whether no tranche comes after this one."""
        return self.tranche + 1 == len(self.shares_bp)


@dataclass(frozen=True)
class Candidate:
    """A board as a rollout sees it: its word, its place, and whether the release has a package for it."""

    board: Board
    place_bp: int
    has_package: bool


@dataclass(frozen=True)
class Tally:
    """How the judged boards of some tranches stand."""

    judged: int
    updated: int
    failed: int

    def is_broken(self, health_min: int) -> bool:
        """Return whether more have failed than may."""
        return 100 * (self.judged - self.failed) < health_min * self.judged

    def is_through(self, health_min: int) -> bool:
        """Return whether enough have proved the new version."""
        return 100 * self.updated >= health_min * self.judged


def begin(plan: Plan, candidates: Iterable[Candidate], now_s: float, first_sequence: int) -> Rollout:
    """Return a rollout whose first tranche begins now."""
    well = [one for one in candidates if is_well(one.board)]
    return Rollout(
        plan,
        frozenset(one.board.address for one in well),
        since_s=now_s,
        first_sequence=first_sequence,
        shares_bp=compute_shares(plan, [one.place_bp for one in well if one.has_package]),
    )


def is_well(board: Board) -> bool:
    """Return whether a board does its work; one that only has not taken an earlier release does."""
    has_only_refused = board.standing is Standing.SICK and _get_health(board) is Health.UPDATE_FAILED
    return board.standing.is_good or has_only_refused


def _get_health(board: Board) -> Health:
    return board.status.health if board.status else Health.OK


def compute_shares(plan: Plan, places: Iterable[int]) -> tuple[int, ...]:
    """Return the shares at which the plan's parts of these boards take part, rising; each brings one more at least.

    By the parts themselves a small fleet could have no board in its first tranches, and all of them in the last.

    >>> compute_shares(Plan("0.2.0", (500, 2_500, 10_000)), [7_000, 1_000, 4_000, 9_000])
    (1001, 4001, 10000)
    """
    ordered = sorted(places)
    shares: list[int] = []
    reached = 0
    for part in plan.tranches_bp:
        wanted = max(reached + 1, -(-part * len(ordered) // SHARE_ALL))
        if part == SHARE_ALL or wanted > len(ordered):
            break
        share = ordered[wanted - 1] + 1
        reached = sum(place < share for place in ordered)  # boards may share a place
        shares.append(share)
    last = plan.tranches_bp[-1]
    if last == SHARE_ALL:
        # The last of them brings all others, too: boards that were unwell, and those that come later.
        if shares and reached == len(ordered):
            shares.pop()
        shares.append(SHARE_ALL)
    return tuple(shares) or (last,)


def judge(rollout: Rollout, candidate: Candidate) -> Outcome:
    """Return what the new version has come to on a board."""
    board, status = candidate.board, candidate.board.status
    if board.address not in rollout.well_before:
        return Outcome.UNWELL_BEFORE
    if status is None:  # heard before, and the broker has lost its word since
        return Outcome.FAILED if candidate.place_bp < rollout.share_bp else Outcome.LATER
    has_version = is_version(status.version) and not is_newer(rollout.plan.version, status.version)
    is_about_this = status.release >= rollout.first_sequence
    is_switched_off = is_about_this and status.update is UpdateState.NONE
    if not has_version and (is_switched_off or not candidate.has_package):
        return Outcome.LEFT_OUT
    if candidate.place_bp >= rollout.share_bp:
        return Outcome.UPDATED if has_version and is_well(board) else Outcome.LATER
    if not is_well(board) or (is_about_this and status.update.is_failed and not has_version):
        return Outcome.FAILED
    is_proving = is_about_this and status.update in (UpdateState.INSTALLING, UpdateState.CHECKING)
    return Outcome.UPDATED if has_version and not is_proving else Outcome.PENDING


def is_version(text: str) -> bool:
    """Return whether this is a version that can be ordered."""
    parts = text.split(".")
    return len(parts) == 3 and all(part.isascii() and part.isdecimal() for part in parts)


def step(rollout: Rollout, candidates: Sequence[Candidate], now_s: float) -> Rollout:
    """Return the rollout after a look at all boards: as before, one tranche further, halted or done."""
    if rollout.stage is not Stage.ROLLING:
        return rollout
    plan = rollout.plan
    begun, newest = _tally(rollout, candidates, 0), _tally(rollout, candidates, rollout.tranche)
    for which, tally in (("this tranche", newest), ("all that take part", begun)):
        if tally.is_broken(plan.health_min):
            return halt(rollout, f"{tally.failed} of {tally.judged} boards of {which} have failed")
    if not (newest.is_through(plan.health_min) and begun.is_through(plan.health_min)):
        if now_s - rollout.since_s >= plan.patience_s:
            text = f"after {plan.patience_s} s only {newest.updated} of {newest.judged} boards have come through"
            return halt(rollout, text)
        return replace(rollout, sound_s=None)
    # An empty tranche has nothing to prove.
    sound_s = rollout.sound_s if rollout.sound_s is not None else now_s
    if newest.judged and now_s - sound_s < plan.soak_s:
        if now_s - rollout.since_s >= plan.patience_s + plan.soak_s:
            return halt(rollout, "boards of this tranche come and go: it never was well for long enough")
        return replace(rollout, sound_s=sound_s)
    if rollout.is_last:
        return replace(rollout, sound_s=sound_s, stage=Stage.DONE)
    return replace(rollout, tranche=rollout.tranche + 1, since_s=now_s, sound_s=None)


def halt(rollout: Rollout, reason: str) -> Rollout:
    """Return the rollout, halted: no board begins to install the release any more."""
    return rollout if rollout.stage is Stage.HALTED else replace(rollout, stage=Stage.HALTED, reason=reason)


def resume(rollout: Rollout, candidates: Iterable[Candidate], now_s: float, first_sequence: int) -> Rollout:
    """Return a halted rollout that goes on at its tranche, because its operator says so: judged anew from now on."""
    fresh = begin(rollout.plan, candidates, now_s, first_sequence)
    return replace(fresh, tranche=rollout.tranche, shares_bp=rollout.shares_bp)


def rebuild(plan: Plan, candidates: Iterable[Candidate], now_s: float, share_bp: int) -> Rollout:
    """Return a rollout of which only the share is known that takes part by now: the next tranche has more than that."""
    fresh = begin(plan, candidates, now_s, 1)
    later = tuple(share for share in fresh.shares_bp if share > share_bp)
    before = tuple(share for share in fresh.shares_bp if share < share_bp)
    return replace(fresh, shares_bp=(*before, share_bp, *later), tranche=len(before))


def _tally(rollout: Rollout, candidates: Iterable[Candidate], first: int) -> Tally:
    """Return how the tranches from `first` to the newest stand."""
    low_bp = rollout.shares_bp[first - 1] if first else 0
    outcomes = Counter(
        judge(rollout, candidate) for candidate in candidates if low_bp <= candidate.place_bp < rollout.share_bp
    )
    updated, failed = outcomes[Outcome.UPDATED], outcomes[Outcome.FAILED]
    return Tally(updated + failed + outcomes[Outcome.PENDING], updated, failed)


def find_tranche(rollout: Rollout, place_bp: int) -> int | None:
    """Return the index of the tranche with which a board begins; None if it is in none."""
    return next((index for index, share in enumerate(rollout.shares_bp) if place_bp < share), None)
