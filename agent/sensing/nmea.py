"""NMEA 0183: the sentences GGA, RMC and VTG of satellite receivers, from any talker (GP, GN, GL, GA, ...).

Field order as receivers' manuals give it, for example u-blox M8 Receiver Description, section 31. Positions become
decimal degrees (south and west negative), speeds m/s, courses degrees from true north.
"""

from __future__ import annotations

import math
import re

from agent.sensing.samples import InvalidReading

KNOT_M_S = 1852 / 3600
UNITS = {
    "lat": "deg",
    "lon": "deg",
    "alt": "m",
    "fix": "",
    "satellites": "",
    "hdop": "",
    "speed": "m/s",
    "course": "deg",
}
"""All channels that `parse_sentence` may return."""

_SENTENCE = re.compile(r"\$([A-Z0-9]{2})([A-Z]{3}),([^*$]*)\*([0-9A-Fa-f]{2})")
_ANGLE = re.compile(r"(\d{2,3})(\d{2}(?:\.\d+)?)")


def compute_checksum(body: str) -> int:
    """Return the XOR of the characters between "$" and "*"."""
    checksum = 0
    for mark in body.encode("utf-8", errors="replace"):
        checksum ^= mark
    return checksum


def parse_sentence(line: str) -> dict[str, float]:
    """Return the channel values of one sentence; {} for another kind, only fix 0 if it has no position.

    Raises InvalidReading for a wrong or missing checksum, or fields that are not numbers.
    """
    match = _SENTENCE.fullmatch(line.strip())
    if match is None:
        raise InvalidReading(f"not an NMEA sentence with a checksum: {line[:40]!r}")
    if compute_checksum(line.strip()[1:-3]) != int(match[4], 16):
        raise InvalidReading(f"wrong checksum: {line[:40]!r}")
    kind, fields = match[2], match[3].split(",")
    if kind == "GGA":
        return _read_gga(fields)
    if kind == "RMC":
        return _read_rmc(fields)
    if kind == "VTG":
        return _read_vtg(fields)
    return {}


def _read_gga(fields: list[str]) -> dict[str, float]:
    """time, lat, N/S, lon, E/W, fix, satellites, HDOP, altitude, M, ..."""
    _need(fields, 9)
    fix = _number(fields[5]) or 0.0
    if fix == 0:
        return {"fix": 0.0}
    values = {"fix": fix, **_read_position(fields[1:5])}
    for name, field in (("satellites", fields[6]), ("hdop", fields[7]), ("alt", fields[8])):
        if (number := _number(field)) is not None:
            values[name] = number
    return values


def _read_rmc(fields: list[str]) -> dict[str, float]:
    """time, A/V, lat, N/S, lon, E/W, knots, course, date, ..."""
    _need(fields, 8)
    if fields[1] != "A":
        return {}
    values = _read_position(fields[2:6])
    if (knots := _number(fields[6])) is not None:
        values["speed"] = knots * KNOT_M_S
    if (course := _number(fields[7])) is not None:
        values["course"] = course
    return values


def _read_vtg(fields: list[str]) -> dict[str, float]:
    """course, T, magnetic course, M, knots, N, km/h, K, ..."""
    _need(fields, 7)
    values = {}
    if (course := _number(fields[0])) is not None:
        values["course"] = course
    if (knots := _number(fields[4])) is not None:
        values["speed"] = knots * KNOT_M_S
    return values


def _need(fields: list[str], count: int) -> None:
    if len(fields) < count:
        raise InvalidReading(f"{len(fields)} fields, {count} are needed")


def _number(field: str) -> float | None:
    if not field:
        return None
    if not re.fullmatch(r"-?\d{1,9}(\.\d{0,9})?", field, re.ASCII):
        raise InvalidReading(f"not a number: {field[:20]!r}")
    return float(field)


def _read_position(fields: list[str]) -> dict[str, float]:
    latitude = _read_angle(fields[0], fields[1], "NS", 90)
    longitude = _read_angle(fields[2], fields[3], "EW", 180)
    return {"lat": latitude, "lon": longitude}


def _read_angle(field: str, side: str, sides: str, degrees_max: int) -> float:
    """Return degrees of ddmm.mmmm or dddmm.mmmm and the hemisphere."""
    match = _ANGLE.fullmatch(field)
    if match is None or not field.isascii() or side not in sides or not side:
        raise InvalidReading(f"not a position: {field[:20]!r} {side[:4]!r}")
    minutes = float(match[2])
    degrees = int(match[1]) + minutes / 60
    if minutes >= 60 or degrees > degrees_max or not math.isfinite(degrees):
        raise InvalidReading(f"not a position: {field[:20]!r}")
    return degrees if side == sides[0] else -degrees
