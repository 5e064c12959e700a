"""A disk image of a root: a FAT partition that everyone can write, the root, the data partition. No loop devices.

The partition table is MBR: the boot program in a Raspberry Pi Zero 2 W's chip is not known to read GPT.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.images.disk.base import ROOT_LABEL
from tools.images.disk.recipes import MB, Recipe
from tools.images.programs import require_programs, run_tool

BOOT_LABEL = "FLCHAIN"
DATA_LABEL = "flchain-data"
SECTOR_BYTES = 512
START_BYTES = 4 * MB
"""Cards erase in blocks of up to 4 MB."""
OVERHEAD = 1.06
"""What ext4 needs beside the files' own blocks."""
DATA_FOLDERS = {
    "agent": "var/lib/flchain-agent",
    "provision": "var/lib/flchain-provision",
    "update": "var/lib/flchain-update",
    "timesync": "var/lib/systemd/timesync",
}
"""On the data partition: what etc/fstab binds from there."""
PROGRAMS = ("sfdisk", "mkfs.vfat", "mcopy", "mke2fs", "du")


@dataclass(frozen=True)
class Part:
    """A partition: where it is, in bytes."""

    start_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Layout:
    """The three partitions of a disk."""

    boot: Part
    root: Part
    data: Part

    @property
    def disk_bytes(self) -> int:
        """Return how large a card must be."""
        return self.data.start_bytes + self.data.size_bytes


def compute_layout(recipe: Recipe, root_used_bytes: int) -> Layout:
    """Return where the partitions are for a root whose files take `root_used_bytes`."""
    sizes = recipe.sizes
    boot = Part(START_BYTES, sizes.boot_mb * MB)
    root_mb = -(-int(root_used_bytes * OVERHEAD) // MB) + sizes.root_spare_mb
    root = Part(boot.start_bytes + boot.size_bytes, -(-root_mb // 4) * 4 * MB)
    return Layout(boot, root, Part(root.start_bytes + root.size_bytes, sizes.data_mb * MB))


def make_disk(recipe: Recipe, root: Path, image: Path, seed: str) -> Layout:
    """Write the disk image of a root, whose boot/firmware becomes the boot partition; `root` is used up.

    `seed` (hexadecimal, 32 digits or more) gives the disk's and the file systems' identifiers, so that one content
    gives one image. Raises ConfigError and ToolError.
    """
    require_programs(*PROGRAMS)
    work = image.parent
    boot = work / "boot"
    shutil.move(root / "boot" / "firmware", boot)
    (root / "boot" / "firmware").mkdir()
    data = _split_data(root, work / "data")
    layout = compute_layout(recipe, int(run_tool(("du", "-sk", "--apparent-size", str(root))).split()[0]) * 1024)
    with image.open("wb") as stream:
        stream.truncate(layout.disk_bytes)
    _write_table(layout, image, seed)
    _write_fat(layout.boot, boot, image, seed)
    _write_ext4(layout.root, root, image, ROOT_LABEL, seed[:8] + "0002")
    _write_ext4(layout.data, data, image, DATA_LABEL, seed[:8] + "0003")
    return layout


def _split_data(root: Path, data: Path) -> Path:
    """Return the content of the data partition: the folders that packages have made, empty, with their owners."""
    data.mkdir(mode=0o755)
    for name, source in DATA_FOLDERS.items():
        status = (root / source).stat()
        (data / name).mkdir()
        os.chown(data / name, status.st_uid, status.st_gid)
        (data / name).chmod(status.st_mode & 0o7777)
    return data


def _write_table(layout: Layout, image: Path, seed: str) -> None:
    lines = ["label: dos", f"label-id: 0x{seed[:8]}", "unit: sectors"]
    for part, kind in ((layout.boot, "c, bootable"), (layout.root, "83"), (layout.data, "83")):
        lines.append(f"start={part.start_bytes // SECTOR_BYTES}, size={part.size_bytes // SECTOR_BYTES}, type={kind}")
    script = image.with_suffix(".sfdisk")
    script.write_text("".join(f"{line}\n" for line in lines))
    run_tool(("sh", "-c", 'sfdisk --quiet "$0" <"$1"', str(image), str(script)))
    script.unlink()


def _write_fat(part: Part, content: Path, image: Path, seed: str) -> None:
    offset = part.start_bytes // SECTOR_BYTES
    # Clusters of 2 KB: FAT32 is told from FAT16 by having more than 65,525 of them.
    run_tool(
        (
            "mkfs.vfat", "-F", "32", "-s", "4", "-h", str(offset), "-n", BOOT_LABEL,
            "-i", seed[:8], f"--offset={offset}",
            str(image), str(part.size_bytes // 1024),
        )
    )  # fmt: skip
    entries = sorted(str(path) for path in content.iterdir())
    if entries:
        run_tool(("mcopy", "-s", "-p", "-m", "-Q", "-i", f"{image}@@{part.start_bytes}", *entries, "::"))


def _write_ext4(part: Part, content: Path, image: Path, label: str, seed: str) -> None:
    uuid = f"{seed[:8]}-{seed[8:12]}-4000-8000-{seed:0>12}"
    extended = f"offset={part.start_bytes},hash_seed={uuid},lazy_itable_init=0"
    run_tool(
        (
            "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "1", "-L", label, "-U", uuid, "-d", str(content),
            "-E", extended, str(image), f"{part.size_bytes // 1024}k",
        )
    )  # fmt: skip
