"""Configuration: read TOML into frozen dataclasses, and report every problem at once, with file and key.

A section of the file is a nested dataclass, a list of tables a `tuple[SomeDataclass, ...]`. Field metadata holds the
rules: `min` and `max` (of a number, or of the length of a text or list), `choices`, `pattern` (whole match) and `form`,
which says the pattern in an operator's words, `help`, `example` (for `render_example`; otherwise the default is shown)
and `secret` (never repeated in a problem). A `__post_init__` may raise ValueError about several keys together.

Environment: FLCHAIN_<SECTION>_<KEY>, in capitals, wins over the file (FLCHAIN_<KEY> at the top level; lists are
separated by commas; lists of tables have none). An empty variable counts as not set.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from flchain.base.errors import ConfigError
from flchain_edge.newer_python import tomllib

CONFIG_BYTES_MAX = 256 * 1024
ENV_PREFIX = "FLCHAIN"

ConfigType = TypeVar("ConfigType")


class _Refused(Exception):
    """A value breaks the rule that the text states ("must be ...")."""


@dataclass
class _Reading:
    """The state of one pass over the file."""

    file: str
    folder: Path
    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def complain(self, section: tuple[str, ...], text: str) -> None:
        where = f"[{'.'.join(section)}] " if section else ""
        self.problems.append(f"{self.file}: {where}{text}")


def load_config(path: Path, config_type: type[ConfigType], environ: Mapping[str, str] | None = None) -> ConfigType:
    """Read `path` into `config_type`. Raise ConfigError with all problems found.

    Relative paths in the file are taken from the file's folder, those of the environment from the working directory.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror or error}",)) from error
    tables = parse_tables(raw, path.name)
    return build_config(tables, path.name, path.resolve().parent, config_type, environ)


def parse_tables(raw: bytes, file: str) -> dict[str, Any]:
    """Return the tables of a TOML file called `file`. Raise ConfigError. Windows' byte order mark is left out."""
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError((f"{file}: larger than {CONFIG_BYTES_MAX} bytes",))
    try:
        tables: dict[str, Any] = tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError((f"{file}: is not UTF-8 text: byte 0x{raw[error.start]:02x} in line {line}",)) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError((f"{file}: is not TOML: {error}",)) from error
    return tables


def build_config(
    tables: dict[str, Any],
    file: str,
    folder: Path,
    config_type: type[ConfigType],
    environ: Mapping[str, str] | None = None,
) -> ConfigType:
    """Return `config_type` of the tables of a file in `folder`. Raise ConfigError with all problems found."""
    reading = _Reading(file, folder, os.environ if environ is None else environ)
    config = _read_table(reading, config_type, tables, ())
    if reading.problems:
        raise ConfigError(tuple(reading.problems))
    assert isinstance(config, config_type), "a table without a problem is read"
    return config


def _read_table(reading: _Reading, kind: Any, table: dict[str, Any], section: tuple[str, ...]) -> object | None:
    """Return the dataclass for one table, or None after complaining."""
    known = [entry.name for entry in fields(kind)]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"
            reading.complain(section, f"{key}: unknown key{hint}")
    hints = typing.get_type_hints(kind)
    before = len(reading.problems)
    values: dict[str, object] = {}
    for entry in fields(kind):
        _read_field(reading, entry, hints[entry.name], table, section, values=values)
    if len(reading.problems) > before:
        return None
    try:
        config: object = kind(**values)
    except ValueError as error:
        reading.complain(section, str(error))
        return None
    return config


