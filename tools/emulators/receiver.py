"""A satellite receiver on a serial port: NMEA 0183 along the emulated flight, through a pseudo-terminal."""

from __future__ import annotations

import contextlib
import math
import os
import tty
from collections.abc import Iterator
from pathlib import Path

from agent.sensing.nmea import KNOT_M_S, compute_checksum
from flchain.base.errors import ConfigError
from tools.emulators.flight import Instant, compute_flight
from tools.emulators.pacing import pace


def format_sentences(at: Instant, time_s: float) -> str:
    """Return GGA, RMC and VTG of one instant, each with its checksum and line end."""
    clock = f"{int(time_s // 3600) % 24:02d}{int(time_s // 60) % 60:02d}{time_s % 60:05.2f}"
    latitude, longitude = _format_angle(at.latitude, 2, "NS"), _format_angle(at.longitude, 3, "EW")
    speed = math.hypot(at.north_m_s, at.east_m_s)
    course = math.degrees(math.atan2(at.east_m_s, at.north_m_s)) % 360
    bodies = (
        f"GPGGA,{clock},{latitude},{longitude},1,09,0.9,{at.altitude_m:.1f},M,46.9,M,,",
        f"GPRMC,{clock},A,{latitude},{longitude},{speed / KNOT_M_S:.2f},{course:.1f},010126,,,A",
        f"GPVTG,{course:.1f},T,,M,{speed / KNOT_M_S:.2f},N,{speed * 3.6:.2f},K,A",
    )
    return "".join(f"${body}*{compute_checksum(body):02X}\r\n" for body in bodies)


def _format_angle(degrees: float, width: int, sides: str) -> str:
    # in hundred-thousandths of a minute, so that 59.999999 does not become 60
    whole, rest = divmod(round(abs(degrees) * 6_000_000), 6_000_000)
    return f"{whole:0{width}d}{rest / 100_000:08.5f},{sides[0] if degrees >= 0 else sides[1]}"


@contextlib.contextmanager
def open_terminal(link: Path | None) -> Iterator[tuple[int, str]]:
    """Yield the end of a pseudo-terminal to write to, and the path of the port to read; `link` will point to that.

    Raises ConfigError if `link` exists and is not a link, but a file or the port of a real receiver.
    """
    if link is not None and link.exists() and not link.is_symlink():
        raise ConfigError((f"--link {link}: exists and is not a link",))
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        os.set_blocking(master, False)
        path = os.ttyname(slave)
        if link is not None:
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        yield master, path
    finally:
        if link is not None and link.is_symlink():
            link.unlink()
        os.close(master)
        os.close(slave)


async def run_receiver(link: Path | None, *, seconds: float, rate_hz: float) -> int:
    """Write sentences until the time is over; return how many instants. What no one reads is lost, as on a wire."""
    with open_terminal(link) as (master, path):
        print(f"port {link or path}", flush=True)
        count = 0
        async for step in pace(rate_hz, seconds):
            with contextlib.suppress(BlockingIOError):
                os.write(master, format_sentences(compute_flight(step / rate_hz), step / rate_hz).encode())
            count += 1
    return count
