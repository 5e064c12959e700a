"""Root's part of an update up to the moment at which nothing is missing: verify what the agent has laid down, again and
from scratch, and take it into a folder of root's own. Installing is `keeper`'s.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.edge.update import keeper
from agent.edge.update.inbox import REQUEST, SPOKEN, Inbox, Refused
from agent.edge.update.repack import repack
from agent.edge.update.trust import ETC_TRUST, Trust, load_or_pin
from flchain.base.errors import ConfigError, InvalidMessage, TryAgain
from flchain.rules.releases import Installed, Obstacle, find_obstacle, find_package, process_release, read_release
from flchain.wire.release import RELEASE_BYTES_MAX, Package, Release
from flchain_edge.storage.sqlite import StoreFull

RELEASE_FILE = "release.cbor"
KEEPER_FILE = "keeper.py"
ROOM_PERCENT = 150
"""Of a package's installed size: dpkg keeps the old files until the new ones are there; then they are compiled."""
CONTROL_BYTES_MAX = 65_536
SPARE_BYTES = 16_000_000
"""Left for everybody else, beside what an update takes."""
WORDS = {
    Obstacle.HALTED: "the operator has halted this release",
    Obstacle.NOT_NEWER: "it is not newer than what is installed",
    Obstacle.KNOWN_BAD: "this board has gone back from this version before, and never tries one again",
    Obstacle.NO_PACKAGE: "the release has no package for this system",
}


@dataclass(frozen=True)
class Debs:
    """What dpkg says. `root` is another place in tests."""

    root: Path = Path("/")
    dpkg_query: str = "dpkg-query"
    dpkg_deb: str = "dpkg-deb"

    def read_status(self) -> str:
        """Return the installed package's part of dpkg's status. Raise ConfigError if it is not installed."""
        done = _run(self.dpkg_query, "--status", keeper.PACKAGE).decode(errors="replace")
        if "ok installed" not in done:
            text = f"the agent was not installed as a Debian package ({keeper.PACKAGE}): nothing here can update it"
            raise ConfigError((text,))
        return done

    def read_fields(self, deb: Path) -> dict[str, str]:
        """Return a package file's fields, without a file of it being unpacked. Raise Refused."""
        try:
            packed = io.BytesIO(_run(self.dpkg_deb, "--ctrl-tarfile", str(deb)))
            with tarfile.open(fileobj=packed, mode="r:") as archive:
                member = next(found for found in archive if found.name.lstrip("./") == "control")
                content = archive.extractfile(member)
                if content is not None:
                    return read_stanza(content.read(CONTROL_BYTES_MAX).decode(errors="replace"))
        except (tarfile.TarError, StopIteration) as error:
            raise Refused(f"{deb.name}: is no Debian package") from error
        raise Refused(f"{deb.name}: is no Debian package")