def _read_field(
    reading: _Reading,
    entry: Field[Any],
    hint: Any,
    table: dict[str, Any],
    section: tuple[str, ...],
    *,
    values: dict[str, object],
) -> None:
    """Put the field's value into `values`, or nothing where the dataclass's default holds, or complain."""
    kind, _ = _split_optional(hint)
    if is_dataclass(kind):
        # Read also when the section is absent and has a default: the environment may set keys in it.
        given = table.get(entry.name, {})
        if not isinstance(given, dict):
            reading.complain(section, f"{entry.name}: must be a section, is {_show(given)}")
        elif entry.name in table or _has_environment(reading, kind, (*section, entry.name)) or _is_required(entry):
            values[entry.name] = _read_table(reading, kind, given, (*section, entry.name))
        return
    variable = "_".join((ENV_PREFIX, *section, entry.name)).upper()
    text = reading.environ.get(variable, "")
    try:
        if text:
            values[entry.name] = _check(_parse_text(text, kind), kind, entry, Path.cwd())
        elif entry.name in table:
            if _is_list_of_tables(kind):
                values[entry.name] = _read_tables(reading, kind, table[entry.name], (*section, entry.name))
            else:
                values[entry.name] = _check(table[entry.name], kind, entry, reading.folder)
        elif _is_required(entry):
            help_text = entry.metadata.get("help")
            reading.complain(section, f"{entry.name}: is missing" + (f" ({help_text})" if help_text else ""))
    except _Refused as refused:
        # Problems are logged, so what may be a secret is not repeated.
        is_secret = text or entry.metadata.get("secret")
        shown = f"is {_show(table[entry.name])}" if not is_secret else f"set by {variable}" if text else "is not"
        reading.complain(section, f"{entry.name}: {refused}, {shown}")


def _read_tables(reading: _Reading, kind: Any, given: object, section: tuple[str, ...]) -> tuple[object, ...]:
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise _Refused("must be a list of tables")
    item_kind = typing.get_args(kind)[0]
    return tuple(
        _read_table(reading, item_kind, item, (*section[:-1], f"{section[-1]} #{number}"))
        for number, item in enumerate(given, start=1)
    )


def _check(value: Any, kind: Any, entry: Field[Any], folder: Path) -> object:
    """Return the value as `kind`. Raise _Refused with the rule that it breaks."""
    rules = entry.metadata
    if typing.get_origin(kind) is tuple:
        item_kind = typing.get_args(kind)[0]
        if not isinstance(value, list):
            raise _Refused("must be a list")
        items = tuple(_convert(item, item_kind, folder) for item in value)
        if "choices" in rules and any(item not in rules["choices"] for item in items):
            raise _Refused(f"must be of {_list(rules['choices'])}")
        if "pattern" in rules and not all(re.fullmatch(rules["pattern"], str(item)) for item in items):
            raise _Refused(f"each must be {rules['form']}")
        _check_range(len(items), rules, ("entry", "entries"))
        return items
    converted = _convert(value, kind, folder, rules)
    if "choices" in rules and converted not in rules["choices"]:
        raise _Refused(f"must be one of {_list(rules['choices'])}")
    if isinstance(converted, str):
        _check_range(len(converted), rules, ("character", "characters"))
        if "pattern" in rules and not re.fullmatch(rules["pattern"], converted):
            raise _Refused(f"must be {rules['form']}")
    elif isinstance(converted, int | float):
        _check_range(converted, rules)
    return converted


def _convert(value: Any, kind: Any, folder: Path, rules: Mapping[str, Any] = types.MappingProxyType({})) -> object:
    if kind is Path and isinstance(value, str) and value:
        return folder / Path(value).expanduser()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind and not (kind is float and math.isnan(value)):  # nan passes every range
        converted: object = value
        return converted
    raise _Refused(f"must be {_describe_kind(kind, rules)}")


def _check_range(value: float, rules: Mapping[str, Any], unit: tuple[str, str] | None = None) -> None:
    if value < rules.get("min", value) or value > rules.get("max", value):
        raise _Refused(f"must be {_describe_range(rules, unit)}")


def _describe_range(rules: Mapping[str, Any], unit: tuple[str, str] | None = None) -> str:
    """Return the range in words; `unit` is what is counted, one and many of it."""
    low, high = rules.get("min"), rules.get("max")
    if low is not None and high is not None:
        text = f"{_show_number(low)}..{_show_number(high)}"
    else:
        text = f"at least {_show_number(low)}" if low is not None else f"at most {_show_number(high)}"
    return f"{text} {unit[(low if high is None else high) != 1]}" if unit else text


def _show_number(value: Any) -> str:
    """Return the number as people write it, never as 1e-06."""
    return str(value) if isinstance(value, int) or abs(value) >= 1e-4 or not value else f"{value:.12f}".rstrip("0")


