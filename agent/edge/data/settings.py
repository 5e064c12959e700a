"""Sections [samples] and [dataset]: how many samples are kept, and how a model's examples are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agent.sensing.labels import parse_intervals
from agent.sensing.samples import split_channel

RING_FILE = "samples.db"
LABEL_RULES = ("channel", "intervals", "threshold")
NORMALISATION_HELP = "one number for each channel; empty: "


@dataclass(frozen=True)
class SampleSettings:
    """Which samples are kept in samples.db of the data folder."""

    flush_s: int = field(
        default=30,
        metadata={"min": 1, "max": 3600, "help": "seconds between two writes to the disk, and lost in a power cut"},
    )
    age_max_days: float = field(
        default=30.0, metadata={"min": 0.001, "max": 3650.0, "help": "older samples are deleted"}
    )
    rows_max: int = field(
        default=50_000_000,
        metadata={"min": 1000, "max": 10_000_000_000, "help": "samples; above, the oldest are deleted"},
    )
    megabytes_max: float = field(
        default=512.0,
        metadata={"min": 0.1, "max": 1_000_000.0, "help": "on disk; above, the oldest are deleted"},
    )
    silent_s: float = field(
        default=60.0,
        metadata={"min": 1.0, "max": 86400.0, "help": "a source without samples for this long is reported as silent"},
    )
    trust_clock: bool = field(
        default=False,
        metadata={
            "help": "the board has a battery-backed clock (RTC); false: only a clock set by a time server counts"
        },
    )


@dataclass(frozen=True)
class LabelSettings:
    """Where the class of each window comes from."""

    rule: str = field(
        default="channel",
        metadata={
            "choices": LABEL_RULES,
            "help": "channel: the last value sent (a person, a button, an MQTT topic); intervals: a file; "
            "threshold: a channel's mean in the window",
        },
    )
    channel: str = field(
        default="", metadata={"help": "channel and threshold: SOURCE.CHANNEL", "example": "person.label"}
    )
    hold_s: float = field(
        default=0.0, metadata={"min": 0.0, "max": 1e7, "help": "channel: how long a label holds; 0: until the next one"}
    )
    purity: float = field(
        default=1.0, metadata={"min": 0.51, "max": 1.0, "help": "share of a window that must have the same label"}
    )
    thresholds: tuple[float, ...] = field(
        default=(), metadata={"max": 255, "help": "threshold: class 0 below the first, 1 below the second, ..."}
    )
    file: Path | None = field(
        default=None, metadata={"help": "intervals: lines start,end,label; ISO 8601 (UTC) or Unix seconds"}
    )
    texts: tuple[str, ...] = field(default=(), metadata={"max": 256, "help": "intervals: names of the classes from 0"})


@dataclass(frozen=True)
class DatasetSettings:
    """Windows of the samples for the model; without channels it trains on the file `examples`."""

    channels: tuple[str, ...] = field(
        default=(),
        metadata={"max": 256, "help": "SOURCE.CHANNEL, in the order that the model takes", "example": ["imu.acc_x"]},
    )
    rate_hz: float = field(
        default=50.0, metadata={"min": 1e-4, "max": 10000.0, "help": "all channels are resampled to this"}
    )
    window: int = field(default=100, metadata={"min": 1, "max": 100_000, "help": "points of one example"})
    step: int = field(
        default=100,
        metadata={"min": 1, "max": 100_000, "help": "points from one window's start to the next"},
    )
    gap_max_s: float = field(
        default=1.0, metadata={"min": 1e-4, "max": 1e6, "help": "no window spans a longer gap in any channel"}
    )
    offset: tuple[float, ...] = field(
        default=(), metadata={"help": NORMALISATION_HELP + "0; (value - offset) / scale, the same on every device"}
    )
    scale: tuple[float, ...] = field(default=(), metadata={"help": NORMALISATION_HELP + "1"})
    windows_max: int = field(
        default=2000,
        metadata={
            "min": 1,
            "max": 1_000_000,
            "help": "the newest; at most an equal share for each class",
        },
    )
    windows_min: int = field(default=20, metadata={"min": 1, "max": 1_000_000, "help": "with fewer, training waits"})
    stretch_s: float = field(
        default=600.0,
        metadata={"min": 0.001, "max": 1e6, "help": "length of the stretches that [mining] holds out"},
    )
    hold_off_s: float = field(
        default=10.0, metadata={"min": 0.0, "max": 1e5, "help": "distance of training windows from held-out stretches"}
    )
    label: LabelSettings = field(default_factory=LabelSettings)

    @property
    def window_s(self) -> float:
        """Time from the first point of a window to its last."""
        return (self.window - 1) / self.rate_hz

    def get_all_channels(self) -> tuple[str, ...]:
        """The model's channels, and the label's."""
        extra = (self.label.channel,) if self.label.rule != "intervals" and self.label.channel else ()
        return tuple(dict.fromkeys((*self.channels, *extra)))

    def get_label_channels(self) -> tuple[str, ...]:
        """Channels in which NaN has a meaning: no label now."""
        return (self.label.channel,) if self.label.rule == "channel" else ()


def find_dataset_problems(dataset: DatasetSettings, holdout_percent: int = 0) -> list[str]:
    """Return all in [dataset] that cannot work, whatever the sensors deliver; with or without a held-out part."""
    if not dataset.channels:
        return []
    problems = []
    for channel in dataset.get_all_channels():
        try:
            split_channel(channel)
        except ValueError as error:
            problems.append(f"[dataset] channels: {error}")
    if len(set(dataset.channels)) < len(dataset.channels):
        problems.append("[dataset] channels: one occurs twice")
    for name in ("offset", "scale"):
        numbers = getattr(dataset, name)
        if numbers and len(numbers) != len(dataset.channels):
            problems.append(f"[dataset] {name}: {len(numbers)} numbers for {len(dataset.channels)} channels")
        if name == "scale" and 0 in numbers:
            problems.append("[dataset] scale: must not be 0")
    if holdout_percent and dataset.stretch_s < dataset.window_s + 2 * dataset.hold_off_s:
        least_s = dataset.window_s + 2 * dataset.hold_off_s
        problems.append(f"[dataset] stretch_s: at least a window and two hold_off_s, {least_s:g} s")
    return problems + _find_label_problems(dataset.label)


def _find_label_problems(label: LabelSettings) -> list[str]:
    where = "[dataset.label]"
    if label.rule != "intervals" and not label.channel:
        return [f"{where} channel: the rule {label.rule} needs one"]
    if label.rule == "threshold" and (not label.thresholds or list(label.thresholds) != sorted(set(label.thresholds))):
        return [f"{where} thresholds: at least one, each larger than the one before"]
    if label.rule != "intervals":
        return []
    if label.file is None:
        return [f"{where} file: the rule intervals needs one"]
    try:
        with label.file.open(encoding="utf-8") as lines:
            parse_intervals(lines, label.texts)
    except OSError as error:
        return [f"{where} file {label.file}: {error.strerror or error}"]
    except ValueError as error:
        return [f"{where} file {label.file}: {line}" for line in str(error).splitlines()]
    return []


def fits_model(dataset: DatasetSettings, input_shape: tuple[int, ...]) -> bool:
    """Return True if the model takes windows (window, C): as they are, with a last axis of 1, or as one row."""
    window, count = dataset.window, len(dataset.channels)
    return input_shape in ((window, count), (window, count, 1), (window * count,))
