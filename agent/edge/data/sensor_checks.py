"""Find all problems of [[sensors]] and [dataset] at once, before any sensor is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agent.edge.data.settings import DatasetSettings, find_dataset_problems
from agent.edge.sensors import SENSORS, SensorSettings
from agent.sensing.samples import split_channel


def find_sensor_problems(
    sensors: Sequence[SensorSettings], dataset: DatasetSettings, holdout_percent: int = 0
) -> tuple[str, ...]:
    """Return all problems of [[sensors]] and [dataset] that can be found before any sensor is opened."""
    problems: list[str] = []
    for number, sensor in enumerate(sensors, start=1):
        found = SENSORS[sensor.kind].check(sensor.get_section())
        problems += [f"[sensors #{number} {sensor.name}] {sensor.kind}: {problem}" for problem in found]
    names = Counter(sensor.name for sensor in sensors)
    problems += [f"[sensors] name: {name} occurs {count} times" for name, count in names.items() if count > 1]
    problems += find_dataset_problems(dataset, holdout_percent)
    return (*problems, *_find_unknown_channels(dataset, sensors))


def _find_unknown_channels(dataset: DatasetSettings, sensors: Sequence[SensorSettings]) -> list[str]:
    """Return problems of channels that no source will deliver, as far as that is known."""
    problems = []
    by_name = {sensor.name: sensor for sensor in sensors}
    for full in dataset.get_all_channels() if dataset.channels else ():
        try:
            source, channel = split_channel(full)
        except ValueError:
            continue  # reported already
        if source not in by_name:
            problems.append(f"[dataset] {full}: no source {source}; [[sensors]] has: {', '.join(by_name) or 'none'}")
            continue
        sensor = by_name[source]
        given = SENSORS[sensor.kind].get_channels(sensor.get_section())
        if given is not None and channel not in given:
            problems.append(f"[dataset] {full}: {source} has no channel {channel}; it has: {', '.join(given)}")
    return problems
