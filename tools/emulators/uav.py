"""The telemetry of a UAV over MAVLink 2 and UDP, as an autopilot sends it to its ground station."""

from __future__ import annotations

import math
import socket
from typing import Any

from flchain.base.errors import ConfigError
from tools.emulators.flight import Instant, compute_flight
from tools.emulators.pacing import pace

RATE_HZ = 50
EVERY = {"HIGHRES_IMU": 1, "ATTITUDE": 5, "GLOBAL_POSITION_INT": 10, "SYS_STATUS": 50, "BATTERY_STATUS": 50}
"""By message: it is sent at every n-th step."""


class _Wire:
    """The file-like object that pymavlink writes to."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._address = address

    def write(self, data: bytes) -> None:
        self._socket.sendto(data, self._address)

    def close(self) -> None:
        self._socket.close()


def send_instant(mav: Any, at: Instant, step: int) -> int:
    """Send what is due at a step; return how many messages that were."""
    time_ms, due = step * 1000 // RATE_HZ, {name for name, every in EVERY.items() if step % every == 0}
    millivolts = round(14_000 + 2_800 * at.battery)
    if "HIGHRES_IMU" in due:
        mav.highres_imu_send(
            time_ms * 1000, *at.acceleration, 0.0, 0.0, at.yaw_rate, 0.21, 0.02, 0.43, 953.0, 0.0, 0.0, 24.0, 0x1FFF
        )
    if "ATTITUDE" in due:
        yaw = math.remainder(at.yaw, 2 * math.pi)
        mav.attitude_send(time_ms, at.roll, at.pitch, yaw, 0.0, 0.0, at.yaw_rate)
    if "GLOBAL_POSITION_INT" in due:
        mav.global_position_int_send(
            time_ms,
            round(at.latitude * 1e7),
            round(at.longitude * 1e7),
            round(at.altitude_m * 1e3),
            round(at.height_m * 1e3),
            round(at.north_m_s * 100),
            round(at.east_m_s * 100),
            round(at.down_m_s * 100),
            round(math.degrees(at.yaw) * 100) % 36000,
        )
    if "SYS_STATUS" in due:
        mav.sys_status_send(0, 0, 0, 230, millivolts, 1200, round(100 * at.battery), 0, 0, 0, 0, 0, 0)
    if "BATTERY_STATUS" in due:
        cells = [millivolts // 4] * 4 + [0xFFFF] * 6
        mav.battery_status_send(0, 0, 0, 2500, cells, 1200, 0, -1, round(100 * at.battery))
    return len(due)


async def run_uav(host: str, port: int, *, seconds: float, system: int = 1) -> int:
    """Send the flight; return how many messages were sent. Raises ConfigError without pymavlink, or for a bad host."""
    try:
        from pymavlink.dialects.v20 import common
    except ImportError as error:
        raise ConfigError(("pymavlink is not installed: pip install 'flchain[uav]'",)) from error
    try:
        address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
    except OSError as error:
        raise ConfigError((f"--host {host}: {error.strerror or error}",)) from error
    wire, sent = _Wire((str(address[0]), port)), 0
    try:
        mav = common.MAVLink(wire, srcSystem=system, srcComponent=1)
        async for step in pace(RATE_HZ, seconds):
            if step % RATE_HZ == 0:
                mav.heartbeat_send(common.MAV_TYPE_QUADROTOR, common.MAV_AUTOPILOT_GENERIC, 0, 0, 0)
            sent += send_instant(mav, compute_flight(step / RATE_HZ), step)
    finally:
        wire.close()
    return sent
