"""Capture from an IIO buffer: choose the channels, set clock and length, enable, decode records as they arrive."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from agent.edge.sensors.descriptor import read_when_ready
from agent.edge.sensors.source import Samples, SourceContext, SourceFailed
from agent.sensing.iio_format import (
    TIMESTAMP,
    Layout,
    ScanChannel,
    build_layout,
    decode_records,
    get_unit,
    parse_type,
)
from agent.sensing.samples import Sample, clean_name

CLOCKS = ("boottime", "monotonic", "realtime")
"""Clocks for the driver's timestamps, best first; the last is the kernel's default."""

ReadFactor = Callable[[Path, str, str, float], float]


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise SourceFailed(f"{file}: {error.strerror or error}; does the agent's user have permission?") from error


def _get_folder(device: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (device / name).is_dir():
            return device / name
    raise SourceFailed(f'{device.name} has no buffer: use mode = "poll"')


def find_scan_channels(device: Path, wanted: tuple[str, ...]) -> list[ScanChannel]:
    """Return the channels to capture, with the timestamp if there is one. Raises SourceFailed."""
    folder = _get_folder(device, ("scan_elements", "buffer0"))
    found = {}
    for file in sorted(folder.glob("in_*_type")):
        name = file.name.removeprefix("in_").removesuffix("_type")
        try:
            index = int((folder / f"in_{name}_index").read_text())
            found[name] = ScanChannel(name, index, parse_type(file.read_text()))
        except (OSError, ValueError) as error:
            raise SourceFailed(f"{file.name}: {error}") from error
    if missing := [name for name in wanted if name not in found]:
        raise SourceFailed(f"the buffer of {device.name} has no {', '.join(missing)}; it has: {', '.join(found)}")
    return [channel for name, channel in found.items() if not wanted or name in wanted or name == TIMESTAMP]


def _enable(device: Path, channels: list[ScanChannel], *, length: int, trigger: str, rate_hz: float) -> str:
    """Set up the capture, and return the clock of its timestamps."""
    scan, buffer = _get_folder(device, ("scan_elements", "buffer0")), _get_folder(device, ("buffer", "buffer0"))
    _write(buffer / "enable", "0")  # a killed run may have left it on
    chosen = {channel.name for channel in channels}
    for file in scan.glob("in_*_en"):
        name = file.name.removeprefix("in_").removesuffix("_en")
        _write(file, "1" if name in chosen else "0")
    clock = device / "current_timestamp_clock"
    if clock.exists():
        for name in CLOCKS:
            try:
                clock.write_text(name)
                break
            except OSError:
                continue
    if trigger:
        _write(device / "trigger" / "current_trigger", trigger)
    for file in sorted(device.glob("*sampling_frequency")):
        _write(file, f"{rate_hz:g}")
    _write(buffer / "length", str(length))
    _write(buffer / "enable", "1")
    return clock.read_text().strip() if clock.exists() else "realtime"


class _Stamps:
    """Return instants of the boot clock for records: from their own timestamps, or evenly spaced up to now."""

    def __init__(self, clock_name: str, context: SourceContext, rate_hz: float) -> None:
        self._clock = context.clock
        self._clock_name = clock_name
        self._period_us = 1e6 / rate_hz
        self._last_us = 0

    def date(self, records: list[dict[str, int]]) -> list[int]:
        now_us = self._clock.read_us()
        if records and TIMESTAMP in records[0]:
            # computed at every read, so that setting the wall clock has no effect
            shift_us = now_us - self._read_their_clock_us(now_us)
            times = [record[TIMESTAMP] // 1000 + shift_us for record in records]
        else:
            times = [round(now_us - (len(records) - 1 - n) * self._period_us) for n in range(len(records))]
        dated = []
        for time_us in times:
            # jitter of the shift must not reverse time, and no sample is in the future
            self._last_us = max(self._last_us + 1, min(time_us, now_us))
            dated.append(self._last_us)
        return dated

    def _read_their_clock_us(self, now_us: int) -> int:
        if self._clock_name == "boottime":
            return now_us
        return time.monotonic_ns() // 1000 if self._clock_name == "monotonic" else self._clock.read_wall_us()


async def read_buffer(
    device: Path,
    node: Path,
    wanted: tuple[str, ...],
    context: SourceContext,
    *,
    rate_hz: float,
    length: int,
    trigger: str,
    read_factor: ReadFactor,
) -> AsyncGenerator[Samples, None]:
    """Yield samples from the buffer `node` of `device` until it is gone. Raises SourceFailed."""
    channels = find_scan_channels(device, wanted)
    layout = build_layout(channels)
    factors = {
        channel.name: (
            read_factor(device, channel.name, "offset", 0.0),
            read_factor(device, channel.name, "scale", 1.0),
        )
        for channel in channels
        if channel.name != TIMESTAMP
    }
    if not factors:
        raise SourceFailed(f"the buffer of {device.name} has no channel")
    clock_name = _enable(device, channels, length=length, trigger=trigger, rate_hz=rate_hz)
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SourceFailed(f"{node}: {error.strerror or error}") from error
    try:
        async for batch in _decode(descriptor, layout, factors, _Stamps(clock_name, context, rate_hz), context):
            yield batch
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError, SourceFailed):  # the device is gone, and its buffer with it
            (_get_folder(device, ("buffer", "buffer0")) / "enable").write_text("0")


async def _decode(
    descriptor: int, layout: Layout, factors: dict[str, tuple[float, float]], stamps: _Stamps, context: SourceContext
) -> AsyncGenerator[Samples, None]:
    names = {name: clean_name(name) for name in factors}
    units = {names[name]: get_unit(name)[0] for name in factors}
    scales = {name: scale * get_unit(name)[1] for name, (_, scale) in factors.items()}
    rest = b""
    while True:
        chunk = await read_when_ready(descriptor)
        if not chunk:
            raise SourceFailed("the buffer was closed")
        records, rest = decode_records(layout, rest + chunk)
        yield [
            Sample(
                time_us,
                context.name,
                {names[name]: (record[name] + offset) * scales[name] for name, (offset, _) in factors.items()},
                units,
            )
            for time_us, record in zip(stamps.date(records), records, strict=True)
        ]
