"""A simple flight, repeated without end: climb, circle, hover, land. Position, attitude and battery at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOME = (48.137222, 11.575556, 520.0)
"""Latitude and longitude in degrees, height above sea level in m."""
HEIGHT_M, RADIUS_M, SPEED_M_S, CLIMB_M_S = 30.0, 40.0, 8.0, 3.0
METRES_PER_DEGREE = 111_320.0
GRAVITY_M_S2 = 9.80665
PHASES = (("climb", HEIGHT_M / CLIMB_M_S), ("circle", 60.0), ("hover", 20.0), ("land", HEIGHT_M / CLIMB_M_S))
FLIGHT_S = sum(length for _, length in PHASES)
BATTERY_S = 900.0


@dataclass(frozen=True, slots=True)
class Instant:
    """Position and attitude of the UAV; SI units, positions in degrees, angles in radians."""

    phase: str
    latitude: float
    longitude: float
    altitude_m: float
    height_m: float
    north_m_s: float
    east_m_s: float
    down_m_s: float
    roll: float
    pitch: float
    yaw: float
    yaw_rate: float
    acceleration: tuple[float, float, float]
    """What its accelerometer measures, m/s2: forward, right, down."""
    battery: float
    """1 is full, 0 empty; it is replaced every quarter of an hour."""


def compute_flight(time_s: float) -> Instant:
    """Return the state of the flight at `time_s` seconds from its start."""
    phase, left_s, share = _find_phase(time_s % FLIGHT_S)
    height = {"climb": share * HEIGHT_M, "land": (1 - share) * HEIGHT_M}.get(phase, HEIGHT_M)
    down = {"climb": -CLIMB_M_S, "land": CLIMB_M_S}.get(phase, 0.0)
    angle = left_s * SPEED_M_S / RADIUS_M if phase == "circle" else 0.0
    speed = SPEED_M_S if phase == "circle" else 0.0
    # a circle through home, with its centre to the north, towards the east first
    north_m, east_m = RADIUS_M * (1 - math.cos(angle)), RADIUS_M * math.sin(angle)
    yaw = (math.pi / 2 - angle) % (2 * math.pi)
    inward = speed**2 / RADIUS_M
    bank = -math.atan2(inward, GRAVITY_M_S2)
    shake = 0.4 * math.sin(40 * time_s)  # rotors
    return Instant(
        phase=phase,
        latitude=HOME[0] + north_m / METRES_PER_DEGREE,
        longitude=HOME[1] + east_m / (METRES_PER_DEGREE * math.cos(math.radians(HOME[0]))),
        altitude_m=HOME[2] + height,
        height_m=height,
        north_m_s=speed * math.sin(angle),
        east_m_s=speed * math.cos(angle),
        down_m_s=down,
        roll=bank if speed else 0.01 * math.sin(2 * time_s),
        pitch=-0.05 if speed else 0.01 * math.cos(2 * time_s),
        yaw=yaw,
        yaw_rate=-speed / RADIUS_M,
        acceleration=(shake, 0.1 * shake, -math.hypot(GRAVITY_M_S2, inward) + shake),
        battery=1.0 - time_s % BATTERY_S / BATTERY_S,
    )


def _find_phase(time_s: float) -> tuple[str, float, float]:
    """Return the phase's name, the seconds since its start, and the fraction of it that is over."""
    for name, length_s in PHASES:
        if time_s < length_s:
            return name, time_s, time_s / length_s
        time_s -= length_s
    return PHASES[-1][0], PHASES[-1][1], 1.0