def _run(*command: str) -> bytes:
    """Return what a program of dpkg's says; nothing if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def read_stanza(text: str) -> dict[str, str]:
    """Return fields of one line by name."""
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith((" ", "\t")))
    return {name: value.strip() for name, _, value in pairs}


def read_upstream(version: str) -> str:
    """Return the three numbers that a Debian version begins with. Raise Refused."""
    found = re.match(r"(\d+\.\d+\.\d+)(?![\d.])", version, re.ASCII)
    if found is None:
        raise Refused(f"version {version}: does not begin with three numbers")
    return found[1]


class Applier:
    """One request, from the agent's folder into root's."""

    def __init__(
        self,
        folder: Path,
        agent_folder: Path,
        debs: Debs,
        suite: str,
        *,
        etc: Path = ETC_TRUST,
        get_free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self._folder, self._agent_folder, self._debs, self._suite = folder, agent_folder, debs, suite
        self._etc, self._get_free = etc, get_free
        is_overlay = debs.root == Path("/") and keeper.System().is_overlay()
        self._program_root = keeper.LOWER_ROOT if is_overlay else debs.root

    def apply(self) -> str:
        """Prepare the update that the agent asks for; return its version.

        Raise Refused (told in the state as well), TryAgain (another update is at work), ConfigError, StoreFull.
        """
        inbox = Inbox(self._agent_folder)
        try:
            with self._locked():
                return self._apply(inbox)
        finally:
            # Always: systemd would start this again and again for a request that stays.
            inbox.remove(REQUEST)
            inbox.close()

    def _apply(self, inbox: Inbox) -> str:
        release: Release | None = None
        try:
            trust = load_or_pin(self._folder, inbox, self._etc)
            release = self._read_request(inbox, trust)
            return self._prepare(inbox, release)
        except Refused as refused:
            (self._folder / keeper.NEW_DEB).unlink(missing_ok=True)
            self._tell(release, str(refused))
            raise
        except OSError as error:
            (self._folder / keeper.NEW_DEB).unlink(missing_ok=True)
            if error.errno not in keeper.FULL:
                raise
            self._tell(release, "the disk is full")
            raise StoreFull(f"{self._folder}: the disk is full, the update was not begun") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(self._folder / keeper.LOCK, flags, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TryAgain("another update is at work") from error
            if keeper.read_journal(self._folder) is not None:
                raise TryAgain("an update is under way: see flchain-agent update status")
            yield
        finally:
            os.close(lock)

    def _read_request(self, inbox: Inbox, trust: Trust) -> Release:
        """Return the release, signed by an operator that root knows, not older than any that root has seen."""
        raw = inbox.read(REQUEST, RELEASE_BYTES_MAX)
        release = self._verify(raw, trust)
        kept = self._folder / RELEASE_FILE
        try:
            known = self._verify(kept.read_bytes(), trust) if kept.is_file() else None
        except Refused:
            known = None  # of operators that are trusted no more
        try:
            process_release(known, release)
        except InvalidMessage as error:
            raise Refused(f"an older release: {error}") from error
        keeper.replace_file(kept, raw)
        return release

    def _verify(self, raw: bytes, trust: Trust) -> Release:
        faults: list[str] = []
        for key in trust.operators:
            try:
                return read_release(raw, trust.chain, key)
            except InvalidMessage as error:
                faults.append(f"{error.code}: {error}")
        raise Refused(f"the release is not one that this board believes: {faults[0]}")

    def _prepare(self, inbox: Inbox, release: Release) -> str:
        status = self._debs.read_status()
        fields = read_stanza(status)
        architecture = fields.get("Architecture", "")
        bad = frozenset(keeper.read_bad_versions(self._folder))
        installed = Installed(read_upstream(fields["Version"]), self._suite, architecture, bad)
        if (obstacle := find_obstacle(release, installed)) is not None:
            raise Refused(f"version {release.version}: {WORDS[obstacle]} ({installed.version})")
        package = find_package(release, self._suite, architecture)
        assert package is not None, "its absence is an obstacle"
        self._check_room(package, fields)
        new = self._folder / keeper.NEW_DEB
        inbox.copy(f"{package.sha256.hex()}.deb", new, package.size_bytes, package.sha256)
        self._check_content(new, release, architecture)
        self._keep_old(fields["Version"], status)
        inbox.remove(SPOKEN)
        keeper.replace_file(self._folder / KEEPER_FILE, Path(keeper.__file__).read_bytes())
        journal = keeper.Journal(
            keeper.Step.READY, release.version, release.sequence, fields["Version"], release.window_s
        )
        keeper.write_state(self._folder, "installing", journal, "")
        keeper.write_journal(self._folder, journal)
        return release.version

    def _check_room(self, package: Package, fields: dict[str, str]) -> None:
        size = fields.get("Installed-Size", "")
        installed_bytes = 1024 * int(size) if size.isdecimal() else 0
        # the copy and the way back here, and both sets of files where programs are
        wanted = {self._folder: 2 * package.size_bytes, self._program_root: ROOM_PERCENT * installed_bytes // 100}
        for place, needed in wanted.items():
            free, needed = self._get_free(place), needed + SPARE_BYTES
            if free < needed:
                raise Refused(f"the disk is full: {place} has {free // 1_000_000} MB, {needed // 1_000_000} are needed")

    def _check_content(self, deb: Path, release: Release, architecture: str) -> None:
        """Refuse a package whose own papers differ from the release: an older version could hide in it."""
        fields = self._debs.read_fields(deb)
        found = (fields.get("Package"), read_upstream(fields.get("Version", "")), fields.get("Architecture"))
        wanted = (keeper.PACKAGE, release.version, architecture)
        if found != wanted:
            raise Refused(f"the package is {' '.join(map(str, found))}, and not {' '.join(wanted)}")

    def _keep_old(self, version: str, status: str) -> None:
        """Have the installed version as a package: the one that was installed last, or made again from its files."""
        old, current = self._folder / keeper.OLD_DEB, self._folder / keeper.CURRENT_DEB
        if self._is_package_of(version, current):
            os.replace(current, old)
        elif not self._is_package_of(version, old):
            fresh = self._folder / ".old.deb.fresh"
            repack(keeper.PACKAGE, status, fresh, self._debs.root)
            os.replace(fresh, old)
        current.unlink(missing_ok=True)
        keeper.sync_folder(self._folder)

    def _is_package_of(self, version: str, deb: Path) -> bool:
        try:
            return deb.is_file() and self._debs.read_fields(deb).get("Version") == version
        except Refused:
            return False

    def _tell(self, release: Release | None, detail: str) -> None:
        version, sequence = (release.version, release.sequence) if release is not None else ("", 0)
        word = keeper.Journal(keeper.Step.READY, version, sequence, "", 0)
        keeper.write_state(self._folder, "refused", word, detail)


def begin_rollback(folder: Path, debs: Debs) -> str:
    """Begin the way back to the version before, as an operator wants it; return the version.

    Raise ConfigError if there is none, TryAgain.
    """
    if keeper.read_journal(folder) is not None:
        raise TryAgain("an update is under way: see flchain-agent update status")
    old, installed = folder / keeper.OLD_DEB, read_stanza(debs.read_status())["Version"]
    try:
        version = debs.read_fields(old).get("Version", "") if old.is_file() else ""
    except Refused as refused:
        raise ConfigError((str(refused),)) from refused
    if not version or version == installed:
        raise ConfigError((f"{folder}: has no package of a version before {installed}",))
    keeper.replace_file(folder / KEEPER_FILE, Path(keeper.__file__).read_bytes())
    begun = keeper.Journal(keeper.Step.CHECKING, read_upstream(installed), 0, version, 0)
    keeper.write_journal(folder, keeper.begin_revert(begun, "the operator went back"))
    return version
