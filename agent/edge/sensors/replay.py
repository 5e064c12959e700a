"""Play a recording: CSV with a header, .npz, or Parquet if pyarrow is installed.

CSV: a column `time` in seconds (without it `rate_hz` counts); every other column is a channel, as "acc_x [g]" with its
unit. Parquet: the same, by columns. NPZ: values (n, C), channels (C,) texts, perhaps units (C,) texts, time_s (n,).
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import zipfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.edge.sensors.source import Samples, SensorKind, SourceContext, SourceFailed
from agent.sensing.json_values import NO_VALUE, to_number
from agent.sensing.samples import CHANNELS_MAX, UNIT_CHARACTERS_MAX, InvalidReading, Sample, clean_name
from agent.sensing.text_lines import split_columns

FILE_BYTES_MAX = 512 * 1024 * 1024
ROWS_MAX = 5_000_000
BATCH_MAX = 1024
TIME = "time"


@dataclass(frozen=True)
class ReplaySettings:
    """A section [sensors.replay]."""

    file: Path = field(metadata={"help": "a recording: .csv, .npz or .parquet", "example": "recording.csv"})
    rate_hz: float = field(
        default=50.0, metadata={"min": 0.001, "max": 100000.0, "help": "rows a second if the recording has no times"}
    )
    speed: float = field(
        default=1.0,
        metadata={
            "min": 0.01,
            "max": 100000.0,
            "help": "how many times faster; above 1 its samples run ahead of the clock",
        },
    )
    loop: bool = field(default=False, metadata={"help": "start again at the end; false: play once"})


@dataclass(frozen=True, eq=False)
class Recording:
    """time_s (n,) never decreasing, from 0; values (n, C); a channel and a unit for each column."""

    time_s: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    channels: tuple[str, ...]
    units: tuple[str, ...]


def load_recording(settings: ReplaySettings) -> Recording:
    """Load the whole recording. Raises SourceFailed, which says what is wrong with the file."""
    load = LOADERS.get(settings.file.suffix.lower())
    if load is None:
        raise SourceFailed(f"{settings.file}: not one of {', '.join(LOADERS)}")
    try:
        if settings.file.stat().st_size > FILE_BYTES_MAX:
            raise SourceFailed(f"{settings.file}: larger than {FILE_BYTES_MAX} bytes")
        heads, columns = load(settings.file)
        return _build_recording(settings, heads, columns)
    except OSError as error:
        raise SourceFailed(f"{settings.file}: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, ImportError, zipfile.BadZipFile) as error:
        raise SourceFailed(f"{settings.file}: {error}") from error


def _build_recording(settings: ReplaySettings, heads: list[str], columns: npt.NDArray[np.float64]) -> Recording:
    if not 1 <= len(columns) <= ROWS_MAX:
        raise ValueError(f"{len(columns)} rows, 1 to {ROWS_MAX} can be played")
    named = [_split_head(head) for head in heads]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    if TIME in names:
        place = names.index(TIME)
        time_s = columns[:, place] - columns[0, place]
        columns = np.delete(columns, place, axis=1)
        del named[place]
    else:
        time_s = np.arange(len(columns)) / settings.rate_hz
    if not 1 <= len(named) <= CHANNELS_MAX:
        raise ValueError(f"{len(named)} channels, 1 to {CHANNELS_MAX} can be played")
    if not np.isfinite(time_s).all() or (np.diff(time_s) < 0).any():
        raise ValueError("the times go backwards, or are not numbers")
    return Recording(time_s, columns, tuple(name for name, _ in named), tuple(unit for _, unit in named))


def _split_head(head: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(.*?)\s*(?:[\[(](.*)[\])])?\s*", head)
    return (clean_name(match[1]), (match[2] or "")[:UNIT_CHARACTERS_MAX]) if match else (clean_name(head), "")


def _load_csv(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        heads = split_columns(next(lines, "").strip())
        rows: list[list[float]] = []
        for number, line in enumerate(lines, start=2):
            if not line.strip():
                continue
            fields = split_columns(line.strip())
            if len(fields) != len(heads) or len(rows) == ROWS_MAX:
                raise ValueError(f"line {number}: {len(fields)} columns, the header has {len(heads)}")
            rows.append([NO_VALUE if (n := to_number(text)) is None else n for text in fields])
    return heads, np.array(rows, np.float64).reshape(len(rows), len(heads))


def _load_npz(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    with np.load(path, allow_pickle=False) as arrays:  # a stranger's file must not run code
        values = np.asarray(arrays["values"], np.float64)
        channels = [str(name) for name in arrays["channels"]]
        units = [str(unit) for unit in arrays["units"]] if "units" in arrays else [""] * len(channels)
        time_s = np.asarray(arrays["time_s"], np.float64) if "time_s" in arrays else None
    if values.ndim != 2 or values.shape[1] != len(channels) or len(units) != len(channels):
        raise ValueError(f"values {values.shape} do not fit {len(channels)} channels and {len(units)} units")
    heads = [f"{name} [{unit}]" for name, unit in zip(channels, units, strict=True)]
    if time_s is None:
        return heads, values
    if time_s.shape != values.shape[:1]:
        raise ValueError(f"time_s has shape {time_s.shape}, values {values.shape}")
    return [TIME, *heads], np.column_stack((time_s, values))


def _load_parquet(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    from pyarrow import parquet  # the extra "parquet"

    table: Any = parquet.read_table(path)
    columns = [np.asarray(column.to_numpy(), np.float64) for column in table.columns]
    return list(table.column_names), np.column_stack(columns)


LOADERS = {".csv": _load_csv, ".npz": _load_npz, ".parquet": _load_parquet}


async def read_replay(settings: ReplaySettings, context: SourceContext) -> AsyncGenerator[Samples, None]:
    """Yield the recording's samples when they are due. Raises SourceFailed for a file that cannot be played."""
    try:
        recording = await asyncio.to_thread(load_recording, settings)
    except InvalidReading as error:
        raise SourceFailed(f"{settings.file}: {error}") from error
    loop = asyncio.get_running_loop()
    units = dict(zip(recording.channels, recording.units, strict=True))
    # after all earlier runs, so that none overlap; a second apart, so that no window spans two
    origin_us = max(context.clock.read_us(), context.resume_us + 1_000_000)
    started_s = loop.time()
    length_s = float(recording.time_s[-1]) + _get_period_s(recording)
    played_s = 0.0
    while True:
        first = 0
        while first < len(recording.time_s):
            due_s = (loop.time() - started_s) * settings.speed - played_s
            last = min(int(np.searchsorted(recording.time_s, due_s, side="right")), first + BATCH_MAX)
            if last <= first:
                await asyncio.sleep(max(0.001, (recording.time_s[first] - due_s) / settings.speed))
                continue
            yield [
                Sample(
                    origin_us + round((played_s + float(recording.time_s[row])) * 1e6),
                    context.name,
                    dict(zip(recording.channels, recording.values[row].tolist(), strict=True)),
                    units,
                )
                for row in range(first, last)
            ]
            first = last
            await asyncio.sleep(0)  # at a high speed something is always due: give other tasks a turn
        if not settings.loop:
            return
        played_s += length_s


def _get_period_s(recording: Recording) -> float:
    """Return the median step, which also separates the end from the next start."""
    steps = np.diff(recording.time_s)
    return float(np.median(steps)) if len(steps) else 1.0


def check_replay(settings: ReplaySettings) -> list[str]:
    suffix = settings.file.suffix.lower()
    if suffix not in LOADERS:
        return [f"file: {settings.file.name} is not one of {', '.join(LOADERS)}"]
    if not settings.file.is_file():
        return [f"file: {settings.file}: No such file or directory"]
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        return ["file: pyarrow is not installed: pip install 'flchain[parquet]'"]
    return []


def get_replay_channels(settings: ReplaySettings) -> tuple[str, ...] | None:
    """Return None: only the file knows."""
    return None


REPLAY = SensorKind("replay", "a recording, as if it were live", read_replay, check_replay, get_replay_channels)
