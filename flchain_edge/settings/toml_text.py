"""Write TOML, which the standard library only reads: what `tomllib` gives, back into a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def render_toml(tables: Mapping[str, Any]) -> str:
    """Return the text whose reading gives `tables`: texts, numbers, truth values, lists and tables of these.

    >>> print(render_toml({"name": "a", "key": {"file": "key.pem"}, "sensors": [{"name": "imu"}]}), end="")
    name = "a"
    <BLANKLINE>
    [key]
    file = "key.pem"
    <BLANKLINE>
    [[sensors]]
    name = "imu"
    """
    return "\n".join(_render_table(tables, ())).strip() + "\n"


def _render_table(table: Mapping[str, Any], section: tuple[str, ...]) -> Iterator[str]:
    later = [(key, value) for key, value in table.items() if isinstance(value, Mapping) or _is_tables(value)]
    names = {key for key, _ in later}
    yield from (f"{_render_key(key)} = {_render_value(value)}" for key, value in table.items() if key not in names)
    for key, value in later:
        path = (*section, key)
        head = ".".join(map(_render_key, path))
        if isinstance(value, Mapping):
            yield from ("", f"[{head}]", *_render_table(value, path))
        else:
            for item in value:
                yield from ("", f"[[{head}]]", *_render_table(item, path))


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _render_key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if is_bare else _render_value(key)


def _render_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_render_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_render_key(key)} = {_render_value(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str):
        raise ValueError(f"{value!r} has no place in a configuration file")
    # JSON's escapes are TOML's, but for the one character that JSON leaves as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
