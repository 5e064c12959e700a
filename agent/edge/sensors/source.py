"""The interface of every source of samples: settings, a check of them, and an iterator that runs until it fails."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.sensing.json_values import parse_path
from agent.sensing.samples import CHANNELS_MAX, NAME_FORM, NAME_PATTERN, UNIT_CHARACTERS_MAX, Sample

Samples = Sequence[Sample]
"""The samples since the last time, in order; may be empty."""


class SourceFailed(Exception):
    """A source cannot continue (unplugged, refused, gone): it is started again later, with a back-off."""


@dataclass(frozen=True)
class Clock:
    """The two clocks of a sample; tests give their own."""

    read_us: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    read_wall_us: Callable[[], int] = lambda: time.time_ns() // 1000


@dataclass
class SourceContext:
    """What a running source is given, and what it reports besides its samples."""

    name: str
    clock: Clock = field(default_factory=Clock)
    resume_us: int = 0
    """Its newest sample in the ring: a source with times of its own continues after it."""
    dropped: int = 0
    """Messages, lines or samples that could not be read or did not fit."""
    last_fault: str = ""

    def drop(self, why: str, count: int = 1) -> None:
        """Count what could not be read; keep the newest reason for the dataset card."""
        self.dropped += count
        self.last_fault = why[:200]


@dataclass(frozen=True)
class SensorKind:
    """One kind of source, told by its module. `check` returns all problems of its section; `read` runs it.

    `read` may end (as a replay does), raise SourceFailed or OSError, and is closed when the agent stops.
    """

    name: str
    """As in `kind = "..."` and `[sensors.NAME]`."""
    help: str
    """What it reads, for the commented example."""
    read: Callable[[Any, SourceContext], AsyncGenerator[Samples, None]]
    check: Callable[[Any], list[str]]
    get_channels: Callable[[Any], tuple[str, ...] | None]
    """The channels that a section is sure to deliver, or None if only the source itself knows."""

    @property
    def row(self) -> dict[str, Any]:
        """Return what SensorSettings says of the field that is this kind's section."""
        return {"help": self.help, "sensor": self}


@dataclass(frozen=True)
class ChannelSettings:
    """One channel of a message or a line."""

    name: str = field(
        metadata={"pattern": NAME_PATTERN, "form": NAME_FORM, "help": "name of the channel", "example": "acc_x"}
    )
    path: str = field(
        default="", metadata={"help": "its place: a.b[0] in JSON, a column's name or number; empty: the channel's name"}
    )
    unit: str = field(default="", metadata={"max": UNIT_CHARACTERS_MAX, "help": "for people and for the dataset card"})
    texts: tuple[str, ...] = field(
        default=(),
        metadata={"max": 256, "help": "for labels: a text counts as its index among these; any other: no label"},
    )


def parse_channels(channels: Sequence[ChannelSettings]) -> list[tuple[ChannelSettings, tuple[str | int, ...]]]:
    """Return each channel with its path into JSON. Raises ValueError."""
    return [(channel, parse_path(channel.path or channel.name)) for channel in channels]


def check_channels(channels: Sequence[ChannelSettings], *, paths: bool) -> list[str]:
    """Return the problems of a list of channels; with `paths`, each must have a path into JSON."""
    names = [channel.name for channel in channels]
    problems = [f"channels: {name} occurs twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if len(channels) > CHANNELS_MAX:
        problems.append(f"channels: {len(channels)}, at most {CHANNELS_MAX}")
    for channel in channels if paths else ():
        try:
            parse_path(channel.path or channel.name)
        except ValueError as error:
            problems.append(f"channels: {channel.name}: {error}")
    return problems


def get_units(channels: Sequence[ChannelSettings]) -> dict[str, str]:
    return {channel.name: channel.unit for channel in channels}
