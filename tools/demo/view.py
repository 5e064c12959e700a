"""What a person is shown while the network runs and at its end, as values; `display` draws them."""

from __future__ import annotations

from dataclasses import dataclass

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class DeviceRow:
    """A device's line. Bytes are of its newest round; `note` says when something is wrong."""

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
    led: int
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
    leader: str
    seconds: float
    accuracy: tuple[float | None, ...]
    """By round, round 0 (before any training) first."""
    devices: tuple[DeviceRow, ...]
    miners: tuple[MinerRow, ...]
    said: tuple[str, ...]
    """The newest lines of what happened out of the ordinary."""


def format_bytes(count: float | None) -> str:
    """Decimal units, as networks are sold."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def format_percent(share: float | None) -> str:
    """An accuracy for people."""
    return "-" if share is None else f"{share:.1%}"


def format_seconds(seconds: float | None) -> str:
    """Two digits are what a shared machine can repeat."""
    return "-" if seconds is None else f"{seconds:.2f} s"


def draw_bars(values: tuple[float | None, ...], width: int) -> str:
    """One character a value from 0 to 1, the newest `width` of them; a dot for one that is not known."""
    shown = values[-width:]
    return "".join("·" if v is None else BARS[min(len(BARS) - 1, max(0, int(v * len(BARS))))] for v in shown)
