"""Load what the model trains on: windows of the ring of samples, or the file of examples. Read again each round."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from agent.edge.data.ring_reader import RingContent, open_ring, read_channels
from agent.edge.data.settings import RING_FILE, DatasetSettings, LabelSettings, fits_model
from agent.sensing.labels import (
    MIXED,
    UNLABELLED,
    Labels,
    compute_window_means,
    hold_labels,
    label_by_intervals,
    label_by_threshold,
    parse_intervals,
    vote,
)
from agent.sensing.resampling import (
    Series,
    Shape,
    compute_grid,
    find_segments,
    gather_windows,
    intersect_segments,
    place_windows,
    resample,
)
from agent.sensing.selection import HOLD_OUT, NEITHER, TRAIN, assign_parts, select_newest
from agent.sensing.timeline import Boot
from flchain.base.errors import ConfigError
from flchain.base.frozen import replace
from flchain_edge.model.model_files import Examples, NoWindows, load_part

GRID_POINTS_MAX = 500_000
"""Most grid points of one boot that are used, the newest: 2.8 hours at 50 Hz."""
PARTS = {"train": TRAIN, "holdout": HOLD_OUT}


class DataSettings(Protocol):
    """The part of the agent's settings that loading needs: a child process is given no more."""

    @property
    def examples(self) -> Path: ...
    @property
    def data_dir(self) -> Path: ...
    @property
    def dataset(self) -> DatasetSettings: ...
    @property
    def holdout_percent(self) -> int: ...
    @property
    def trust_clock(self) -> bool: ...


@dataclass(frozen=True)
class DataSource:
    """The same as plain values for a child process, see `encode_source`."""

    examples: Path
    data_dir: Path
    dataset: DatasetSettings
    holdout_percent: int = 0
    """Percent that is scored on and never trained on; 0 on a device that does not mine."""
    trust_clock: bool = False


@dataclass
class Windows:
    """All usable windows, oldest first, and why the others are not."""

    x: npt.NDArray[np.float32]
    """(N, window, C), normalised."""
    y: Labels
    counts: dict[str, int] = field(default_factory=dict)
    """cut, unlabelled, mixed, no_class, hold_off, other_part: windows that are not in x; damaged_blocks."""


def build_source(settings: DataSettings) -> DataSource:
    """Return the source that the agent's settings describe."""
    return DataSource(
        settings.examples, settings.data_dir, settings.dataset, settings.holdout_percent, settings.trust_clock
    )


def encode_source(source: DataSource) -> dict[str, Any]:
    """Return it as JSON values."""
    values: dict[str, Any] = msgspec.to_builtins(source, enc_hook=str)
    return values


def decode_source(values: dict[str, Any]) -> DataSource:
    """Return what `encode_source` was given. Raises ValueError."""
    return msgspec.convert(values, DataSource, dec_hook=lambda kind, value: kind(value))


def load_dataset(
    settings: DataSettings, input_shape: tuple[int, ...], classes: int, *, part: str = "train"
) -> Examples:
    """Return examples for a model of this input shape: x float32 (N, *input_shape), y int32 (N,) in 0..classes-1.

    The parts "train" and "holdout" share nothing (`selection.assign_parts`, `model_files.hold_out`). With [dataset]
    channels they are windows of the ring, otherwise rows of the file `examples`. Raises ConfigError for what no further
    sample can fix, NoWindows (too few), LedgerCorrupt (a damaged ring).
    """
    dataset = settings.dataset
    if not dataset.channels:
        shape = _ModelShape(input_shape, classes)
        return load_part(settings.examples, shape, settings.holdout_percent, is_held_out=part == "holdout")
    if problems := find_model_problems(dataset, input_shape, classes):
        raise ConfigError(problems)
    try:
        with open_ring(settings.data_dir / RING_FILE) as db:
            content = read_channels(db, dataset.get_all_channels(), with_nan=dataset.get_label_channels())
    except ConfigError as error:
        raise NoWindows("; ".join(error.problems)) from error
    windows = build_windows(settings, content, classes, part=PARTS[part])
    windows_min = dataset.windows_min if part == "train" else 1
    if len(windows.y) < windows_min:
        raise NoWindows(f"{len(windows.y)} usable windows, at least {windows_min} wanted: {_explain(windows)}")
    return Examples(windows.x.reshape(len(windows.x), *input_shape), windows.y)


