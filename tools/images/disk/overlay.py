"""What makes a maker's own image an FLchain board: an archive of packages, settings and one script."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tools.images.disk.recipes import FILES, RECIPES, Recipe

OVERLAY = RECIPES / "overlay"
FOLDER = "flchain-overlay"
"""What the archive unpacks to."""
SHARED_FILES = ("etc/systemd/system.conf.d/10-flchain-watchdog.conf",)
"""Of our images' files: what suits any maker's system. The rest is theirs to decide."""


def build_overlay(recipe: Recipe, packages: Mapping[str, Path], archive: Path, time_s: int) -> None:
    """Write the archive of a board; `packages` are the .deb files by release, `time_s` what its files are dated."""
    content: dict[str, tuple[bytes, int]] = {
        "install.sh": ((OVERLAY / "install.sh").read_bytes(), 0o755),
        "flchain-overlay.service": ((OVERLAY / "flchain-overlay.service").read_bytes(), 0o644),
        "board": (f"{recipe.name}\n".encode(), 0o644),
        "models": ("".join(f"{model}\n" for model in recipe.models).encode(), 0o644),
    }
    for name in SHARED_FILES:
        content[f"files/{name}"] = ((FILES / name).read_bytes(), 0o644)
    for release, package in packages.items():
        content[f"packages/{release}/{package.name}"] = (package.read_bytes(), 0o644)
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name(f"{archive.name}.part")
    with tarfile.open(unfinished, "w:gz", compresslevel=1) as tar:
        for name, (data, mode) in sorted(content.items()):
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), mode, time_s
            tar.addfile(entry, io.BytesIO(data))
    unfinished.rename(archive)