def _describe_kind(kind: Any, rules: Mapping[str, Any]) -> str:
    if kind in (int, float) and ("min" in rules or "max" in rules):
        return _describe_range(rules)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return names.get(kind, str(kind))


def _parse_text(text: str, kind: Any) -> object:
    """Return what a TOML file would give for `text`, or the text itself if it is not a number or truth value."""
    if typing.get_origin(kind) is tuple:
        return [_parse_text(part.strip(), typing.get_args(kind)[0]) for part in text.split(",") if part.strip()]
    if kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def _split_optional(hint: Any) -> tuple[Any, bool]:
    """Return the type without its `| None`, and whether it had one. Assert that there is no other union."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        assert len(kinds) == 1, f"a configuration field cannot be {hint}"
        return kinds[0], True
    return hint, False


def _is_required(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _is_list_of_tables(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple and is_dataclass(typing.get_args(kind)[0])


def _has_environment(reading: _Reading, kind: Any, section: tuple[str, ...]) -> bool:
    prefix = "_".join((ENV_PREFIX, *section)).upper()
    return any(reading.environ.get(f"{prefix}_{entry.name.upper()}") for entry in fields(kind)) or any(
        _has_environment(reading, nested, (*section, name))
        for name, hint in typing.get_type_hints(kind).items()
        if is_dataclass(nested := _split_optional(hint)[0])
    )


def _show(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _list(choices: Any) -> str:
    return ", ".join(str(choice) for choice in choices)


def render_example(config_type: type) -> str:
    """Return a commented TOML file with every key: required ones to fill in, others as comments with their default."""
    return "\n".join(_render_table(config_type, ())).strip() + "\n"


def _render_table(kind: Any, section: tuple[str, ...], in_list: bool = False) -> list[str]:
    hints = {name: _split_optional(hint)[0] for name, hint in typing.get_type_hints(kind).items()}
    lines: list[str] = []
    nested: list[str] = []
    for entry in fields(kind):
        entry_kind = hints[entry.name]
        path = (*section, entry.name)
        help_text = entry.metadata.get("help", "")
        is_tables = _is_list_of_tables(entry_kind)
        if is_dataclass(entry_kind) or is_tables:
            head = f"[[{'.'.join(path)}]]" if is_tables else f"[{'.'.join(path)}]"
            body = _render_table(typing.get_args(entry_kind)[0] if is_tables else entry_kind, path, is_tables)
            if is_tables and not _is_required(entry):
                head, body = f"# {head}", [f"# {line}".rstrip() if line and line[0] != "#" else line for line in body]
            nested += ["", *([f"# {help_text}"] if help_text else []), head, *body]
            continue
        lines.append("# " + "; ".join(part for part in (help_text, _render_rules(entry, entry_kind)) if part))
        required = _is_required(entry) or in_list
        default = entry.default if entry.default is not MISSING else None
        if entry.default_factory is not MISSING:
            default = entry.default_factory()
        value = entry.metadata.get("example", default)
        lines.append(
            f"{'' if required and value is not None else '# '}{entry.name} = {_render_value(value, entry_kind)}"
        )
    return lines + nested


def _render_rules(entry: Field[Any], kind: Any) -> str:
    rules = entry.metadata
    is_list = typing.get_origin(kind) is tuple
    parts = [rules["form"] if "pattern" in rules else _describe_kind(kind, {})]
    if is_list:
        parts = [f"a list, each {rules['form']}" if "pattern" in rules else "a list"]
    if "choices" in rules:
        parts = [f"{'any' if is_list else 'one'} of {_list(rules['choices'])}"]
    elif "min" in rules or "max" in rules:
        units = {str: ("character", "characters"), int: None, float: None}
        parts.append(_describe_range(rules, units.get(kind, ("entry", "entries"))))
    return ", ".join(parts + (["required"] if _is_required(entry) else []))


def _render_value(value: object, kind: Any) -> str:
    if value is None:
        return {int: "0", float: "0.0", bool: "false"}.get(kind, '""')
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_render_value(item, None) for item in value) + "]"
    if isinstance(value, int | float):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
