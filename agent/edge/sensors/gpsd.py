"""gpsd's JSON protocol over TCP. gpsd owns the receiver and knows its dialect; we only listen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from agent.edge.sensors.source import Samples, SensorKind, SourceContext, SourceFailed
from agent.sensing.gpsd_reports import UNITS, WATCH, parse_report
from agent.sensing.json_values import read_json
from agent.sensing.samples import InvalidReading, Sample
from flchain_edge.newer_python import timeout

LINE_BYTES_MAX = 64 * 1024  # SKY with all constellations has some 10 kB
CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class GpsdSettings:
    """A section [sensors.gpsd]."""

    host: str = field(default="127.0.0.1", metadata={"min": 1, "max": 253, "help": "where gpsd runs"})
    port: int = field(default=2947, metadata={"min": 1, "max": 65535, "help": "its port"})


async def read_gpsd(settings: GpsdSettings, context: SourceContext) -> AsyncGenerator[Samples, None]:
    """Yield samples of each TPV and SKY report until gpsd closes the connection. Raises SourceFailed."""
    try:
        async with timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(settings.host, settings.port, limit=LINE_BYTES_MAX)
    except (OSError, TimeoutError) as error:
        raise SourceFailed(f"gpsd at {settings.host}:{settings.port}: {str(error) or 'no answer'}") from error
    try:
        writer.write(WATCH)
        while True:
            try:
                line = await reader.readline()
            except (OSError, ValueError) as error:  # ValueError: longer than the limit
                raise SourceFailed(f"gpsd at {settings.host}:{settings.port}: {error}") from error
            if not line:
                raise SourceFailed(f"gpsd at {settings.host}:{settings.port} closed the connection")
            try:
                values = parse_report(read_json(line))
            except InvalidReading as fault:
                context.drop(str(fault))
                continue
            if values:
                units = {name: UNITS[name] for name in values}
                yield (Sample(context.clock.read_us(), context.name, values, units),)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def check_gpsd(settings: GpsdSettings) -> list[str]:
    return []


def get_gpsd_channels(settings: GpsdSettings) -> tuple[str, ...]:
    return tuple(UNITS)


GPSD = SensorKind("gpsd", "position and speed from gpsd", read_gpsd, check_gpsd, get_gpsd_channels)
