"""The agent's own part of an update: keep the release, fetch its package, and lay a request down for root in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.releases import is_between_rounds
from agent.core.state import AgentState, Standing, compute_standing
from agent.core.values import Event, LeavePlanned
from agent.edge.update.fetch import DamagedPackage, Fetch, name_package
from agent.edge.update.inbox import REQUEST, SPOKEN, TRUST
from agent.edge.update.keeper import STATE
from agent.edge.update.trust import Trust, encode_trust
from agent.scheduling.updates import KeeperWord, UpdatePlan, UpdateSettings, UpdateSight, Wish, plan_update
from agent.status.health import has_proved_itself
from agent.status.report import BoardFacts
from agent.status.values import AgentStatus, UpdateReport
from flchain.base.errors import FlchainError, InvalidMessage
from flchain.base.types import Millis
from flchain.rules.releases import Installed, find_package, is_in_tranche, read_release
from flchain.wire.fleet import UpdateState
from flchain.wire.release import RELEASE_BYTES_MAX, Package, Release
from flchain_edge.keys.private_files import replace_private
from flchain_edge.process.aside import call_aside

log = logging.getLogger(__name__)

RELEASE_FILE = "release.cbor"
ROOT_FOLDER = Path("/var/lib/flchain-update")
PACKAGE_LIST = Path("/var/lib/dpkg/info/flchain-agent.list")
STATE_VARIABLE = "STATE_DIRECTORY"
"""Systemd's word for where a service keeps what lasts."""
STATE_BYTES_MAX = 65_536
RETRY_MS = Millis(300_000)
"""Between two attempts to fetch a package."""
DAMAGED_MAX = 3
"""A package that arrives damaged so often is not fetched again by this process."""


@dataclass(frozen=True)
class Places:
    """Where the agent lays things down for root, and where it reads what root says."""

    folder: Path
    root_folder: Path

    def read_word(self) -> KeeperWord:
        """Return what root said last."""
        try:
            with (self.root_folder / STATE).open("rb") as stream:
                content = json.loads(stream.read(STATE_BYTES_MAX))
            state = UpdateState[str(content["state"]).upper()]
            bad = frozenset(str(word) for word in content["bad_versions"])
            return KeeperWord(state, str(content["version"]), int(content["sequence"]), str(content["detail"]), bad)
        except (OSError, ValueError, TypeError, KeyError):
            return KeeperWord()


