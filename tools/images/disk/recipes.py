"""Recipes of images: `firmware_config/images/common.toml`, to which the file of a board adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain_edge.settings.config import load_config, parse_tables

FIRMWARE_CONFIG = Path(__file__).parents[3] / "firmware_config"
RECIPES = FIRMWARE_CONFIG / "images"
FILES = RECIPES / "files"
BOARDS = FIRMWARE_CONFIG / "boards"
FIRMWARES = ("extlinux", "raspi", "maker")
"""What starts the kernel: U-Boot, the Raspberry Pi's own firmware, or something that only the maker's image has."""
MB = 1024 * 1024


@dataclass(frozen=True)
class Sizes:
    """Megabytes (2^20 bytes) of the boot and the data partition, and what the root has beside its content."""

    boot_mb: int = field(default=256, metadata={"min": 136, "max": 2048})
    root_spare_mb: int = field(default=320, metadata={"min": 16, "max": 65536})
    data_mb: int = field(default=64, metadata={"min": 16, "max": 65536})


@dataclass(frozen=True)
class Common:
    """What every image shares."""

    release: str = "trixie"
    packages: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    sizes: Sizes = Sizes()


@dataclass(frozen=True)
class Board:
    """What the image of one board adds."""

    name: str = field(metadata={"min": 1, "help": "for people"})
    firmware: str = field(metadata={"choices": FIRMWARES, "help": "what starts the kernel"})
    tried: str = field(metadata={"min": 1, "help": "how far this image was tried: said wherever it is offered"})
    cmdline: str = field(default="", metadata={"help": "of the kernel: consoles"})
    profile: str = field(default="", metadata={"help": "a file of firmware_config/boards; it names the models"})
    models: tuple[str, ...] = field(default=(), metadata={"help": "instead of a profile's"})
    components: tuple[str, ...] = field(default=(), metadata={"help": "of the archive, beside main"})
    packages: tuple[str, ...] = ()
    backports: tuple[str, ...] = field(default=(), metadata={"help": "packages that come from the backports"})
    ramdisk_modules: tuple[str, ...] = field(default=(), metadata={"help": "instead of most: what finds the root"})
    overlay_releases: tuple[str, ...] = field(default=(), metadata={"help": "of the maker's own images"})
    imager_tags: tuple[str, ...] = field(default=(), metadata={"help": "Raspberry Pi Imager's names of the boards"})


@dataclass(frozen=True)
class Recipe:
    """Everything that makes the image of a board; `board` is the recipe's own short name."""

    board: str
    name: str
    firmware: str
    tried: str
    cmdline: str
    models: tuple[str, ...]
    release: str
    components: tuple[str, ...]
    packages: tuple[str, ...]
    backports: tuple[str, ...]
    ramdisk_modules: tuple[str, ...]
    overlay_releases: tuple[str, ...]
    imager_tags: tuple[str, ...]
    enable: tuple[str, ...]
    disable: tuple[str, ...]
    sizes: Sizes


def list_boards(folder: Path = RECIPES) -> tuple[str, ...]:
    """Return the short names of the boards that have a recipe."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml") if path.stem != "common"))


def read_recipe(board: str, release: str | None = None, folder: Path = RECIPES) -> Recipe:
    """Return the recipe of a board, of another Debian release if one is named. Raises ConfigError."""
    if board not in (boards := list_boards(folder)):
        raise ConfigError((f"board {board!r}: there is no recipe; known are {', '.join(boards)}",))
    common = load_config(folder / "common.toml", Common, {})
    own = load_config(folder / f"{board}.toml", Board, {})
    models = own.models or read_models(own.profile)
    if not models:
        raise ConfigError((f"{folder / board}.toml: models, or a profile that has some, must be named",))
    return Recipe(
        board=board,
        name=own.name,
        firmware=own.firmware,
        tried=own.tried,
        cmdline=own.cmdline,
        models=models,
        release=release or common.release,
        components=("main", *own.components),
        packages=tuple(sorted({*common.packages, *own.packages})),
        backports=own.backports,
        ramdisk_modules=own.ramdisk_modules,
        overlay_releases=own.overlay_releases,
        imager_tags=own.imager_tags,
        enable=common.enable,
        disable=common.disable,
        sizes=common.sizes,
    )


def read_models(profile: str) -> tuple[str, ...]:
    """Return what the device tree calls the boards of a power profile, as beginnings; nothing if none is named."""
    if not profile:
        return ()
    path = BOARDS / f"{profile}.toml"
    try:
        tables = parse_tables(path.read_bytes(), path.name)
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    return tuple(map(str, tables.get("models", ())))
