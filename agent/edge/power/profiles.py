"""Board profiles: data files that say what a board draws where no sensor measures it."""

from __future__ import annotations

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
    Path(__file__).resolve().parents[3] / "firmware_config" / "boards",
)
"""Folders of the operator, the image, a checkout: of profiles with one name, or for one board, the first counts."""
PROFILES_MAX = 200
KEYS = {"name": str, "models": list, "machine": str, "idle_w": float, "core_w": float, "cores": int, "source": str}


@dataclass(frozen=True)
class ProfileFile:
    """A profile, and how `auto` recognises its board: by the start of the device tree's model, or by the machine."""

    profile: BoardProfile
    models: tuple[str, ...]
    machine: str


def choose_profile(settings: PowerSettings, files: SensorFiles, machine: str) -> BoardProfile | None:
    """Return the named profile, or this board's, or None. `machine` is as in `uname -m`. Raises ConfigError."""
    folders = [settings.boards_dir] if settings.boards_dir else [folder for folder in INSTALLED_DIRS if folder.is_dir()]
    known: dict[str, ProfileFile] = {}
    for folder in folders:
        known = known | {name: file for name, file in load_profiles(folder).items() if name not in known}
    if settings.board != AUTO:
        if settings.board not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError((f"power.board: there is no profile {settings.board!r}; there are: {names}",))
        return known[settings.board].profile
    model = files.read_text(files.sysfs / "firmware/devicetree/base/model", is_optional=True)
    candidates = known.values()
    if model is None:  # a board without a device tree is recognised by its processor alone
        return next((file.profile for file in candidates if file.machine == machine and not file.models), None)
    found = [(len(start), file.profile) for file in candidates for start in file.models if model.startswith(start)]
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


KIND_WORDS: dict[type, str] = {str: "a text", list: "a list", int: "a whole number", float: "a number"}


def _find_problems(table: dict[str, Any]) -> list[str]:
    problems = [f"unknown key {key!r}" for key in table if key not in KEYS]
    for key, kind in KEYS.items():
        value: Any = table.get(key)
        is_number = kind in (int, float) and isinstance(value, int if kind is int else int | float)
        if value is None:
            if key not in ("models", "machine"):
                problems.append(f"{key} is missing")
        elif isinstance(value, bool) or not (is_number or (kind in (str, list) and isinstance(value, kind))):
            problems.append(f"{key} must be {KIND_WORDS[kind]}")
        elif is_number and not 0 < value < 1_000:
            problems.append(f"{key} is not between 0 and 1000")
    if "models" not in table and "machine" not in table:
        problems.append("neither models nor machine say which board this is")
    return problems


def _build(name: str, table: dict[str, Any]) -> ProfileFile:
    profile = BoardProfile(
        name, float(table["idle_w"]), float(table["core_w"]), int(table["cores"]), str(table["source"])
    )
    return ProfileFile(profile, tuple(map(str, table.get("models", ()))), str(table.get("machine", "")))
