"""The dataset card: what the sensors have delivered, their state, and what a round could use of it now."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import numpy as np

from agent.edge.data.dataset import DataSettings, build_windows, find_model_problems
from agent.edge.data.ring_reader import (
    SAMPLES_READ_MAX,
    RingContent,
    list_channels,
    open_ring,
    read_boots,
    read_channels,
    read_rows,
)
from agent.edge.data.settings import RING_FILE
from agent.sensing.resampling import Series
from agent.sensing.selection import HOLD_OUT, TRAIN
from agent.sensing.timeline import Boot, compute_age_us

Card = dict[str, Any]
TOTALS = "SELECT COUNT(*) AS blocks, COALESCE(SUM(samples), 0) AS samples, COALESCE(SUM(bytes), 0) AS bytes FROM blocks"


def build_card(settings: DataSettings, input_shape: tuple[int, ...] | None, classes: int | None) -> Card:
    """Return the card as JSON values. Without a model (None) it has as many classes as occur.

    Raises ConfigError, LedgerCorrupt.
    """
    started_s = time.monotonic()
    dataset = settings.dataset
    with open_ring(settings.data_dir / RING_FILE) as db:
        boots = read_boots(db)
        names = list_channels(db)
        content = read_channels(db, names, with_nan=dataset.get_label_channels())
        totals = read_rows(db, TOTALS)[0]
        sources = read_rows(db, "SELECT * FROM sources ORDER BY name")
        notes = read_rows(db, "SELECT boot, time_us, kind, detail FROM notes ORDER BY id DESC LIMIT 20")
    for row in (*sources, *notes):
        _date_row(row, boots)
    card: Card = {
        "ring": {**totals, "path": str(settings.data_dir / RING_FILE), "boots": len(boots)},
        "clock_trusted": bool(boots and boots[-1].is_trusted) or settings.trust_clock,
        "channels": {name: _describe_channel(name, content, boots, dataset.gap_max_s) for name in names},
        "sources": sources,
        "notes": notes,
        "damaged_blocks": content.damaged_blocks,
    }
    card["dataset"] = _describe_dataset(settings, content, input_shape, classes)
    card["took_ms"] = round((time.monotonic() - started_s) * 1000)
    return card


def _date_row(row: Card, boots: list[Boot]) -> None:
    """Replace a boot and an instant by an age."""
    moment_us = row.pop("seen_us") if "seen_us" in row else row.pop("time_us")
    number = row.pop("boot")
    boot = next((boot for boot in boots if boot.number == number), None)
    row["age_s"] = round(compute_age_us(boots, boot, moment_us) / 1e6, 1) if boot and moment_us else None


def _describe_channel(name: str, content: RingContent, boots: list[Boot], gap_max_s: float) -> Card:
    """Return rates, gaps and means of the newest SAMPLES_READ_MAX samples."""
    pieces: list[tuple[int, Series]] = [
        (n, found[name]) for n, found in sorted(content.series.items()) if name in found
    ]
    pieces = [(number, series) for number, series in pieces if len(series.times_us)]
    if not pieces:
        return {"unit": content.units.get(name, ""), "samples": 0}
    values = np.concatenate([series.values for _, series in pieces])
    values = values[np.isfinite(values)]
    steps_s = np.concatenate([np.diff(series.times_us) for _, series in pieces]) / 1e6
    gaps = steps_s[steps_s > gap_max_s]
    newest, boot = pieces[-1][1], content.boots.get(pieces[-1][0])
    step_s = float(np.median(steps_s)) if len(steps_s) else 0.0
    return {
        "unit": content.units.get(name, ""),
        "samples": len(values),
        "rate_hz": round(1 / step_s, 3) if step_s > 0 else None,
        "mean": float(values.mean()) if len(values) else None,
        "std": float(values.std()) if len(values) else None,
        "min": float(values.min()) if len(values) else None,
        "max": float(values.max()) if len(values) else None,
        "gaps": len(gaps),
        "gaps_s": round(float(gaps.sum()), 3),
        "newest_age_s": round(compute_age_us(boots, boot, int(newest.times_us[-1])) / 1e6, 1) if boot else None,
        "newest": _to_date(boot, int(newest.times_us[-1])) if boot else None,
    }


def _to_date(boot: Boot, time_us: int) -> str | None:
    """Return ISO 8601; None if the wall clock was beyond the range of dates."""
    try:
        return datetime.fromtimestamp(boot.to_wall(time_us) / 1e6, timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None


def _describe_dataset(
    settings: DataSettings, content: RingContent, input_shape: tuple[int, ...] | None, classes: int | None
) -> Card | None:
    """Return the windows by class, or None if [dataset] names no channels."""
    dataset = settings.dataset
    if not dataset.channels:
        return None
    known = classes if classes is not None else 256
    train = build_windows(settings, content, known, part=TRAIN)
    held = build_windows(settings, content, known, part=HOLD_OUT)
    largest = int(max((*train.y, *held.y), default=-1)) + 1
    shown = range(classes if classes is not None else largest)
    return {
        "example_shape": [dataset.window, len(dataset.channels)],
        "problems": list(find_model_problems(dataset, input_shape, known)) if input_shape is not None else [],
        "windows": len(train.y),
        "is_enough": len(train.y) >= dataset.windows_min,
        "windows_min": dataset.windows_min,
        "by_class": {str(label): int((train.y == label).sum()) for label in shown},
        "holdout_windows": len(held.y),
        "holdout_by_class": {str(label): int((held.y == label).sum()) for label in shown},
        "left_out": train.counts,
    }


def format_card(card: Card) -> str:
    """Return the card as text for people."""
    ring = card["ring"]
    clock = "set by a time server, or trusted" if card["clock_trusted"] else "not set by a time server"
    size = f"{ring['bytes'] / 1e6:.1f} MB in {ring['blocks']} blocks, {ring['boots']} boots"
    lines = [f"ring      {ring['path']}", f"          {ring['samples']} samples, {size}", f"clock     {clock}", ""]
    lines += [*_format_sources(card["sources"]), "", *_format_channels(card["channels"]), ""]
    lines += _format_dataset(card["dataset"])
    if card["notes"]:
        lines += ["", "what happened, newest first"]
        lines += [f"  {_show(note['age_s'], '.0f')} s ago  {note['kind']}: {note['detail']}" for note in card["notes"]]
    return "\n".join(lines)


def _format_sources(sources: list[Card]) -> list[str]:
    lines = [f"{'source':<16}{'kind':<9}{'state':<10}{'samples':>9}{'dropped':>9}{'failures':>9}{'age s':>9}"]
    for source in sources:
        numbers = "".join(f"{source[key]:>9}" for key in ("samples", "dropped", "failures"))
        head = f"{source['name']:<16}{source['kind']:<9}{source['state']:<10}{numbers}"
        lines.append(f"{head}{_show(source['age_s'], '.0f'):>9}  {source['detail']}".rstrip())
    return lines


def _format_channels(channels: dict[str, Card]) -> list[str]:
    head = (
        f"{'channel':<24}{'unit':<7}{'samples':>8}{'Hz':>8}{'mean':>11}{'std':>10}{'gaps':>6}{'gaps s':>9}{'age s':>8}"
    )
    lines = [head]
    for name, channel in channels.items():
        line = f"{name:<24}{channel['unit']:<7}{channel['samples']:>8}"
        if channel["samples"]:
            line += f"{_show(channel['rate_hz'], '.5g'):>8}{_show(channel['mean'], '.4g'):>11}"
            line += f"{_show(channel['std'], '.3g'):>10}{channel['gaps']:>6}{channel['gaps_s']:>9.1f}"
            line += f"{_show(channel['newest_age_s'], '.0f'):>8}"
        lines.append(line)
    return [*lines, f"(of at most {SAMPLES_READ_MAX} newest samples of each stream)"]


def _format_dataset(dataset: Card | None) -> list[str]:
    if dataset is None:
        return ["dataset   the file `examples`: [dataset] names no channels"]
    enough = "enough for a round" if dataset["is_enough"] else f"too few: windows_min is {dataset['windows_min']}"
    total = max(1, dataset["windows"])
    lines = [f"dataset   {dataset['windows']} windows of {tuple(dataset['example_shape'])} to train on: {enough}"]
    lines += [f"          PROBLEM {problem}" for problem in dataset["problems"]]
    for label, count in dataset["by_class"].items():
        held = dataset["holdout_by_class"][label]
        bar = "#" * round(30 * count / total)
        lines.append(f"  class {label:>3} {count:>7} {count / total:>5.0%}  {bar:<30} {held:>6} held out")
    left = ", ".join(f"{name} {count}" for name, count in dataset["left_out"].items() if count and name != "cut")
    lines.append(f"          {dataset['left_out']['cut']} windows were cut" + (f"; not used: {left}" if left else ""))
    return lines


def _show(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
