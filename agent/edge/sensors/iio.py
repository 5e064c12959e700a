"""Linux Industrial I/O: accelerometers, gyroscopes, weather chips and converters, by polling sysfs or by the buffer.

Polling reads each channel's file (BME280, and anything at a few readings a second); the buffer takes records from
/dev/iio:deviceN as the chip's trigger or FIFO fills it (MPU6050, ADXL345 at tens to thousands a second). Mount matrices
are not applied: a model learns the board as it is mounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from agent.edge.sensors.iio_buffer import read_buffer
from agent.edge.sensors.source import Samples, SensorKind, SourceContext, SourceFailed
from agent.sensing.iio_format import get_unit, split_attribute
from agent.sensing.samples import CHANNELS_MAX, InvalidReading, Sample, clean_name

SYSFS = Path("/sys/bus/iio/devices")
DEV = Path("/dev")


@dataclass(frozen=True)
class IioSettings:
    """A section [sensors.iio]."""

    device: str = field(
        metadata={
            "min": 1,
            "max": 64,
            "help": "the chip's name, as in its file `name`, or iio:device0",
            "example": "mpu6050",
        }
    )
    mode: str = field(
        default="poll",
        metadata={"choices": ("poll", "buffer"), "help": "read files at rate_hz, or the kernel's buffer as it fills"},
    )
    rate_hz: float = field(default=10.0, metadata={"min": 0.001, "max": 10000.0, "help": "readings a second"})
    channels: tuple[str, ...] = field(
        default=(), metadata={"max": CHANNELS_MAX, "help": "accel_x, temp, ...; empty: all channels of the chip"}
    )
    trigger: str = field(
        default="", metadata={"max": 64, "help": "buffer: name of the trigger; empty: the driver's choice"}
    )
    buffer_length: int = field(
        default=512,
        metadata={"min": 2, "max": 65536, "help": "buffer: unread records that the kernel keeps"},
    )
    root: Path = field(default=SYSFS, metadata={"help": "folder of the IIO devices"})
    dev_root: Path = field(default=DEV, metadata={"help": "folder of their buffers"})


@dataclass(frozen=True)
class _Attribute:
    """One channel to poll: value = (file + offset) * scale, in `unit`."""

    channel: str
    file: Path
    offset: float
    scale: float
    unit: str


def find_device(root: Path, wanted: str) -> Path:
    """Return the device's folder, by its name or number. Raises SourceFailed, which lists the devices."""
    seen = []
    for folder in sorted(root.glob("iio:device*")) if root.is_dir() else []:
        name = _read_text(folder / "name")
        if wanted in (name, folder.name):
            return folder
        seen.append(f"{name or '?'} ({folder.name})")
    raise SourceFailed(f"no IIO device {wanted!r} under {root}; there: {', '.join(seen) or 'none'}")


def _read_text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def read_factor(folder: Path, channel: str, what: str, default: float) -> float:
    """Return `scale` or `offset` of a channel: from its own file, otherwise from that of all channels of its kind.

    "accel_x" is in in_accel_x_scale or in_accel_scale. Raises SourceFailed if the file holds no number.
    """
    parts = channel.split("_")
    stems = ["_".join(parts[:count]) for count in range(len(parts), 0, -1)]
    stems.append(parts[0].rstrip("0123456789"))  # voltage of voltage0
    for stem in stems:
        if text := _read_text(folder / f"in_{stem}_{what}"):
            try:
                return float(text)
            except ValueError as error:
                raise SourceFailed(f"in_{stem}_{what} holds {text[:20]!r}") from error
    return default


def find_attributes(folder: Path, wanted: tuple[str, ...]) -> list[_Attribute]:
    """Return the channels to poll; processed ones (`_input`) are preferred to raw ones. Raises SourceFailed."""
    files: dict[str, tuple[str, Path]] = {}
    for file in sorted(folder.glob("in_*")):
        found = split_attribute(file.name)
        if found and (found[0] not in files or found[1] == "input"):
            files[found[0]] = (found[1], file)
    if missing := [channel for channel in wanted if channel not in files]:
        raise SourceFailed(f"{folder.name} has no channel {', '.join(missing)}; it has: {', '.join(files) or 'none'}")
    attributes = []
    for channel in (wanted or tuple(files))[:CHANNELS_MAX]:
        form, file = files[channel]
        unit, factor = get_unit(channel)
        is_raw = form == "raw"
        scale = read_factor(folder, channel, "scale", 1.0) if is_raw else 1.0
        offset = read_factor(folder, channel, "offset", 0.0) if is_raw else 0.0
        attributes.append(_Attribute(clean_name(channel), file, offset, scale * factor, unit))
    if not attributes:
        raise SourceFailed(f"{folder.name} has no channel to poll")
    return attributes


def poll_once(attributes: list[_Attribute], context: SourceContext) -> Sample | None:
    """Read every channel once, without those that cannot be read now. Raises SourceFailed if none can."""
    now_us = context.clock.read_us()
    values, faults = {}, []
    for attribute in attributes:
        try:
            number = float(attribute.file.read_text())
        except (OSError, ValueError) as error:  # a chip on a long wire fails occasionally
            faults.append(f"{attribute.file.name}: {error}")
            continue
        values[attribute.channel] = (number + attribute.offset) * attribute.scale
    if faults:
        context.drop(faults[0], len(faults))
    if not values:
        raise SourceFailed(faults[0])
    return Sample(now_us, context.name, values, {a.channel: a.unit for a in attributes})


async def _read_by_polling(settings: IioSettings, context: SourceContext) -> AsyncGenerator[Samples, None]:
    loop = asyncio.get_running_loop()
    attributes = find_attributes(find_device(settings.root, settings.device), settings.channels)
    period_s = 1.0 / settings.rate_hz
    due_s = loop.time()
    while True:
        # an I2C transfer takes a millisecond or more: not on the loop
        sample = await asyncio.to_thread(poll_once, attributes, context)
        yield (sample,) if sample else ()
        # late by more than a period: continue from now, a burst would measure one instant many times
        due_s = max(due_s + period_s, loop.time() - period_s)
        await asyncio.sleep(max(0.0, due_s - loop.time()))


async def read_iio(settings: IioSettings, context: SourceContext) -> AsyncGenerator[Samples, None]:
    """Yield samples of one device, in either mode. Raises SourceFailed."""
    try:
        if settings.mode == "poll":
            samples = _read_by_polling(settings, context)
        else:
            folder = find_device(settings.root, settings.device)
            channels = settings.channels
            samples = read_buffer(
                folder,
                settings.dev_root / folder.name,
                channels,
                context,
                rate_hz=settings.rate_hz,
                length=settings.buffer_length,
                trigger=settings.trigger,
                read_factor=read_factor,
            )
        async for batch in samples:
            yield batch
    except InvalidReading as error:
        raise SourceFailed(str(error)) from error


def check_iio(settings: IioSettings) -> list[str]:
    """Return few problems: a sensor may be plugged in later, so the device is not checked."""
    return [] if settings.mode == "buffer" or settings.rate_hz <= 1000 else ["rate_hz: polling is too slow above 1000"]


def get_iio_channels(settings: IioSettings) -> tuple[str, ...] | None:
    """Return the channels that are configured by name."""
    return settings.channels or None


IIO = SensorKind("iio", "Linux Industrial I/O", read_iio, check_iio, get_iio_channels)
