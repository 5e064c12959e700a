"""`flchain-agent board`, and what `doctor` and `check` say of the board: its profile, and whether the model fits it."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from agent.edge.cpu.control import count_cores
from agent.edge.power.files import BoardRoots, SensorFiles, read_board_roots
from agent.edge.power.profiles import KnownBoard, ProfileFile, choose_board
from agent.edge.power.settings import PowerSettings
from agent.scheduling.memory import (
    SYSTEM_BYTES,
    compute_memory_need,
    compute_parameters_max,
    compute_worker_need,
)
from agent.settings import AgentSettings
from flchain.base.errors import ConfigError
from flchain_edge.checks.checkup import Finding, ok, warn
from flchain_edge.formatting import format_bytes
from flchain_edge.process.chain_files import load_genesis
from flchain_edge.process.command import NodeAction

MEGABYTE = 1_000_000
CONTROLLERS = "fs/cgroup/cgroup.controllers"
"""Below sysfs: what control groups of version 2 can limit here."""


@dataclass(frozen=True)
class BoardView:
    """What `flchain-agent board` shows: the machine as it is, and its profile."""

    board: KnownBoard
    cores: int
    memory_bytes: int
    parameters_max: int
    """Of the largest model that fits."""


def find_board(settings: PowerSettings, roots: BoardRoots) -> KnownBoard:
    """Return this machine and its profile. Raises ConfigError."""
    return choose_board(settings, SensorFiles(roots), platform.machine())


def read_memory_bytes(roots: BoardRoots) -> int:
    """Return all memory that the kernel manages; 0 if it does not say."""
    for line in (SensorFiles(roots).read_text(roots.proc / "meminfo", is_optional=True) or "").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal" and (words := rest.split()) and words[0].isdecimal():
            return int(words[0]) * 1024
    return 0


def run_board(settings: None, arguments: argparse.Namespace) -> None:
    """Print the board, or one JSON object. Raises ConfigError if a profile is wrong."""
    del settings  # it needs no configuration: the board is looked at before there is one
    roots = read_board_roots()
    memory_bytes = read_memory_bytes(roots)
    board = find_board(PowerSettings(board=arguments.profile), roots)
    view = BoardView(board, count_cores(), memory_bytes, compute_parameters_max(memory_bytes))
    if arguments.json:
        file = view.board.file
        facts = asdict(view) | {"board": view.board.model, "profile": None if file is None else asdict(file)}
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(format_board(view)))


def format_board(view: BoardView) -> list[str]:
    """Return the lines for a person."""
    file = view.board.file
    facts = [
        ("board", view.board.model),
        ("profile", describe_profile(view.board)),
        ("here", f"{view.cores} cores, {format_bytes(view.memory_bytes)} of memory"),
        ("fits", f"models of up to {view.parameters_max:,} parameters"),
        *(_list_facts(file) if file is not None else ()),
    ]
    return [f"{name:<12}{text}" for name, text in facts if text]


def _list_facts(file: ProfileFile) -> list[tuple[str, str]]:
    profile = file.profile
    sold = " or ".join(f"{size / 1024:g} GiB" for size in file.memory_mb)
    return [
        ("sold with", f"{profile.cores} cores" + (f", {sold}" if sold else "")),
        ("power", f"{profile.idle_w:g} W idle, {profile.core_w:g} W more for a busy core ({profile.source})"),
        ("sensors", ", ".join(file.power_sensors) or "none measures power out of the box"),
        ("cgroups", file.cgroup),
        ("watchdog", f"{file.watchdog}, at most {file.watchdog_s} s" if file.watchdog else "none"),
        ("reset", f"a button from GPIO line {file.reset_line} to ground" if file.reset_line else ""),
        ("accelerator", file.accelerator),
    ]


def describe_profile(board: KnownBoard) -> str:
    """Return the profile's name and title, or that there is none."""
    file = board.file
    return f"{file.profile.name} ({file.title})" if file is not None else "none knows this board"


def check_profile(settings: AgentSettings, roots: BoardRoots) -> Iterator[Finding]:
    """Say which profile is in use, and compare its board's quirks with what is here."""
    board = find_board(settings.power, roots)
    if board.file is None:
        yield warn(
            f"no profile knows {board.model}: its power is unmeasured without a meter, and nothing is assumed of it",
            "flchain-agent runs all the same; [power] board, or a profile of your own (docs/boards.md)",
        )
        return
    yield ok(f"profile {describe_profile(board)}")
    controllers = SensorFiles(roots).read_text(roots.sysfs / CONTROLLERS, is_optional=True)
    if controllers is not None and "memory" not in controllers.split() and board.file.cgroup:
        yield warn("control groups cannot limit memory here: the worker limits itself", board.file.cgroup)


def check_model_fits(settings: AgentSettings, roots: BoardRoots) -> Iterator[Finding]:
    """Compare the memory that the task's model needs with this board's and with the worker's limit."""
    parameters = load_genesis(settings.genesis).params.parameters_count
    need, total = compute_memory_need(parameters), read_memory_bytes(roots)
    text = f"a model of {parameters:,} parameters needs about {format_bytes(need)}"
    is_short = total and need + SYSTEM_BYTES > total
    if is_short:
        yield warn(
            f"{text}; of {format_bytes(total)} here the system needs {format_bytes(SYSTEM_BYTES)}",
            f"at most {compute_parameters_max(total):,} parameters fit this board: a smaller model, or a larger board",
        )
    worker_need = compute_worker_need(parameters)
    if worker_need > settings.cpu.memory_max_mb * MEGABYTE:
        yield warn(
            f"{text}, and its worker more than [cpu] memory_max_mb = {settings.cpu.memory_max_mb}",
            f"set [cpu] memory_max_mb = {-(-worker_need // MEGABYTE)} or more, if the board has it",
        )
    elif not is_short:
        yield ok(f"{text}: it fits")


def list_warnings(settings: AgentSettings) -> tuple[str, ...]:
    """Return what `flchain-agent check` warns of, and what to do; a genesis that cannot be read is `check`'s own."""
    try:
        findings = tuple(check_model_fits(settings, read_board_roots()))
    except ConfigError:
        return ()
    return tuple(f"{finding.reason}; {finding.advice}" for finding in findings if finding.advice)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    parser.add_argument(
        "--profile", metavar="NAME", default="auto", help="show this profile; auto (the default): by the board's name"
    )


BOARD_ACTION = NodeAction(
    "board",
    "show which board this is, its profile, and which models fit it; needs no configuration",
    run_board,
    _add_arguments,
    has_config=False,
)
