"""The image of a board: its base, our packages on top, a disk of it all."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.images.disk.base import make_base
from tools.images.disk.inside import run_inside
from tools.images.disk.layout import Layout, make_disk
from tools.images.disk.recipes import Recipe
from tools.images.roots import unpack_root


@dataclass(frozen=True)
class Built:
    """A disk image, its partitions, which packages it holds (dpkg's status file), and what ours bring (their SBOM)."""

    image: Path
    layout: Layout
    status: str
    bundled: dict[str, str]


def build_image(recipe: Recipe, packages: Sequence[Path], image: Path, cache: Path | None = None) -> Built:
    """Write the disk image of a recipe with these .deb files installed. Raises ConfigError and ToolError."""
    base = make_base(recipe, cache)
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        work = Path(name)
        root = unpack_root(base, work / "root")
        install(root, packages)
        for unit in recipe.enable:
            run_inside(root, "systemctl", "enable", unit)
        status = (root / "var" / "lib" / "dpkg" / "status").read_text("utf-8")
        documents = root.glob("usr/share/doc/flchain-*/sbom.cdx.json")
        bundled = {path.parent.name: path.read_text("utf-8") for path in documents}
        unfinished = work / image.name
        layout = make_disk(recipe, root, unfinished, hashlib.sha256(status.encode()).hexdigest())
        unfinished.rename(image)
    return Built(image, layout, status, bundled)


def install(root: Path, packages: Sequence[Path]) -> None:
    """Install .deb files into a root; what they depend on must be there."""
    if not packages:
        return
    folder = root / "var" / "cache" / "flchain-debs"
    folder.mkdir(parents=True)
    for package in packages:
        (folder / package.name).write_bytes(package.read_bytes())
    run_inside(root, "sh", "-c", "dpkg --install /var/cache/flchain-debs/*.deb")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
