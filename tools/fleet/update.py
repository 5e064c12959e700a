"""Drive a rollout: bring the packages to the registrar, announce tranche after tranche, halt when `rollout` says so.

It runs in the foreground. If it ends, nothing advances: boards of the tranches that have begun go on, others wait. The
same command again continues.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError, TryAgain
from flchain.base.frozen import replace
from flchain.rules.releases import compute_place, is_newer
from flchain.wire.envelope import seal
from flchain.wire.release import Package, ReleaseState
from flchain_edge.enrolment.messages import build_package_request, build_upload_headers
from tools.fleet.debs import Deb
from tools.fleet.folder import FleetFolder, connect_registrar
from tools.fleet.link import Fleet, FleetLink, holding_link
from tools.fleet.progress import format_begin, format_end, format_progress
from tools.fleet.rollout import Candidate, Plan, Rollout, Stage, begin, halt, rebuild, resume, step
from tools.fleet.state import Saved, build_release, load, save

TICK_S = 2.0
WINDOW_S = 900
HALT_FILE = "halt"
"""Laid down by `flchain fleet halt` beside a running `update`, which carries it out."""
HALT_WAIT_S = 60.0
BY_HAND = "halted by the operator"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What the operator asks of `update`."""

    version: str
    debs: tuple[Deb, ...]
    """Empty if the packages were brought before."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the plan that the operator has named; others stay as they were, or as they usually are."""
    window_s: int | None = None
    is_again: bool = False
    """Go on with a rollout that was halted."""

    def build_plan(self, known: Plan | None = None) -> Plan:
        """Return the plan, on top of that of a rollout that goes on. Raise ConfigError."""
        return replace(known or Plan(self.version), version=self.version, **self.options)


async def run_update(fleet: Fleet, identity: Identity, wish: Wish, say: Say) -> Rollout:
    """Return the rollout when it is done or halted. Raise ConfigError, TryAgain."""
    folder = fleet.folder
    with holding_link(folder) as is_ours:
        if not is_ours:
            raise TryAgain("another flchain fleet command uses the connection: end it, or wait for it")
        (folder.path / HALT_FILE).unlink(missing_ok=True)
        async with FleetLink(fleet).running() as link:
            await link.gather()
            saved = _begin(fleet, wish)
            await asyncio.to_thread(bring_packages, folder, identity, wish.debs, saved.packages, say)
            save(folder.path, saved)
            await _announce(link, identity, saved)
            say(format_begin(saved.rollout, see(fleet, saved)))
            return await _drive(link, identity, saved, say)


def _begin(fleet: Fleet, wish: Wish) -> Saved:
    """Return a new rollout, or the one that goes on. Raise ConfigError."""
    known, now_s = find_known(fleet, wish), time.time()
    sequence = max(known.sequence if known else 0, fleet.release.sequence if fleet.release else 0) + 1
    if known is not None and known.rollout.plan.version == wish.version:
        return _continue(fleet, known, wish, sequence, now_s)
    if known is not None and not is_newer(wish.version, known.rollout.plan.version):
        text = f"{wish.version}: {known.rollout.plan.version} was announced, and boards go only forward"
        raise ConfigError((f"{text}: give the packages a higher version, also to bring back an older state",))
    if not wish.debs:
        raise ConfigError((f"{wish.version}: name the folder with its packages (from: make debs)",))
    packages = tuple(deb.package for deb in wish.debs)
    fresh = begin(wish.build_plan(), build_candidates(fleet, wish.version, packages), now_s, sequence)
    return Saved(fresh, sequence, wish.window_s or WINDOW_S, packages)


def _continue(fleet: Fleet, known: Saved, wish: Wish, sequence: int, now_s: float) -> Saved:
    rollout, packages = known.rollout, tuple(deb.package for deb in wish.debs)
    if packages and packages != known.packages:
        raise ConfigError((f"{wish.version}: was announced with other packages: give the new ones a higher version",))
    if rollout.stage is Stage.HALTED and not wish.is_again:
        text = (
            f"{wish.version}: {rollout.reason}; look at the boards (flchain fleet status), then give a mended version"
        )
        raise ConfigError((f"{text}, or go on all the same with --again",))
    plan = wish.build_plan(rollout.plan)
    if plan.tranches_bp != rollout.plan.tranches_bp:
        raise ConfigError((f"--tranches: this rollout has {format_tranches(rollout.plan)}",))
    rollout = replace(rollout, plan=plan)
    if rollout.stage is Stage.HALTED:
        rollout = resume(rollout, build_candidates(fleet, wish.version, known.packages), now_s, sequence)
    elif rollout.stage is Stage.DONE:
        rollout = replace(rollout, stage=Stage.ROLLING)
    return Saved(rollout, sequence, wish.window_s or known.window_s, known.packages)


def format_tranches(plan: Plan) -> str:
    """Return the tranches as the option takes them."""
    return ",".join(f"{share / 100:g}" for share in plan.tranches_bp)


def find_known(fleet: Fleet, wish: Wish | None = None) -> Saved | None:
    """Return the newest rollout: from the folder, or if that was lost, as far as the release on the broker tells."""
    saved, release = load(fleet.folder.path), fleet.release
    if release is None or (saved is not None and saved.sequence >= release.sequence):
        return saved
    plan = replace(wish.build_plan() if wish else Plan(release.version), version=release.version)
    candidates = build_candidates(fleet, release.version, release.packages)
    rollout = rebuild(plan, candidates, time.time(), release.share_bp)
    if release.state is ReleaseState.HALTED:
        rollout = halt(rollout, "halted, and the folder does not tell why")
    return Saved(rollout, release.sequence, release.window_s, release.packages)


