"""Lines from a serial port: comma-separated values, JSON, or NMEA 0183."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.edge.sensors.descriptor import read_when_ready
from agent.edge.sensors.source import (
    ChannelSettings,
    Samples,
    SensorKind,
    SourceContext,
    SourceFailed,
    check_channels,
    get_units,
    parse_channels,
)
from agent.sensing import nmea
from agent.sensing.json_values import follow, read_json, to_number
from agent.sensing.samples import InvalidReading, Sample
from agent.sensing.text_lines import LineSplitter, find_column, split_columns

BAUD_RATES = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)


@dataclass(frozen=True)
class SerialSettings:
    """A section [sensors.serial]."""

    device: Path = field(
        metadata={"help": "the port; stable names are under /dev/serial/by-id", "example": "/dev/ttyUSB0"}
    )
    baud: int = field(default=9600, metadata={"choices": BAUD_RATES, "help": "8 data bits, no parity, 1 stop bit"})
    form: str = field(
        default="csv",
        metadata={"choices": ("csv", "json", "nmea"), "help": "form of a line; nmea: GGA, RMC and VTG with checksums"},
    )
    channels: tuple[ChannelSettings, ...] = field(
        default=(), metadata={"help": "csv and json: which values; a csv path is a column's number or name in a header"}
    )


Parser = Callable[[str], dict[str, float]]


def open_port(device: Path, baud: int) -> int:
    """Return a raw, non-blocking descriptor at `baud`. Raises SourceFailed."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise SourceFailed(f"{device}: {error.strerror or error}") from error
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        attributes = termios.tcgetattr(descriptor)
        # ignore the modem lines: a sensor has three wires
        attributes[2] |= termios.CLOCAL | termios.CREAD
        attributes[4] = attributes[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    except termios.error as error:
        os.close(descriptor)
        raise SourceFailed(f"{device}: not a serial port: {error.args[-1]}") from error
    return descriptor


def build_parser(settings: SerialSettings) -> tuple[Parser, dict[str, str]]:
    """Return a function from a line to channel values (which raises InvalidReading), and their units."""
    if settings.form == "nmea":
        return nmea.parse_sentence, nmea.UNITS
    units = get_units(settings.channels)
    if settings.form == "json":
        channels = parse_channels(settings.channels)

        def parse_json(line: str) -> dict[str, float]:
            document = read_json(line)
            found = {c.name: to_number(follow(document, path), c.texts) for c, path in channels}
            return {name: number for name, number in found.items() if number is not None}

        return parse_json, units
    return _build_csv_parser(settings.channels), units


def _build_csv_parser(channels: tuple[ChannelSettings, ...]) -> Parser:
    header: list[str] = []
    names = {channel.path or channel.name for channel in channels if not (channel.path or channel.name).isdigit()}

    def parse_csv(line: str) -> dict[str, float]:
        columns = split_columns(line)
        if names.intersection(columns):
            header[:] = columns  # a header may come again when the sensor has restarted
            return {}
        values = {}
        for channel in channels:
            index = find_column(header, channel.path or channel.name)
            if index is None or index >= len(columns):
                raise InvalidReading(f"no column {channel.path or channel.name!r} in {line[:40]!r}")
            if (number := to_number(columns[index], channel.texts)) is None:
                raise InvalidReading(f"column {channel.path or channel.name!r} holds {columns[index][:20]!r}")
            values[channel.name] = number
        return values

    return parse_csv


async def read_serial(settings: SerialSettings, context: SourceContext) -> AsyncGenerator[Samples, None]:
    """Yield samples from the port until it is unplugged. Raises SourceFailed."""
    parse, units = build_parser(settings)
    splitter = LineSplitter()
    descriptor = open_port(settings.device, settings.baud)
    try:
        while True:
            try:
                chunk = await read_when_ready(descriptor)
            except OSError as error:
                raise SourceFailed(f"{settings.device}: {error.strerror or error}") from error
            if not chunk:
                raise SourceFailed(f"{settings.device}: the port was closed")
            before = splitter.dropped
            lines = splitter.feed(chunk)
            if splitter.dropped > before:
                context.drop("a line was too long", splitter.dropped - before)
            yield list(parse_lines(lines, parse, units, context))
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def parse_lines(lines: list[str], parse: Parser, units: dict[str, str], context: SourceContext) -> list[Sample]:
    """Return a sample of each line that holds values; count the others."""
    samples = []
    now_us = context.clock.read_us()
    for place, line in enumerate(lines):
        try:
            values = parse(line)
        except InvalidReading as fault:
            context.drop(str(fault))
            continue
        if values:
            # lines of one read arrive at once; a microsecond keeps their order
            samples.append(Sample(now_us + place, context.name, values, {name: units[name] for name in values}))
    return samples


def check_serial(settings: SerialSettings) -> list[str]:
    """Return the section's problems. The port itself may be plugged in later."""
    if settings.form == "nmea":
        return ["channels: nmea has channels of its own"] if settings.channels else []
    problems = check_channels(settings.channels, paths=settings.form == "json")
    return problems if settings.channels else [*problems, f"channels: {settings.form} needs at least one"]


def get_serial_channels(settings: SerialSettings) -> tuple[str, ...]:
    return tuple(nmea.UNITS) if settings.form == "nmea" else tuple(channel.name for channel in settings.channels)


SERIAL = SensorKind("serial", "lines from a serial port", read_serial, check_serial, get_serial_channels)
