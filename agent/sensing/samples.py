"""One measurement, and the names it may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME_FORM = "at most 48 letters, digits, _ and -"
NAME_PATTERN = "[A-Za-z0-9_-]{1,48}"
"""Names of sources and channels: what a topic, a column and a configuration key can all hold."""
UNIT_CHARACTERS_MAX = 16
CHANNELS_MAX = 64
"""Most channels of one source; further ones that a talkative peer names are left out."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Sample:
    """A source's measurement at one instant.

    time_us is of the boot clock (since power-on, suspension included), which neither people nor servers set; wall time
    is stored separately, once for each boot (see `timeline`). values may hold NaN: "no value now". units has an entry
    for each channel, "" if unknown.
    """

    time_us: int
    source: str
    values: Mapping[str, float]
    units: Mapping[str, str]


class InvalidReading(ValueError):
    """A sensor sent something unreadable: its line or message is counted and dropped, and the source continues."""


def clean_name(text: str) -> str:
    """Return `text` as a name: other characters become underscores, cut at 48. Raises InvalidReading if it is empty."""
    name = _NOT_IN_NAMES.sub("_", text).strip("_")[:48]
    if not name:
        raise InvalidReading(f"no name can be made of {text[:40]!r}")
    return name


def split_channel(full_name: str) -> tuple[str, str]:
    """Return "imu.acc_x" as ("imu", "acc_x"). Raises ValueError for another form."""
    if not re.fullmatch(rf"{NAME_PATTERN}\.{NAME_PATTERN}", full_name):
        raise ValueError(f"{full_name!r} is not a channel: write SOURCE.CHANNEL")
    source, _, channel = full_name.partition(".")
    return source, channel