class Updater:
    """One process's updates. `look` is called every few seconds; it never raises for what the world does."""

    def __init__(
        self,
        settings: UpdateSettings,
        places: Places,
        trust: Trust,
        facts: BoardFacts,
        *,
        fetch: Fetch,
        post: Callable[[Event], None],
        get_now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        get_free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._settings, self._places, self._facts = settings, places, facts
        self._trust, self._fetch, self._post = trust, fetch, post
        self._get_now_ms, self._get_free = get_now_ms, get_free
        self._plan = UpdatePlan(Wish.NOTHING, 0, UpdateState.NONE, "")
        self._task: asyncio.Task[None] | None = None
        self._fault, self._retry_ms, self._damaged = "", Millis(0), 0
        self._leaving_ms: Millis | None = None
        self._asked_ms: Millis | None = None
        self._refused: tuple[int, Millis] | None = None
        self._has_spoken = False

    def start(self) -> None:
        """Say whose releases this board takes, and forget a request of an earlier process. Raise OSError."""
        self._places.folder.mkdir(mode=0o700, exist_ok=True)
        replace_private(self._places.folder / TRUST, encode_trust(self._trust))
        (self._places.folder / REQUEST).unlink(missing_ok=True)
        word = self._places.read_word()
        if word.state is UpdateState.REFUSED:
            self._refused = word.sequence, Millis(self._get_now_ms())

    def load_release(self) -> Release | None:
        """Return the release that was known before this start; None if there is none that is still believed."""
        try:
            raw = (self._places.folder / RELEASE_FILE).read_bytes()[: RELEASE_BYTES_MAX + 1]
        except OSError:
            return None
        for key in self._trust.operators:
            with contextlib.suppress(InvalidMessage):
                return read_release(raw, self._trust.chain, key)
        return None

    def describe(self) -> UpdateReport:
        """Return how far the update is."""
        return UpdateReport(release=self._plan.release, state=self._plan.state, detail=self._plan.detail)

    def save(self, raw: bytes) -> None:
        """Keep the newest release over a restart."""
        with self._told():
            replace_private(self._places.folder / RELEASE_FILE, raw)

    def look(self, state: AgentState, status: AgentStatus, minute_of_day: int | None) -> None:
        """Decide anew, and do what is due."""
        with self._told():
            self._tell_spoken(state, status)
            before, sight = self._plan, self._see(state, status, minute_of_day)
            self._plan = plan_update(self._settings, sight)
            if (self._plan.state, self._plan.detail) != (before.state, before.detail):
                fields = {"release": self._plan.release, "detail": self._plan.detail}
                log.info(f"update: {self._plan.state.name.lower().replace('_', ' ')}", extra=fields)
            self._act(sight, state)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                log.warning("the update cannot go on", extra={"cause": error})

    def _tell_spoken(self, state: AgentState, status: AgentStatus) -> None:
        """Leave word for root, once, that this version works."""
        if self._has_spoken:
            return
        is_finished = compute_standing(state) is Standing.FINISHED
        if has_proved_itself(status, is_finished=is_finished):
            replace_private(self._places.folder / SPOKEN, self._version.encode())
            self._has_spoken = True

    @property
    def _version(self) -> str:
        """The three numbers of what runs here."""
        found = re.match(r"\d+\.\d+\.\d+", self._facts.version, re.ASCII)
        return found[0] if found else "0.0.0"

    def _see(self, state: AgentState, status: AgentStatus, minute_of_day: int | None) -> UpdateSight:
        word, release, now_ms = self._places.read_word(), state.release, Millis(self._get_now_ms())
        installed = Installed(self._version, self._facts.suite, self._facts.architecture, word.bad_versions)
        package = self._find_package(release)
        refused_ms = None
        if self._refused is not None and release is not None and self._refused[0] == release.sequence:
            refused_ms = self._refused[1]
        return UpdateSight(
            release=release,
            installed=installed,
            is_in_tranche=release is not None
            and is_in_tranche(release, state.light.chain, state.config.identity.address),
            keeper=word,
            has_package=package is not None and self._has(package),
            free_bytes=self._get_free(self._places.folder),
            fault=self._fault,
            reading=status.board,
            minute_of_day=minute_of_day,
            is_between_rounds=is_between_rounds(state),
            now_ms=now_ms,
            leaving_ms=self._leaving_ms,
            asked_ms=self._asked_ms,
            refused_ms=refused_ms,
        )

    def _find_package(self, release: Release | None) -> Package | None:
        return None if release is None else find_package(release, self._facts.suite, self._facts.architecture)

    def _has(self, package: Package) -> bool:
        try:
            return (self._places.folder / name_package(package)).stat().st_size == package.size_bytes
        except FileNotFoundError:
            return False

    def _act(self, sight: UpdateSight, state: AgentState) -> None:
        wish = self._plan.wish
        if wish is Wish.FETCH:
            self._begin_fetching(self._find_package(state.release), sight.now_ms)
        elif wish is Wish.REQUEST:
            raw = (self._places.folder / RELEASE_FILE).read_bytes()
            replace_private(self._places.folder / REQUEST, raw)
            self._asked_ms = sight.now_ms
        elif wish is Wish.RETRACT:
            (self._places.folder / REQUEST).unlink(missing_ok=True)
            self._asked_ms, self._refused = None, (self._plan.release, sight.now_ms)
        is_leaving = wish in (Wish.LEAVE, Wish.REQUEST) or self._plan.state is UpdateState.INSTALLING
        if is_leaving != (self._leaving_ms is not None):
            self._leaving_ms = sight.now_ms if is_leaving else None
            self._post(LeavePlanned(is_leaving))

    def _begin_fetching(self, package: Package | None, now_ms: Millis) -> None:
        is_running = self._task is not None and not self._task.done()
        if package is None or is_running or now_ms < self._retry_ms or self._damaged >= DAMAGED_MAX:
            return
        self._retry_ms = Millis(now_ms + RETRY_MS)
        self._task = asyncio.create_task(self._bring(package), name="update")

    async def _bring(self, package: Package) -> None:
        folder = self._places.folder
        try:
            await call_aside(lambda: self._remove_others(package), "update")
            await call_aside(lambda: self._fetch(package, folder), "update")
            self._fault = ""
            log.info("update: the package is here", extra={"bytes": package.size_bytes})
        except (FlchainError, OSError) as error:
            self._damaged += isinstance(error, DamagedPackage)
            self._fault = str(error)

    def _remove_others(self, package: Package) -> None:
        """Leave only this release's package: a board that was offline for long would collect them."""
        for path in self._places.folder.glob("*.*"):
            if path.suffix in (".deb", ".part") and path.stem != package.sha256.hex():
                with contextlib.suppress(OSError):
                    os.unlink(path)


def find_places(environ: Mapping[str, str], package_list: Path = PACKAGE_LIST) -> Places | None:
    """Return where updates go on a board that runs the package as a service; None where nobody would install one."""
    folder = environ.get(STATE_VARIABLE, "").split(":")[0]
    return Places(Path(folder) / "update", ROOT_FOLDER) if folder and package_list.exists() else None