def _explain(windows: Windows) -> str:
    return ", ".join(f"{name} {count}" for name, count in windows.counts.items() if count) or "no samples yet"


@dataclass(frozen=True)
class _ModelShape:
    """What `load_examples` reads of a model."""

    input_shape: tuple[int, ...]
    classes: int


def find_model_problems(dataset: DatasetSettings, input_shape: tuple[int, ...], classes: int) -> tuple[str, ...]:
    """Return what in [dataset] does not fit the model."""
    problems = []
    if not fits_model(dataset, input_shape):
        found = (dataset.window, len(dataset.channels))
        problems.append(f"[dataset] window and channels make examples of shape {found}, the model takes {input_shape}")
    if dataset.label.rule == "threshold" and len(dataset.label.thresholds) >= classes:
        problems.append(
            f"[dataset.label] thresholds: {len(dataset.label.thresholds) + 1} classes, the model has {classes}"
        )
    if len(dataset.label.texts) > classes:
        problems.append(f"[dataset.label] texts: {len(dataset.label.texts)} classes, the model has {classes}")
    return tuple(problems)


def build_windows(settings: DataSettings, content: RingContent, classes: int, *, part: int = TRAIN) -> Windows:
    """Return all that a round may use: the newest windows_max, an equal share of each class (`select_newest`)."""
    dataset = settings.dataset
    counts = dict.fromkeys(("cut", "unlabelled", "mixed", "no_class", "hold_off", "other_part", "not_newest"), 0)
    cuts = []
    for number in sorted(content.series):
        boot = content.boots.get(number)
        if boot is None:
            continue
        boot = replace(boot, is_trusted=boot.is_trusted or settings.trust_clock)
        if (cut := _cut_boot(dataset, boot, content.series[number], classes)) is None:
            continue
        parts = _get_parts(settings, boot, cut)
        counts["cut"] += len(cut.labels)
        counts["hold_off"] += int((parts == NEITHER).sum())
        counts["other_part"] += int(((parts != NEITHER) & (parts != part)).sum())
        mine = parts == part
        counts["unlabelled"] += int((cut.labels[mine] == UNLABELLED).sum())
        counts["mixed"] += int((cut.labels[mine] == MIXED).sum())
        counts["no_class"] += int((cut.labels[mine] >= classes).sum())
        cuts.append((cut, np.flatnonzero(mine & (cut.labels >= 0) & (cut.labels < classes))))
    labels = np.concatenate([np.empty(0, np.int32), *(cut.labels[usable] for cut, usable in cuts)])
    chosen = select_newest(labels, dataset.windows_max)
    counts["not_newest"] = len(labels) - len(chosen)
    counts["damaged_blocks"] = content.damaged_blocks
    return Windows(_gather(dataset, cuts, chosen), labels[chosen], counts)


@dataclass(frozen=True, eq=False)
class _Cut:
    """The windows of one boot: the grid point and time at which each begins, its end, its label; and the samples."""

    starts: npt.NDArray[np.int64]
    first_us: npt.NDArray[np.int64]
    last_us: npt.NDArray[np.int64]
    labels: Labels
    series: dict[str, Series]


