"""What people download: the image packed, its sums, its map of used blocks, its parts, a manifest for the Imager."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.images.disk.recipes import MB, Recipe
from tools.images.programs import require_programs, run_tool

PROGRAMS = ("xz", "bmaptool")


@dataclass(frozen=True)
class Published:
    """The files of one image."""

    image: Path
    packed: Path
    manifest: Path | None


@dataclass(frozen=True)
class Edition:
    """What the manifest says of an image: our version, the day as 2026-11-30, and where the files will be offered from.

    Without an address it names the file on this machine, which the Imager opens as well.
    """

    version: str
    day: str
    address: str = ""


def publish(recipe: Recipe, image: Path, sbom: str, edition: Edition) -> Published:
    """Pack an image and write everything beside it."""
    require_programs(*PROGRAMS)
    packed = image.with_name(f"{image.name}.xz")
    run_tool(("bmaptool", "create", "--output", f"{image}.bmap", str(image)))
    image.with_name(f"{image.name}.cdx.json").write_text(sbom, "utf-8")
    run_tool(("sh", "-c", 'xz --threads=0 -6 --stdout "$0" >"$1"', str(image), f"{packed}.part"))
    shutil.move(f"{packed}.part", packed)
    sums = {path.name: hash_file(path) for path in (image, packed, Path(f"{image}.bmap"))}
    image.with_name(f"{image.name}.sha256").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    manifest = None
    if recipe.imager_tags:
        manifest = image.with_suffix(".rpi-imager-manifest")
        entry = build_entry(
            recipe,
            edition,
            url=f"{edition.address.rstrip('/')}/{packed.name}" if edition.address else packed.resolve().as_uri(),
            image=(image.stat().st_size, sums[image.name]),
            packed=(packed.stat().st_size, sums[packed.name]),
        )
        manifest.write_text(json.dumps({"os_list": [entry]}, indent=2) + "\n", "utf-8")
    return Published(image, packed, manifest)


def build_entry(
    recipe: Recipe,
    edition: Edition,
    *,
    url: str,
    image: tuple[int, str],
    packed: tuple[int, str],
    init_format: str = "none",
) -> dict[str, Any]:
    """Return what Raspberry Pi Imager 2 reads of an image; `image` and `packed` are bytes and sha256.

    `init_format` "none": our images take flchain.toml from the boot partition, not the Imager's own settings.
    """
    return {
        "name": f"FLchain {edition.version} for {recipe.name}",
        "description": f"Debian {recipe.release} with the FLchain agent. {recipe.tried}",
        "icon": "",
        "url": url,
        "release_date": edition.day,
        "extract_size": image[0],
        "extract_sha256": image[1],
        "image_download_size": packed[0],
        "image_download_sha256": packed[1],
        "devices": list(recipe.imager_tags),
        "architecture": "armv8",
        "init_format": init_format,
    }


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(MB):
            digest.update(block)
    return digest.hexdigest()
