"""Linux Industrial I/O as values: names and units of channels, and the records of its buffers.

Linux, Documentation/ABI/testing/sysfs-bus-iio (names, units, `type`) and Documentation/iio/iio_devbuf.rst (buffers):
a value is (raw + offset) * scale, in the unit of the channel's kind; a record holds the enabled channels by index, each
at a multiple of its own size, and is as long as a multiple of its largest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

UNITS = {
    "accel": ("m/s2", 1.0),
    "anglvel": ("rad/s", 1.0),
    "angl": ("rad", 1.0),
    "incli": ("deg", 1.0),
    "magn": ("uT", 100.0),
    "temp": ("degC", 1e-3),
    "pressure": ("Pa", 1e3),
    "humidityrelative": ("%", 1e-3),
    "illuminance": ("lx", 1.0),
    "voltage": ("V", 1e-3),
    "current": ("A", 1e-3),
    "power": ("W", 1e-3),
    "gravity": ("m/s2", 1.0),
    "proximity": ("", 1.0),
    "concentration": ("%", 1.0),
}
"""kind -> the unit that is stored, and the factor to it from the ABI's unit (milli degrees, kPa, Gauss, mV, ...)."""
TIMESTAMP = "timestamp"
STORAGE_BITS = (8, 16, 32, 64)
REPEAT_MAX = 16

_ATTRIBUTE = re.compile(r"in_(.+)_(raw|input)")
_TYPE = re.compile(r"(be|le):([su])(\d{1,3})/(\d{1,3})(?:X(\d{1,3}))?(?:>>(\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class ScanType:
    """How a record holds one channel: `bits` valid ones of `storage_bits`, after a shift to the right."""

    byte_order: str
    """As `int.from_bytes` names it: "big" or "little"."""
    is_signed: bool
    bits: int
    storage_bits: int
    repeat: int = 1
    shift: int = 0


@dataclass(frozen=True, slots=True)
class ScanChannel:
    """One channel of a buffer: its name ("accel_x", "timestamp"), index, and form."""

    name: str
    index: int
    type: ScanType


@dataclass(frozen=True, slots=True)
class Layout:
    """A buffer's record: (channel, offset in bytes) in the order of index, and its length in bytes."""

    places: tuple[tuple[ScanChannel, int], ...]
    record_bytes: int


def split_attribute(file_name: str) -> tuple[str, str] | None:
    """Return "in_accel_x_raw" as ("accel_x", "raw"); None for a file that holds no value of a channel."""
    match = _ATTRIBUTE.fullmatch(file_name)
    return (match[1], match[2]) if match else None


def get_kind(channel: str) -> str:
    """Return "accel" for "accel_x", "voltage" for "voltage0-voltage1", "temp" for "temp_ambient"."""
    match = re.match(r"[a-z]+", channel)
    return match[0] if match else ""


def get_unit(channel: str) -> tuple[str, float]:
    """Return a channel's stored unit, and the factor to it; ("", 1.0) for a kind that UNITS does not have."""
    return UNITS.get(get_kind(channel), ("", 1.0))


def parse_type(text: str) -> ScanType:
    """Read a scan type such as "le:s12/16>>4". Raises ValueError for what the ABI does not allow."""
    match = _TYPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a scan type: {text[:40]!r}")
    bits, storage, repeat, shift = int(match[3]), int(match[4]), int(match[5] or 1), int(match[6] or 0)
    if storage not in STORAGE_BITS or not 1 <= bits <= storage - shift or not 1 <= repeat <= REPEAT_MAX:
        raise ValueError(f"not a scan type: {text[:40]!r}: {bits} bits, shifted by {shift}, in {storage}")
    return ScanType("big" if match[1] == "be" else "little", match[2] == "s", bits, storage, repeat, shift)


def build_layout(channels: Sequence[ScanChannel]) -> Layout:
    """Return where a record holds the enabled channels. Raises ValueError for none, or for two of one index."""
    ordered = sorted(channels, key=lambda channel: channel.index)
    if not ordered or len({channel.index for channel in ordered}) < len(ordered):
        raise ValueError("a buffer needs channels, each with an index of its own")
    places, end, largest = [], 0, 1
    for channel in ordered:
        # a repeated element is aligned as a whole (iio_storage_bytes_for_si)
        size = channel.type.storage_bits // 8 * channel.type.repeat
        end = -(-end // size) * size
        places.append((channel, end))
        end += size
        largest = max(largest, size)
    return Layout(tuple(places), -(-end // largest) * largest)


def decode_element(raw: bytes, scan: ScanType) -> int:
    """Return the number in one element (in the first of a repeated one)."""
    number = int.from_bytes(raw[: scan.storage_bits // 8], "big" if scan.byte_order == "big" else "little")
    number = (number >> scan.shift) & ((1 << scan.bits) - 1)
    if scan.is_signed and number >> (scan.bits - 1):
        number -= 1 << scan.bits
    return number


def decode_records(layout: Layout, data: bytes) -> tuple[list[dict[str, int]], bytes]:
    """Return the raw numbers by channel of every whole record, and the bytes left over."""
    whole = len(data) // layout.record_bytes
    records = []
    for start in range(0, whole * layout.record_bytes, layout.record_bytes):
        record = data[start : start + layout.record_bytes]
        records.append(
            {
                channel.name: decode_element(record[offset : offset + channel.type.storage_bits // 8], channel.type)
                for channel, offset in layout.places
            }
        )
    return records, data[whole * layout.record_bytes :]
