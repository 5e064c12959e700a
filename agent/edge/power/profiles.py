"""Board profiles: data files that say what a board is, and what it draws where no sensor measures it.

`docs/boards.md` has them as a table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.edge.power.files import SensorFiles
from agent.edge.power.settings import AUTO, PowerSettings
from agent.scheduling.energy import BoardProfile
from flchain.base.errors import ConfigError
from flchain_edge.newer_python import tomllib

INSTALLED_DIRS = (
    Path("/etc/flchain/boards"),
    Path("/usr/share/flchain/boards"),
    Path(sys.prefix) / "share" / "flchain" / "firmware_config" / "boards",
    Path(__file__).resolve().parents[3] / "firmware_config" / "boards",
)
"""Folders of the operator, the image, the environment, a checkout: of profiles with one name, or for one board, the
first counts."""
PROFILES_MAX = 200
NUMBER_MAX = 1_000
MEMORY_MB_MAX = 4_000_000
UNKNOWN_MODEL = "a board that does not say its name"


@dataclass(frozen=True)
class ProfileFile:
    """A profile's file: its board, how `auto` recognises it, and what an operator has to know of it.

    A profile that an operator writes for its two powers alone leaves the rest empty.
    """

    profile: BoardProfile
    title: str
    models: tuple[str, ...] = ()
    """`auto` chooses by the longest of these that the device tree's model starts with..."""
    machine: str = ""
    """...and where there is no device tree by the machine, as in `uname -m`."""
    memory_mb: tuple[int, ...] = ()
    """The sizes that are sold, in MiB."""
    power_sensors: tuple[str, ...] = ()
    """What measures its power out of the box: the chip's name and rail."""
    cgroup: str = ""
    """What its usual systems do differently about control groups, and what to do about it."""
    watchdog: str = ""
    """The hardware watchdog's device; empty: it has none."""
    watchdog_s: int = 0
    """The longest time that the watchdog can be set to, in seconds."""
    reset_line: str = ""
    """The GPIO line, by its name, that a button for the factory reset connects to ground."""
    accelerator: str = ""
    """What a delegate for its accelerator would need. None is used."""


@dataclass(frozen=True)
class KnownBoard:
    """This machine: what it calls itself, and the profile that was chosen for it, if there is one."""

    model: str
    file: ProfileFile | None


def choose_board(settings: PowerSettings, files: SensorFiles, machine: str) -> KnownBoard:
    """Return this board with the named profile, or its own, or none. `machine` is as in `uname -m`.

    Raises ConfigError.
    """
    folders = [settings.boards_dir] if settings.boards_dir else [folder for folder in INSTALLED_DIRS if folder.is_dir()]
    known: dict[str, ProfileFile] = {}
    for folder in folders:
        known = known | {name: file for name, file in load_profiles(folder).items() if name not in known}
    model = files.read_text(files.sysfs / "firmware/devicetree/base/model", is_optional=True)
    if settings.board == AUTO:
        return KnownBoard(model or machine or UNKNOWN_MODEL, _find_file(tuple(known.values()), model, machine))
    if settings.board not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError((f"power.board: there is no profile {settings.board!r}; there are: {names}",))
    return KnownBoard(model or machine or UNKNOWN_MODEL, known[settings.board])


def choose_profile(settings: PowerSettings, files: SensorFiles, machine: str) -> BoardProfile | None:
    """Return what the chosen board draws; None without a profile. Raises ConfigError."""
    file = choose_board(settings, files, machine).file
    return None if file is None else file.profile


def _find_file(candidates: tuple[ProfileFile, ...], model: str | None, machine: str) -> ProfileFile | None:
    if model is None:  # a board without a device tree is recognised by its processor alone
        return next((file for file in candidates if file.machine == machine and not file.models), None)
    found = [(len(start), file) for file in candidates for start in file.models if model.startswith(start)]
    return max(found, key=lambda item: item[0])[1] if found else None  # a Model B Plus is not a Model B


def load_profiles(folder: Path) -> dict[str, ProfileFile]:
    """Return all `*.toml` of a folder by name. Raises ConfigError with all their problems."""
    problems: list[str] = []
    known: dict[str, ProfileFile] = {}
    if not folder.is_dir():
        raise ConfigError((f"power.boards_dir {folder}: no such folder",))
    for path in sorted(folder.glob("*.toml"))[:PROFILES_MAX]:
        try:
            table = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            problems.append(f"{path}: {error}")
            continue
        wrong = _find_problems(table)
        problems += [f"{path}: {problem}" for problem in wrong]
        if not wrong:
            known[path.stem] = _build(path.stem, table)
    if problems:
        raise ConfigError(tuple(problems))
    return known


def _check_text(value: Any) -> str:
    return "" if isinstance(value, str) else "must be a text"


def _check_texts(value: Any) -> str:
    is_list = isinstance(value, list) and all(isinstance(each, str) and each for each in value)
    return "" if is_list else "must be a list of texts"


def _check_number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "must be a number"
    return "" if 0 < value < NUMBER_MAX else f"is not between 0 and {NUMBER_MAX}"


def _check_count(value: Any) -> str:
    return "must be a whole number" if isinstance(value, (bool, float)) else _check_number(value)


def _check_sizes(value: Any) -> str:
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        return "must be a list of whole numbers"
    return "" if all(0 < each < MEMORY_MB_MAX for each in value) else f"is not between 0 and {MEMORY_MB_MAX}"


NEEDED: dict[str, Callable[[Any], str]] = {
    "name": _check_text,
    "idle_w": _check_number,
    "core_w": _check_number,
    "cores": _check_count,
    "source": _check_text,
}
POSSIBLE: dict[str, Callable[[Any], str]] = {
    "models": _check_texts,
    "machine": _check_text,
    "memory_mb": _check_sizes,
    "power_sensors": _check_texts,
    "cgroup": _check_text,
    "watchdog": _check_text,
    "watchdog_s": _check_count,
    "reset_line": _check_text,
    "accelerator": _check_text,
}


def _find_problems(table: dict[str, Any]) -> list[str]:
    checks = NEEDED | POSSIBLE
    problems = [f"unknown key {key!r}" for key in table if key not in checks]
    problems += [f"{key} is missing" for key in NEEDED if key not in table]
    problems += [f"{key} {fault}" for key, check in checks.items() if key in table and (fault := check(table[key]))]
    if "models" not in table and "machine" not in table:
        problems.append("neither models nor machine say which board this is")
    if ("watchdog" in table) != ("watchdog_s" in table):
        problems.append("watchdog and watchdog_s belong together")
    return problems


def _build(name: str, table: dict[str, Any]) -> ProfileFile:
    profile = BoardProfile(
        name, float(table["idle_w"]), float(table["core_w"]), int(table["cores"]), str(table["source"])
    )
    rest: dict[str, Any] = {
        key: tuple(table[key]) if isinstance(table[key], list) else table[key] for key in POSSIBLE if key in table
    }
    return ProfileFile(profile, str(table["name"]), **rest)
