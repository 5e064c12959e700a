"""One measurement, and the names it may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME_PATTERN = "[A-Za-z0-9_-]{1,48}"
"""Of sources and of channels: what a topic, a column and a configuration key can all hold."""
UNIT_CHARACTERS_MAX = 16
CHANNELS_MAX = 64
"""Channels of one source; what a chatty peer names beyond is left out."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a source measured at one instant.

    time_us is of the boot clock (since power-on, suspension included), which no person and no server sets; the wall's
    time is kept beside it, once for each boot (see `timeline`). values may hold NaN: "no value now". units has an
    entry for each channel, "" where nobody says.
    """

    time_us: int
    source: str
    values: Mapping[str, float]
    units: Mapping[str, str]


class InvalidReading(ValueError):
    """A sensor sent what cannot be read: its line or message is counted and dropped, and the source goes on."""


def clean_name(text: str) -> str:
    """`text` as a name: other characters become underscores, cut at 48. Raises InvalidReading if none is left."""
    name = _NOT_IN_NAMES.sub("_", text).strip("_")[:48]
    if not name:
        raise InvalidReading(f"no name can be made of {text[:40]!r}")
    return name


def split_channel(full_name: str) -> tuple[str, str]:
    """ "imu.acc_x" as ("imu", "acc_x"). Raises ValueError for another form."""
    if not re.fullmatch(rf"{NAME_PATTERN}\.{NAME_PATTERN}", full_name):
        raise ValueError(f"{full_name!r} is no channel: write SOURCE.CHANNEL")
    source, _, channel = full_name.partition(".")
    return source, channel
