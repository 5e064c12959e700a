"""MAVLink messages of a UAV as channels in SI units: fields, factors, and the values that mean "unknown"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GRAVITY_M_S2 = 9.80665
UINT16_MAX, INT16_MAX = 0xFFFF, 0x7FFF


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its channel, SI unit, the factor to it, and the value that means "unknown" (if any)."""

    channel: str
    unit: str
    factor: float = 1.0
    unknown: int | None = None


def _axes(stem: str, names: str, unit: str, factor: float = 1.0) -> dict[str, Field]:
    return {f"{axis}{stem}": Field(f"{names}_{axis}", unit, factor) for axis in "xyz"}


FIELDS: dict[str, dict[str, Field]] = {
    "ATTITUDE": {
        "roll": Field("roll", "rad"),
        "pitch": Field("pitch", "rad"),
        "yaw": Field("yaw", "rad"),
        "rollspeed": Field("roll_rate", "rad/s"),
        "pitchspeed": Field("pitch_rate", "rad/s"),
        "yawspeed": Field("yaw_rate", "rad/s"),
    },
    "SCALED_IMU": {
        **_axes("acc", "acc", "m/s2", GRAVITY_M_S2 / 1000),
        **_axes("gyro", "gyro", "rad/s", 1e-3),
        **_axes("mag", "mag", "uT", 0.1),
    },
    "HIGHRES_IMU": {
        **_axes("acc", "acc", "m/s2"),
        **_axes("gyro", "gyro", "rad/s"),
        **_axes("mag", "mag", "uT", 100.0),
        "abs_pressure": Field("pressure", "Pa", 100.0),
        "temperature": Field("temperature", "degC"),
    },
    "GLOBAL_POSITION_INT": {
        "lat": Field("lat", "deg", 1e-7),
        "lon": Field("lon", "deg", 1e-7),
        "alt": Field("alt", "m", 1e-3),
        "relative_alt": Field("height", "m", 1e-3),
        "vx": Field("v_north", "m/s", 1e-2),
        "vy": Field("v_east", "m/s", 1e-2),
        "vz": Field("v_down", "m/s", 1e-2),
        "hdg": Field("heading", "deg", 1e-2, UINT16_MAX),
    },
    "BATTERY_STATUS": {
        "current_battery": Field("battery_current", "A", 1e-2, -1),
        "current_consumed": Field("battery_used", "mAh", 1.0, -1),
        "battery_remaining": Field("battery_left", "%", 1.0, -1),
        "temperature": Field("battery_temperature", "degC", 1e-2, INT16_MAX),
    },
    "SYS_STATUS": {
        "load": Field("cpu_load", "%", 0.1),
        "voltage_battery": Field("battery_voltage", "V", 1e-3, UINT16_MAX),
        "drop_rate_comm": Field("link_loss", "%", 1e-2),
    },
}
"""The MAVLink common message set, from its XML definitions. HIGHRES_IMU and SCALED_IMU share their channels: an
autopilot sends one of the two."""


def read_fields(kind: str, get: Callable[[str], Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Return values and units of a message whose fields `get` returns; both empty for a kind that FIELDS lacks."""
    values, units = {}, {}
    for name, field in FIELDS.get(kind, {}).items():
        raw = get(name)
        if not isinstance(raw, int | float) or raw == field.unknown or not math.isfinite(raw):
            continue
        values[field.channel] = raw * field.factor
        units[field.channel] = field.unit
    return values, units
