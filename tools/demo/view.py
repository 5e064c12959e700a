"""What the display and the summary show, as plain values, and how numbers are formatted for people."""

from __future__ import annotations

from dataclasses import dataclass

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class DeviceRow:
    """A device's line. Bytes are those of its newest round; `note` says what is wrong, if anything."""

    name: str
    round: int
    model_hash: str
    training_seconds: float | None
    bytes_up: int
    bytes_down: int
    accepted: int
    note: str


@dataclass(frozen=True)
class MinerRow:
    """A miner's line."""

    name: str
    height: int
    head: str
    proposed: int
    note: str


@dataclass(frozen=True)
class Snapshot:
    """The network at one moment."""

    title: str
    folder: str
    stage: str
    round: int
    rounds: int
    settled: int
    phase: str
    height: int
    proposer: str
    seconds: float
    accuracy: tuple[float | None, ...]
    """By round, round 0 (before any training) first."""
    devices: tuple[DeviceRow, ...]
    miners: tuple[MinerRow, ...]
    told: tuple[str, ...]
    """What happened out of the ordinary, newest last."""


def format_bytes(count: float | None) -> str:
    """Return a size in decimal units, as network traffic is billed."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def format_percent(share: float | None) -> str:
    """Return an accuracy as a percentage."""
    return "-" if share is None else f"{share:.1%}"


def format_seconds(seconds: float | None) -> str:
    """Return seconds with two digits, which is what a shared machine can reproduce."""
    return "-" if seconds is None else f"{seconds:.2f} s"


def format_bars(values: tuple[float | None, ...], width: int) -> str:
    """Return one character for each of the newest `width` values from 0 to 1; a dot for an unknown one."""
    shown = values[-width:]
    return "".join("·" if v is None else BARS[min(len(BARS) - 1, max(0, int(v * len(BARS))))] for v in shown)