def _cut_boot(dataset: DatasetSettings, boot: Boot, series: dict[str, Series], classes: int) -> _Cut | None:
    """Return the windows, or None if a channel has no samples in this boot, or no window fits between the gaps."""
    shape = Shape(dataset.rate_hz, dataset.window, dataset.step, round(dataset.gap_max_s * 1e6))
    needed = [*dataset.channels, *((dataset.label.channel,) if dataset.label.rule == "threshold" else ())]
    if any(channel not in series for channel in needed):
        return None
    segments = find_segments(series[needed[0]].times_us, shape.gap_max_us)
    for channel in dict.fromkeys(needed[1:]):
        segments = intersect_segments(segments, find_segments(series[channel].times_us, shape.gap_max_us))
    starts = place_windows(segments, shape, GRID_POINTS_MAX)
    if not len(starts):
        return None
    points, places = compute_grid(starts, dataset.window)
    at_us = points * shape.period_us
    if dataset.label.rule == "threshold":
        means = compute_window_means(resample(series[dataset.label.channel], at_us), places, dataset.window)
        labels = label_by_threshold(means, dataset.label.thresholds)
    else:
        labels = _label_points(dataset.label, boot, series, at_us, classes)
        labels = vote(labels, places, dataset.window, dataset.label.purity, classes)
    first_us = (starts * shape.period_us).astype(np.int64)
    last_us = ((starts + dataset.window - 1) * shape.period_us).astype(np.int64)
    return _Cut(starts, first_us, last_us, labels, series)


def _label_points(
    label: LabelSettings, boot: Boot, series: dict[str, Series], at_us: npt.NDArray[np.float64], classes: int
) -> Labels:
    """Return the label at each point of the grid."""
    if label.rule == "channel":
        said = series.get(label.channel)
        times, values = (said.times_us, said.values) if said else (np.empty(0, np.int64), np.empty(0))
        return hold_labels(times, values, at_us, round(label.hold_s * 1e6), classes)
    if boot.is_trusted:
        return _read_intervals(label.file, label.texts, boot, at_us)
    # an untrusted date would put labels on the wrong hours
    return np.full(len(at_us), UNLABELLED, np.int32)


def _read_intervals(file: Path | None, texts: tuple[str, ...], boot: Boot, at_us: npt.NDArray[np.float64]) -> Labels:
    assert file is not None  # find_dataset_problems asks for it
    try:
        with file.open(encoding="utf-8") as lines:
            intervals = parse_intervals(lines, texts)
    except (OSError, ValueError) as error:
        raise ConfigError((f"[dataset.label] file {file}: {error}",)) from error
    first = np.array([boot.from_wall(interval.first_us) for interval in intervals], np.int64)
    last = np.array([boot.from_wall(interval.last_us) for interval in intervals], np.int64)
    labels = np.array([interval.label for interval in intervals], np.int32)
    return label_by_intervals(first, last, labels, at_us)


def _get_parts(settings: DataSettings, boot: Boot, cut: _Cut) -> npt.NDArray[np.int8]:
    return assign_parts(
        boot.key,
        cut.first_us,
        cut.last_us,
        share=settings.holdout_percent / 100,
        stretch_us=round(settings.dataset.stretch_s * 1e6),
        hold_off_us=round(settings.dataset.hold_off_s * 1e6),
    )


def _gather(
    dataset: DatasetSettings, cuts: list[tuple[_Cut, npt.NDArray[np.int64]]], chosen: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return (N, window, C) of the chosen windows, normalised as configured. Only their points are resampled."""
    x = np.empty((len(chosen), dataset.window, len(dataset.channels)), np.float32)
    offset = dataset.offset or (0.0,) * len(dataset.channels)
    scale = dataset.scale or (1.0,) * len(dataset.channels)
    passed = filled = 0
    for cut, usable in cuts:
        of_this = chosen[(chosen >= passed) & (chosen < passed + len(usable))] - passed
        passed += len(usable)
        points, places = compute_grid(cut.starts[usable[of_this]], dataset.window)
        at_us = points * (1e6 / dataset.rate_hz)
        for n, channel in enumerate(dataset.channels if len(places) else ()):
            values = (resample(cut.series[channel], at_us) - offset[n]) / scale[n]
            x[filled : filled + len(places), :, n] = gather_windows(values, places, dataset.window)
        filled += len(places)
    return x
