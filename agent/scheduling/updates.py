"""When a board installs its operator's release: in its tranche, with charge and room, between two rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from agent.scheduling.readings import BoardReading
from agent.scheduling.settings import HOURS_FORM, HOURS_PATTERN, SHARE, is_within
from flchain.base.types import Millis
from flchain.rules.releases import Installed, Obstacle, find_obstacle, find_package
from flchain.wire.fleet import UpdateState
from flchain.wire.release import Package, Release

ROUND_WAIT_MS_MAX = Millis(1_800_000)
"""A round that does not end within half an hour is not waited for: the update itself takes less of it."""
ROOT_WAIT_MS_MAX = Millis(600_000)
"""Root that does not take a request within this time does not run."""
ASK_AGAIN_MS = Millis(3_600_000)
"""After root has refused, or has not answered."""
SPARE_BYTES = 16_000_000


@dataclass(frozen=True)
class UpdateSettings:
    """Section [update] of agent.toml."""

    enabled: bool = field(default=True, metadata={"help": "install the releases that the network's operator signs"})
    battery_min: float = field(default=0.5, metadata={**SHARE, "help": "least charge to begin with on battery; 0: any"})
    hours: str = field(
        default="",
        metadata={
            "pattern": HOURS_PATTERN,
            "form": HOURS_FORM,
            "help": 'local time in which to begin, such as "01:00-05:00"; not set: any time',
        },
    )


class Wish(Enum):
    """What the agent does for an update now."""

    NOTHING = "nothing"
    FETCH = "fetch"  # the package
    LEAVE = "leave"  # end this round, and begin no other
    REQUEST = "request"  # lay the request down for root
    RETRACT = "retract"  # the request, and go on as before


@dataclass(frozen=True)
class KeeperWord:
    """What root said last (`state.json`)."""

    state: UpdateState = UpdateState.NONE
    version: str = ""
    sequence: int = 0
    detail: str = ""
    bad_versions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class UpdateSight:
    """All that the decision looks at."""

    release: Release | None
    installed: Installed
    is_in_tranche: bool
    keeper: KeeperWord
    has_package: bool
    """The release's package for this board is here, whole and checked."""
    free_bytes: int
    fault: str
    """What stands against fetching it; empty if nothing does."""
    reading: BoardReading | None
    minute_of_day: int | None
    is_between_rounds: bool
    now_ms: Millis
    leaving_ms: Millis | None = None
    """Since when the round's end is waited for."""
    asked_ms: Millis | None = None
    """When the request was laid down."""
    refused_ms: Millis | None = None
    """When root refused, or did not answer; None if that is long ago or never was."""


@dataclass(frozen=True)
class UpdatePlan:
    """What to do, and what to say of it: the release's sequence number, how far it is, and why no further."""

    wish: Wish
    release: int
    state: UpdateState
    detail: str


def plan_update(settings: UpdateSettings, sight: UpdateSight) -> UpdatePlan:
    """Decide. The first thing that stands against the release is what is said."""
    release, word = sight.release, sight.keeper
    if release is None:
        return _plan(0, UpdateState.NONE, "")
    if not settings.enabled:
        return _plan(release.sequence, UpdateState.NONE, "switched off in [update]")
    obstacle = find_obstacle(release, sight.installed)
    if release.version == sight.installed.version:
        is_checking = word.version == release.version and word.state is UpdateState.CHECKING
        return _plan(release.sequence, UpdateState.CHECKING if is_checking else UpdateState.DONE, "")
    if obstacle is not None:
        return _plan(release.sequence, *_describe(obstacle, release, sight))
    if not sight.is_in_tranche:
        return _plan(release.sequence, UpdateState.WAITING, "not in the tranche yet")
    if sight.refused_ms is not None and sight.now_ms < sight.refused_ms + ASK_AGAIN_MS:
        return _plan(release.sequence, UpdateState.REFUSED, word.detail or "root does not take it")
    package = find_package(release, sight.installed.suite, sight.installed.architecture)
    assert package is not None, "its absence is an obstacle"
    if not sight.has_package:
        return _plan_fetching(release, package, sight)
    return _plan_request(settings, release, sight)


def _describe(obstacle: Obstacle, release: Release, sight: UpdateSight) -> tuple[UpdateState, str]:
    match obstacle:
        case Obstacle.HALTED:
            return UpdateState.WAITING, "the operator has halted it"
        case Obstacle.NOT_NEWER:
            return UpdateState.REFUSED, f"version {release.version} is older than what runs here"
        case Obstacle.KNOWN_BAD:
            is_this = sight.keeper.version == release.version
            return UpdateState.ROLLED_BACK, sight.keeper.detail if is_this else "it was tried here, and was bad"
        case _:
            kind = f"{sight.installed.suite} {sight.installed.architecture}"
            return UpdateState.REFUSED, f"it has no package for {kind}"


def _plan_fetching(release: Release, package: Package, sight: UpdateSight) -> UpdatePlan:
    needed = package.size_bytes + SPARE_BYTES
    if sight.free_bytes < needed:
        text = f"the disk is full: {sight.free_bytes // 1_000_000} MB free, {needed // 1_000_000} are needed"
        return _plan(release.sequence, UpdateState.WAITING, text)
    return _plan(release.sequence, UpdateState.FETCHING, sight.fault, Wish.FETCH)


def _plan_request(settings: UpdateSettings, release: Release, sight: UpdateSight) -> UpdatePlan:
    number = release.sequence
    if sight.asked_ms is not None:
        return _plan_asked(release, sight.keeper, sight.now_ms - sight.asked_ms)
    if why := _find_reason_to_wait(settings, sight):
        return _plan(number, UpdateState.WAITING, why)
    is_over = sight.leaving_ms is not None and sight.now_ms - sight.leaving_ms >= ROUND_WAIT_MS_MAX
    if sight.leaving_ms is not None and (sight.is_between_rounds or is_over):
        return _plan(number, UpdateState.READY, "", Wish.REQUEST)
    return _plan(number, UpdateState.READY, "waits for the end of the round", Wish.LEAVE)


def _plan_asked(release: Release, word: KeeperWord, waited_ms: int) -> UpdatePlan:
    if word.state is UpdateState.REFUSED and word.sequence in (0, release.sequence):
        return _plan(release.sequence, UpdateState.REFUSED, word.detail, Wish.RETRACT)
    if waited_ms >= ROOT_WAIT_MS_MAX:
        text = "root does not take it: does flchain-update.path run?"
        return _plan(release.sequence, UpdateState.REFUSED, text, Wish.RETRACT)
    return _plan(release.sequence, UpdateState.INSTALLING, "")


def _find_reason_to_wait(settings: UpdateSettings, sight: UpdateSight) -> str:
    """Return what about the board itself stands against beginning now; empty if nothing does."""
    reading = sight.reading
    if settings.hours and (sight.minute_of_day is None or not is_within(settings.hours, sight.minute_of_day)):
        return f"begins only within {settings.hours}"
    if reading is None:
        return "the board has not been measured yet"
    if reading.is_on_battery is not False and reading.battery_fraction is not None:
        if reading.battery_fraction < settings.battery_min:
            return f"battery {reading.battery_fraction:.0%}, begins above {settings.battery_min:.0%}"
    elif reading.is_on_battery and settings.battery_min > 0:
        return "on battery, and its charge cannot be read"
    if reading.is_undervolted:
        return "the supply's voltage is too low"
    return ""


def _plan(sequence: int, state: UpdateState, detail: str, wish: Wish = Wish.NOTHING) -> UpdatePlan:
    return UpdatePlan(wish, sequence, state, detail)
