"""MQTT discovery as Home Assistant defines it: one retained message a sensor, with the topic and form of its values.

Topics are PREFIX/sensor/[NODE/]OBJECT/config. Only templates that name a place in the JSON are followed: all others
would need Jinja, and would run strangers' code on the device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agent.sensing.json_values import parse_path
from agent.sensing.samples import UNIT_CHARACTERS_MAX, InvalidReading, clean_name

PREFIX = "homeassistant"
TOPIC_CHARACTERS_MAX = 256
_ABBREVIATIONS = {
    "stat_t": "state_topic",
    "val_tpl": "value_template",
    "unit_of_meas": "unit_of_measurement",
    "dev_cla": "device_class",
}
_TEMPLATE = re.compile(
    r"\{\{\s*(value_json|value)((?:\.\w+|\[\d+\]|\[(?:'[^'\]]+'|\"[^\"\]]+\")\])*)\s*(?:\|[^}|]*)*\}\}"
)
_BRACKETED = re.compile(r"\[(?:'([^'\]]+)'|\"([^\"\]]+)\")\]")


@dataclass(frozen=True, slots=True)
class Entity:
    """One discovered sensor. path None: the payload itself is the value."""

    channel: str
    state_topic: str
    path: tuple[str | int, ...] | None
    unit: str
    device_class: str


def get_discovery_filters(prefix: str) -> tuple[str, str]:
    """Return the filters to subscribe to: with and without a node id."""
    return f"{prefix}/sensor/+/config", f"{prefix}/sensor/+/+/config"


def get_channel(topic: str, prefix: str) -> str | None:
    """Return the channel that a discovery topic names, or None for any other topic."""
    match = re.fullmatch(re.escape(prefix) + r"/sensor/(?:([^/]+)/)?([^/]+)/config", topic)
    if match is None:
        return None
    return clean_name("_".join(part for part in match.groups() if part))


def parse_template(text: str) -> tuple[str | int, ...] | None:
    """Return the path of "{{ value_json.a.b | round(1) }}"; None for "{{ value }}" and "". Filters are ignored.

    Raises InvalidReading for any other template.
    """
    if not text.strip():
        return None
    match = _TEMPLATE.fullmatch(text.strip())
    if match is None or (match[1] == "value" and match[2]):
        raise InvalidReading(f"value_template {text[:60]!r}: only {{{{ value_json.x }}}} is followed")
    if match[1] == "value":
        return None
    try:
        return parse_path(_BRACKETED.sub(lambda found: f".{found[1] or found[2]}", match[2]).removeprefix("."))
    except ValueError as error:
        raise InvalidReading(str(error)) from error


def parse_config(channel: str, document: Any) -> Entity:
    """Return the sensor that a configuration describes. Raises InvalidReading for one that cannot be followed."""
    if not isinstance(document, dict):
        raise InvalidReading("a discovery message is a JSON object")
    fields = {_ABBREVIATIONS.get(str(key), str(key)): value for key, value in document.items()}
    base, topic, template = (_get_text(fields, key) for key in ("~", "state_topic", "value_template"))
    unit, device_class = _get_text(fields, "unit_of_measurement"), _get_text(fields, "device_class")
    if topic.startswith("~"):
        topic = base + topic[1:]
    elif topic.endswith("~"):
        topic = topic[:-1] + base
    if not topic or len(topic) > TOPIC_CHARACTERS_MAX or any(mark in topic for mark in "+#\0"):
        raise InvalidReading(f"state_topic {topic[:60]!r}: not a topic")
    return Entity(channel, topic, parse_template(template), unit[:UNIT_CHARACTERS_MAX], device_class)


def _get_text(fields: dict[str, Any], key: str) -> str:
    """Return the text of a key; "" if it is absent or null."""
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidReading(f"{key} must be a text")
    return value or ""
