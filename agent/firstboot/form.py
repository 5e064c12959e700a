"""Read flchain.toml. Its own sections are in `agent.provisioning.settings`, all others are those of agent.toml.

This stands in an edge because it is read by the reader of all configuration files (`flchain_edge.settings`) with the
dataclasses of agent.toml: a key has one rule, whichever of the two files it is in. It opens no file but looks whether
those that are named exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.edge.cpu.settings import CpuSettings
from agent.edge.data.settings import DatasetSettings, SampleSettings, find_dataset_problems
from agent.edge.power.settings import PowerSettings
from agent.edge.sensors import SensorSettings
from agent.edge.sensors.replay import check_replay
from agent.provisioning.settings import (
    NAME_FORM,
    NAME_PATTERN,
    TIMEZONE_PATTERN,
    ButtonSettings,
    NetworkSettings,
    RegistrarSettings,
    TaskSettings,
)
from agent.provisioning.tokens import is_spent
from agent.scheduling.settings import SchedulerSettings
from agent.settings import AgentSettings, MiningSettings
from flchain.base.errors import ConfigError
from flchain.wire.fleet import LABEL_FORM, LABEL_PATTERN, LABELS_MAX
from flchain_edge.enrolment.messages import parse_token
from flchain_edge.settings.config import build_config, parse_tables
from flchain_edge.settings.node import KeySettings

AGENT_KEYS = ("examples", "cpu", "dataset", "mining", "power", "samples", "scheduler", "sensors")
"""What agent.toml has too, word for word."""
BOARD_KEYS = ("name", "labels")
"""What agent.toml has in its section [board]."""
SSH_KEYS_MAX = 8
SSH_KEY_PATTERN = "(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]{40,1024}(?: [ -~]{0,128})?"
DATA_SUFFIXES = (".csv", ".npz", ".parquet", ".txt")
"""Of files that are copied onto the board: none of them can take the place of a key or of a configuration."""


@dataclass(frozen=True)
class Form:
    """All that flchain.toml may say."""

    name: str = field(
        default="", metadata={"pattern": NAME_PATTERN, "form": NAME_FORM, "help": "host name, and name in the fleet"}
    )
    labels: tuple[str, ...] = field(
        default=(),
        metadata={
            "max": LABELS_MAX,
            "pattern": LABEL_PATTERN,
            "form": LABEL_FORM,
            "help": "groups in the fleet, such as site=north",
        },
    )
    timezone: str = field(
        default="",
        metadata={"pattern": TIMEZONE_PATTERN, "form": "as in Europe/Berlin", "help": "time zone of the board"},
    )
    ssh_keys: tuple[str, ...] = field(
        default=(),
        metadata={
            "max": SSH_KEYS_MAX,
            "pattern": SSH_KEY_PATTERN,
            "form": "a line of authorized_keys",
            "help": "keys that may log in",
        },
    )
    ssh_user: str = field(
        default="",
        metadata={"pattern": "|[a-z_][a-z0-9_-]{0,31}", "form": "a user of the board", "help": "whom they log in as"},
    )
    examples: Path | None = field(default=None, metadata={"help": "this board's data, arrays x and y"})
    network: NetworkSettings = field(default_factory=NetworkSettings)
    registrar: RegistrarSettings = field(default_factory=RegistrarSettings)
    tasks: TaskSettings = field(default_factory=TaskSettings)
    button: ButtonSettings | None = field(default=None)
    cpu: CpuSettings = field(default_factory=CpuSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    power: PowerSettings = field(default_factory=PowerSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)
    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    sensors: tuple[SensorSettings, ...] = field(default=())

    @property
    def token(self) -> str:
        """The registrar's token; empty if there is none, or if it has been destroyed."""
        return "" if is_spent(self.registrar.token) else self.registrar.token.strip()


@dataclass(frozen=True)
class Provisioning:
    """A provisioning file without a problem."""

    form: Form
    agent_tables: Mapping[str, Any]
    """What goes into agent.toml, as `tomllib` gives it."""
    files: tuple[str, ...]
    """Names of the files beside it that belong to the agent's data."""


def read_form(raw: bytes, file: str, folder: Path) -> Provisioning:
    """Read the bytes of a provisioning file in `folder`. Raise ConfigError: all problems, each with file and key."""
    tables = parse_tables(raw, file)
    problems = [f"{file}: {problem}" for problem in _find_token_problems(tables)]
    try:
        form = build_config(tables, file, folder, Form, environ={})
    except ConfigError as error:
        raise ConfigError((*error.problems, *problems)) from error
    problems += [f"{file}: {problem}" for problem in (*_find_problems(form), *_find_file_problems(form, folder))]
    if problems:
        raise ConfigError(tuple(problems))
    agent_tables = {key: tables[key] for key in AGENT_KEYS if key in tables}
    agent_tables |= tables.get("tasks", {})
    if board := {key: tables[key] for key in BOARD_KEYS if key in tables}:
        agent_tables["board"] = board
    return Provisioning(form, agent_tables, tuple(path.name for path in _list_files(form) if path.parent == folder))


def _find_token_problems(tables: Mapping[str, Any]) -> Iterator[str]:
    section = tables.get("registrar")
    token = section.get("token") if isinstance(section, dict) else None
    if not isinstance(token, str) or is_spent(token):
        return
    try:
        parse_token(token)
    except ConfigError as error:
        yield from (f"[registrar] {problem}" for problem in error.problems)


def _build_agent_settings(form: Form) -> AgentSettings:
    """Return what agent.toml will say, but for the chain's files. Raise ValueError: keys that contradict each other."""
    return AgentSettings(
        genesis=Path(),
        model=Path(),
        examples=Path(),
        data_dir=Path(),
        key=KeySettings(Path()),
        follow=form.tasks.follow,
        mining=form.mining,
    )


def _find_problems(form: Form) -> list[str]:
    try:
        return find_dataset_problems(form.dataset, _build_agent_settings(form).holdout_percent)
    except ValueError as error:
        return [f"[tasks] {error}"]


def _find_file_problems(form: Form, folder: Path) -> list[str]:
    problems = []
    for path in _list_files(form):
        if folder in path.parents and (path.parent != folder or path.suffix.lower() not in DATA_SUFFIXES):
            problems.append(f"file {path.name}: give the name of a file beside this one: *{', *'.join(DATA_SUFFIXES)}")
    for number, sensor in enumerate(form.sensors, start=1):
        if sensor.replay is not None:
            found = check_replay(sensor.replay)
            problems += [f"[sensors #{number} {sensor.name}] replay: {problem}" for problem in found]
    if form.examples is not None and not form.examples.is_file():
        problems.append(f"examples: {form.examples}: No such file or directory")
    names = [sensor.name for sensor in form.sensors]
    problems += [f"[sensors] name: {name} occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
    return problems


def _list_files(form: Form) -> list[Path]:
    """Return all files that the form names, each once."""
    named = [form.examples, form.dataset.label.file]
    named += [sensor.replay.file for sensor in form.sensors if sensor.replay is not None]
    return list(dict.fromkeys(path for path in named if path is not None))