def bring_packages(
    folder: FleetFolder, identity: Identity, debs: Sequence[Deb], packages: Sequence[Package], say: Say
) -> None:
    """Bring the registrar what it lacks. Raise ConfigError, also if a package is neither here nor there; TryAgain."""
    client, fingerprint = connect_registrar(folder)
    paths = {deb.package.sha256: deb.path for deb in debs}
    for package in packages:
        sha256, size = package.sha256.hex(), package.size_bytes
        if client.has_package(build_package_request(identity, fingerprint, sha256, size)):
            continue
        path = paths.get(package.sha256)
        if path is None:
            text = (
                f"the registrar lacks the package for {package.suite} {package.architecture}: name the folder with it"
            )
            raise ConfigError((text,))
        say(f"bringing {path.name} to the registrar ({size / 1e6:.1f} MB)")
        with path.open("rb") as stream:
            client.send_package(stream, sha256, size, build_upload_headers(identity, fingerprint, sha256, size))


def build_candidates(fleet: Fleet, version: str, packages: Iterable[Package]) -> tuple[Candidate, ...]:
    """Return all boards as a rollout of these packages sees them."""
    systems = {(package.suite, package.architecture) for package in packages}
    return tuple(
        Candidate(
            board,
            compute_place(fleet.chain, version, board.address),
            board.status is not None and (board.status.suite, board.status.architecture) in systems,
        )
        for board in fleet.list_boards(time.time())
    )


def see(fleet: Fleet, saved: Saved) -> tuple[Candidate, ...]:
    """Return all boards as this rollout sees them now."""
    return build_candidates(fleet, saved.rollout.plan.version, saved.packages)


async def _drive(link: FleetLink, identity: Identity, saved: Saved, say: Say) -> Rollout:
    folder, said = link.fleet.folder.path, ""
    while saved.rollout.stage is Stage.ROLLING:
        await asyncio.sleep(TICK_S)
        now_s, before = time.time(), saved.rollout
        if (folder / HALT_FILE).exists():
            saved = await _change(link, identity, saved, halt(before, BY_HAND))
            (folder / HALT_FILE).unlink(missing_ok=True)
            break
        if not link.is_settled:
            text = f"no connection to the broker: {link.trouble or 'waiting'}; the rollout stays where it is"
        else:
            candidates = see(link.fleet, saved)
            after = step(before, candidates, now_s)
            if after != before:
                saved = await _change(link, identity, saved, after)
            text = format_progress(after, candidates, now_s)
        if text != said:
            said = text
            say(text)
    say(format_end(saved.rollout))
    return saved.rollout


async def _change(link: FleetLink, identity: Identity, saved: Saved, after: Rollout) -> Saved:
    """Carry a decision out: on the disk first, then to the boards if it says something new to them."""
    before = saved.rollout
    is_news = (after.tranche, after.stage is Stage.HALTED) != (before.tranche, before.stage is Stage.HALTED)
    fresh = msgspec.structs.replace(saved, rollout=after, sequence=saved.sequence + is_news)
    save(link.fleet.folder.path, fresh)
    if is_news:
        await _announce_until(link, identity, fresh)
    return fresh


async def _announce_until(link: FleetLink, identity: Identity, saved: Saved) -> None:
    """Announce for as long as it takes: a halt must reach the boards also when the broker is away just now."""
    while True:
        try:
            await _announce(link, identity, saved)
            return
        except TryAgain:
            continue


async def _announce(link: FleetLink, identity: Identity, saved: Saved) -> None:
    release = build_release(saved, int(time.time()))
    await link.announce(seal(release, link.fleet.chain, identity), release)


async def run_halt(fleet: Fleet, load_identity: Callable[[], Identity], say: Say) -> Rollout | None:
    """Halt the newest rollout, through the `update` that runs, or itself; None if there is none. Raise TryAgain."""
    path = fleet.folder.path
    with holding_link(fleet.folder) as is_ours:
        if not is_ours:
            return await _halt_other(path)
        async with FleetLink(fleet).running() as link:
            await link.gather()
            known = find_known(fleet)
            if known is None or known.rollout.stage is Stage.HALTED:
                return known.rollout if known else None
            sequence = max(known.sequence, fleet.release.sequence if fleet.release else 0) + 1
            fresh = msgspec.structs.replace(known, rollout=halt(known.rollout, BY_HAND), sequence=sequence)
            identity = load_identity()  # first: what cannot be signed must not be written down either
            save(path, fresh)
            await _announce(link, identity, fresh)
            return fresh.rollout


async def _halt_other(path: Path) -> Rollout:
    (path / HALT_FILE).touch()
    until = time.monotonic() + HALT_WAIT_S
    while time.monotonic() < until:
        await asyncio.sleep(TICK_S / 4)
        known = load(path)
        if known is not None and known.rollout.stage is Stage.HALTED:
            return known.rollout
        if not (path / HALT_FILE).exists():
            break  # the other one has ended
    (path / HALT_FILE).unlink(missing_ok=True)
    raise TryAgain("the flchain fleet command that is connected does not answer: end it, then run this again")
