"""The newest rollout, in the operator's folder: written before anything is said, so that a crash loses nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from flchain.base.errors import ConfigError
from flchain.base.types import Address
from flchain.wire.release import Package, Release, ReleaseState
from flchain_edge.keys.private_files import replace_private
from tools.fleet.rollout import Plan, Rollout, Stage

STATE_FILE = "rollout.json"
STATE_BYTES_MAX = 1_000_000
STATE_VERSION = 1


class _PackageLine(msgspec.Struct, frozen=True):
    suite: str
    architecture: str
    sha256: str
    size_bytes: int


class _File(msgspec.Struct, frozen=True):
    """What is in the file."""

    version: int
    release_version: str
    sequence: int
    """Of the newest release that was signed, published or not."""
    window_s: int
    packages: list[_PackageLine]
    tranches_bp: list[int]
    soak_s: int
    health_min: int
    patience_s: int
    well_before: list[str]
    tranche: int
    since_s: float
    sound_s: float | None
    stage: Stage
    reason: str
    first_sequence: int
    shares_bp: list[int]


class Saved(msgspec.Struct, frozen=True):
    """A rollout with what its releases hold."""

    rollout: Rollout
    sequence: int
    window_s: int
    packages: tuple[Package, ...]


def build_release(saved: Saved, issued_s: int) -> Release:
    """Return the release that says what the rollout wants of boards now."""
    rollout = saved.rollout
    return Release(
        sequence=saved.sequence,
        version=rollout.plan.version,
        packages=saved.packages,
        share_bp=rollout.share_bp,
        state=ReleaseState.HALTED if rollout.stage is Stage.HALTED else ReleaseState.ROLLING,
        window_s=saved.window_s,
        issued_s=issued_s,
    )


def save(folder: Path, saved: Saved) -> None:
    """Write the state, on disk when this returns. Raise OSError."""
    rollout, plan = saved.rollout, saved.rollout.plan
    lines = [_PackageLine(p.suite, p.architecture, p.sha256.hex(), p.size_bytes) for p in saved.packages]
    file = _File(
        version=STATE_VERSION,
        release_version=plan.version,
        sequence=saved.sequence,
        window_s=saved.window_s,
        packages=lines,
        tranches_bp=list(plan.tranches_bp),
        soak_s=plan.soak_s,
        health_min=plan.health_min,
        patience_s=plan.patience_s,
        well_before=sorted(address.hex() for address in rollout.well_before),
        tranche=rollout.tranche,
        since_s=rollout.since_s,
        sound_s=rollout.sound_s,
        stage=rollout.stage,
        reason=rollout.reason,
        first_sequence=rollout.first_sequence,
        shares_bp=list(rollout.shares_bp),
    )
    replace_private(folder / STATE_FILE, msgspec.json.encode(file))


def load(folder: Path) -> Saved | None:
    """Return the newest rollout; None if there was none. Raise ConfigError for a file that cannot be read."""
    path = folder / STATE_FILE
    try:
        with path.open("rb") as stream:
            file = msgspec.json.decode(stream.read(STATE_BYTES_MAX), type=_File)
        if file.version != STATE_VERSION:
            raise ValueError(f"is of version {file.version}, this program reads {STATE_VERSION}")
        plan = Plan(file.release_version, tuple(file.tranches_bp), file.soak_s, file.health_min, file.patience_s)
        if not 0 <= file.tranche < len(file.shares_bp):
            raise ValueError(f"names tranche {file.tranche}")
        rollout = Rollout(
            plan=plan,
            well_before=frozenset(Address(bytes.fromhex(text)) for text in file.well_before),
            tranche=file.tranche,
            since_s=file.since_s,
            sound_s=file.sound_s,
            stage=file.stage,
            reason=file.reason,
            first_sequence=file.first_sequence,
            shares_bp=tuple(file.shares_bp),
        )
        packages = tuple(Package(p.suite, p.architecture, bytes.fromhex(p.sha256), p.size_bytes) for p in file.packages)
        return Saved(rollout, file.sequence, file.window_s, packages)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError((f"{path}: {error.strerror}",)) from error
    except ValueError as error:  # msgspec's errors are ValueErrors
        hint = "move it away: the next update then continues by the release that the broker keeps"
        raise ConfigError((f"{path}: {error}; {hint}",)) from error
