"""`flchain image`: build, check and apply what boards start from."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain_edge.process.command_line import EXIT_FAULT, CommandParser, add_command
from tools.images.disk.apply import apply_overlay
from tools.images.disk.assemble import build_image
from tools.images.disk.check import list_faults
from tools.images.disk.overlay import build_overlay
from tools.images.disk.publish import Edition, publish
from tools.images.disk.recipes import MB, list_boards, read_recipe
from tools.images.disk.sbom import build_sbom
from tools.images.suites import SUITES

OUT = Path("build") / "images"
PACKAGES = Path("build") / "debs"


def main(argv: Sequence[str]) -> int:
    """Run `flchain image`."""
    arguments = _build_parser().parse_args(argv)
    return COMMANDS[arguments.command](arguments)


def _build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="flchain image",
        description="Build, check and apply what boards start from. docs/flash.md shows the whole way.",
        epilog="examples:\n"
        "  flchain image list\n"
        "  flchain image build rpi4\n"
        "  flchain image check build/images/flchain-rpi4.img.xz\n"
        "  flchain image overlay rpi5\n"
        "  flchain image apply flchain-overlay-rpi5.tar.gz raspios.img",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_command(commands, "list", "show the boards that have a recipe, and how far each was tried")
    build = add_command(commands, "build", "build the image of a board's card, as root")
    build.add_argument("board", metavar="BOARD", help="see: flchain image list")
    build.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"of the results (default: {OUT})")
    build.add_argument("--release", metavar="NAME", help="of Debian (default: the recipe's)")
    text = f"the agent's package (default: the newest in {PACKAGES})"
    build.add_argument("--package", type=Path, action="append", metavar="DEB", help=text)
    text = "from where the files will be offered, for Raspberry Pi Imager"
    build.add_argument("--address", default="", metavar="URL", help=text)
    build.add_argument("--unpacked", action="store_true", help="write the .img only, to try it on this machine")
    check = add_command(commands, "check", "compare an image with the sums beside it")
    check.add_argument("image", type=Path, nargs="+", metavar="FILE", help="the .img or .img.xz")
    overlay = add_command(commands, "overlay", "pack what makes a maker's own system an FLchain board")
    overlay.add_argument("board", metavar="BOARD", help="see: flchain image list")
    overlay.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"of the result (default: {OUT})")
    text = f"of the agent's packages (default: {PACKAGES})"
    overlay.add_argument("--packages", type=Path, default=PACKAGES, metavar="DIR", help=text)
    apply = add_command(commands, "apply", "put an overlay into a maker's image file, which it changes")
    apply.add_argument("archive", type=Path, metavar="ARCHIVE", help="from: flchain image overlay")
    apply.add_argument("image", type=Path, metavar="IMAGE", help="the maker's .img, unpacked")
    text = "a flchain.toml for its boot partition"
    apply.add_argument("--provision", type=Path, metavar="FILE", help=text)
    return parser


def _list(_: argparse.Namespace) -> int:
    for board in list_boards():
        recipe = read_recipe(board)
        print(f"{board:<18}{recipe.name}\n{'':<18}{recipe.tried}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    images: list[Path] = arguments.image
    faults = [fault for image in images for fault in list_faults(image)]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    for image in images if not faults else ():
        print(f"{image}: whole")
    return EXIT_FAULT if faults else 0


def _build(arguments: argparse.Namespace) -> int:
    recipe = read_recipe(arguments.board, arguments.release)
    if recipe.firmware == "maker":
        raise ConfigError((f"{recipe.board}: only its maker has what starts it; flchain image overlay {recipe.board}",))
    if os.geteuid() != 0:
        raise ConfigError(("an image's files belong to many users, which only root can write: run this as root",))
    packages = arguments.package or find_packages(PACKAGES, recipe.release)
    image = arguments.out / f"flchain-{recipe.board}.img"
    began = time.monotonic()
    print(f"building {image} (Debian {recipe.release}; ten to thirty minutes the first time, then two)", flush=True)
    built = build_image(recipe, packages, image)
    print(f"image      {image.stat().st_size / MB:.0f} MB; {recipe.tried}")
    if not arguments.unpacked:
        version = next((path.name.split("_")[1] for path in packages), "0")
        name = f"flchain-{recipe.board}"
        sbom = build_sbom(name, version, recipe.release, built.status, built.bundled)
        day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        published = publish(recipe, image, sbom, Edition(version, day, arguments.address))
        print(f"packed     {published.packed} ({published.packed.stat().st_size / MB:.0f} MB)")
    print(f"took       {time.monotonic() - began:.0f} s")
    return 0


def _overlay(arguments: argparse.Namespace) -> int:
    recipe = read_recipe(arguments.board)
    if not recipe.overlay_releases:
        raise ConfigError((f"{recipe.board}: no maker's image is known for it",))
    packages: dict[str, Path] = {}
    problems: list[str] = []
    for release in recipe.overlay_releases:
        try:
            packages[release] = find_packages(arguments.packages, release)[-1]
        except ConfigError as error:
            problems += error.problems
    if not packages:
        raise ConfigError(tuple(problems))
    archive = arguments.out / f"flchain-overlay-{recipe.board}.tar.gz"
    build_overlay(recipe, packages, archive, max(int(path.stat().st_mtime) for path in packages.values()))
    print(f"{archive} ({archive.stat().st_size / MB:.0f} MB): for {', '.join(packages)}; {recipe.tried}")
    print(f"on the running board: tar -xf {archive.name} && sudo sh flchain-overlay/install.sh")
    return 0


def _apply(arguments: argparse.Namespace) -> int:
    applied = apply_overlay(arguments.archive, arguments.image, arguments.provision)
    print(
        f"{arguments.image}: {applied.release}, root is partition {applied.root.number}; it installs at its first boot"
    )
    if arguments.provision is not None and applied.boot is not None:
        print(f"flchain.toml is on partition {applied.boot.number}")
    return 0


def find_packages(folder: Path, release: str, architecture: str = "arm64") -> list[Path]:
    """Return the newest agent package in `folder` for a release. Raises ConfigError if there is none."""
    pattern = f"flchain-agent_*+{SUITES[release].mark}_{architecture}.deb"
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError((f"{folder}: no {pattern}; run: make debs, or name one with --package",))
    return found[-1:]


COMMANDS = {"list": _list, "build": _build, "check": _check, "overlay": _overlay, "apply": _apply}
