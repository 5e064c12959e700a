"""Put an overlay archive into a maker's image file: no root, no mounts, no loop devices, no emulation.

Files and a unit are written into the image's root by debugfs; at its first boot that unit runs the archive's own
install.sh, as a person would on a running board. The provisioning file goes to the boot partition.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flchain.base.errors import ConfigError
from tools.images.disk.overlay import FOLDER
from tools.images.programs import ToolError, require_programs, run_tool

PLACE = "/var/lib/flchain-overlay"
UNIT = "flchain-overlay.service"
UNITS = "/etc/systemd/system"
ARCHIVE_MEMBERS_MAX = 100
ARCHIVE_BYTES_MAX = 1_000_000_000


@dataclass(frozen=True)
class Partition:
    """A partition of an image file: its number from 1, and where it begins, in bytes."""

    number: int
    start_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Applied:
    """What was done: the release that the image holds, and the partitions that were changed."""

    release: str
    root: Partition
    boot: Partition | None


def apply_overlay(archive: Path, image: Path, provision: Path | None = None) -> Applied:
    """Put the archive into the image. Raises ConfigError, with nothing changed, if they do not belong together."""
    require_programs("debugfs", "sfdisk", "mcopy")
    partitions = list_partitions(image)
    root, release = _find_root(image, partitions)
    boot = next((part for part in partitions if _read_fat(image, part)), None)
    with tempfile.TemporaryDirectory() as name:
        content = _unpack(archive, Path(name))
        releases = sorted(path.name for path in (content / "packages").iterdir())
        problems = []
        if release not in releases:
            problems.append(f"{image}: holds the release {release!r}, but {archive} has {', '.join(releases)}")
        if provision is not None and boot is None:
            problems.append(f"{image}: has no FAT partition to put {provision} on")
        if problems:
            raise ConfigError(tuple(problems))
        kept = [path for path in content.rglob("*") if release in path.parts or "packages" not in path.parts]
        _write_root(image, root, content, sorted(path for path in kept if path.is_file()))
        if provision is not None and boot is not None:
            where = f"{image}@@{boot.start_bytes}"
            run_tool(("mcopy", "-o", "-i", where, str(provision), "::flchain.toml"))
    return Applied(release, root, boot)


def list_partitions(image: Path) -> list[Partition]:
    """Return the partitions of an image file, in their order. Raises ConfigError if it has none."""
    try:
        table = json.loads(run_tool(("sfdisk", "--json", str(image))))["partitiontable"]
    except (ToolError, KeyError, ValueError) as error:
        raise ConfigError((f"{image}: has no partition table; is it packed (.xz)? Unpack it first",)) from error
    sector_bytes = int(table.get("sectorsize", 512))
    return [
        Partition(number, entry["start"] * sector_bytes, entry["size"] * sector_bytes)
        for number, entry in enumerate(table.get("partitions", []), 1)
    ]


def _find_root(image: Path, partitions: list[Partition]) -> tuple[Partition, str]:
    for part in partitions:
        for place in ("/usr/lib/os-release", "/etc/os-release"):
            words = dict(line.split("=", 1) for line in _read(image, part, place).splitlines() if "=" in line)
            if release := words.get("VERSION_CODENAME", "").strip('"'):
                return part, release
    raise ConfigError((f"{image}: no partition of it is an ext4 root of Debian, Raspberry Pi OS or Ubuntu",))


def _read(image: Path, part: Partition, path: str) -> str:
    """Return a file of an ext4 partition, empty if it is not there or this is none."""
    command = ("debugfs", "-R", f"cat {path}", f"{image}?offset={part.start_bytes}")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout


def _read_fat(image: Path, part: Partition) -> bool:
    done = subprocess.run(("mdir", "-b", "-i", f"{image}@@{part.start_bytes}", "::"), capture_output=True, check=False)
    return done.returncode == 0


def _unpack(archive: Path, folder: Path) -> Path:
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            if len(members) > ARCHIVE_MEMBERS_MAX or sum(member.size for member in members) > ARCHIVE_BYTES_MAX:
                raise ConfigError((f"{archive}: is too large to be an overlay archive",))
            if any(not member.isfile() or not member.name.startswith(f"{FOLDER}/") for member in members):
                raise ConfigError((f"{archive}: is not an overlay archive",))
            for member in members:
                target = folder / member.name
                if ".." in target.parts:
                    raise ConfigError((f"{archive}: is not an overlay archive",))
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None, "it is a file"
                target.write_bytes(source.read())
                target.chmod(member.mode & 0o755)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ConfigError((f"{archive}: is damaged or no overlay archive: {error}",)) from error
    return folder / FOLDER


def _write_root(image: Path, part: Partition, content: Path, files: list[Path]) -> None:
    commands = [*_list_commands(content, files)]
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as script:
        script.write("".join(f"{command}\n" for command in commands))
        script.flush()
        device = f"{image}?offset={part.start_bytes}"
        done = subprocess.run(
            ("debugfs", "-w", "-f", script.name, device), capture_output=True, text=True, errors="replace", check=False
        )
    written = _read(image, part, f"{UNITS}/{UNIT}")
    if done.returncode or written != (content / UNIT).read_text("utf-8"):
        raise ToolError(f"{image}: could not be written: {done.stderr.strip() or done.stdout.strip()}")


def _list_commands(content: Path, files: list[Path]) -> Iterator[str]:
    """Yield what debugfs is told: folders, files with their modes, the unit and its link. All belong to root."""
    yield f"mkdir {PLACE}"
    folders = sorted({parent for path in files for parent in path.relative_to(content).parents if parent.parts})
    yield from (f"mkdir {PLACE}/{folder}" for folder in folders)
    targets = [(path, f"{PLACE}/{path.relative_to(content)}") for path in files]
    targets.append((content / UNIT, f"{UNITS}/{UNIT}"))
    for path, target in targets:
        yield f"rm {target}"
        yield f"write {path} {target}"
        yield f"set_inode_field {target} mode 0100{path.stat().st_mode & 0o755:o}"
        yield f"set_inode_field {target} uid 0"
        yield f"set_inode_field {target} gid 0"
    yield f"mkdir {UNITS}/multi-user.target.wants"
    yield f"symlink {UNITS}/multi-user.target.wants/{UNIT} {UNITS}/{UNIT}"
