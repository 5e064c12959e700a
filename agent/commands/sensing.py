"""`flchain-agent data` and `sense`: what the sensors have delivered, and whether they deliver anything now."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING

from agent.edge.data.data_card import build_card, format_card
from agent.edge.data.dataset import find_model_problems, load_dataset
from agent.edge.data.sensing import SourceTask
from agent.edge.data.sensor_checks import find_sensor_problems
from agent.edge.sensors.source import Clock
from agent.sensing.samples import Sample
from agent.settings import AgentSettings
from flchain.base.errors import ConfigError, FlchainError
from flchain_edge.model.model_files import NoWindows
from flchain_edge.process.chain_files import load_genesis, load_model_file
from flchain_edge.process.command import NodeAction

if TYPE_CHECKING:
    from flchain_edge.model.tflite import TfliteModel


def find_data_problems(settings: AgentSettings, model: TfliteModel | None) -> tuple[str, ...]:
    """Return what `check` reports of sensors and data; too few windows are not a fault of the configuration."""
    problems = list(find_sensor_problems(settings.sensors, settings.dataset, settings.holdout_percent))
    if settings.dataset.channels:
        if model is not None:
            problems += find_model_problems(settings.dataset, model.input_shape, model.classes)
        return tuple(problems)
    if model is None:
        missing = [] if settings.examples.is_file() else [f"data {settings.examples}: No such file or directory"]
        return (*problems, *missing)
    try:
        load_dataset(settings, model.input_shape, model.classes)
    except NoWindows:
        pass
    except ConfigError as error:
        problems += error.problems
    return tuple(problems)


def run_data(settings: AgentSettings, arguments: argparse.Namespace) -> None:
    """Print the dataset card. Raises ConfigError if there are no samples yet."""
    from flchain_edge.model.tflite import TfliteModel  # imported here: a running agent never holds the runtime itself

    model = None
    try:
        model = TfliteModel(load_model_file(settings.model, load_genesis(settings.genesis)))
    except ConfigError as error:  # the card also serves a board that belongs to no chain yet
        note = f"(no model to compare with: {error.problems[0]})"
    card = build_card(settings, model.input_shape if model else None, model.classes if model else None)
    if arguments.json:
        print(json.dumps(card, indent=2))
        return
    print(format_card(card))
    if model is None and settings.dataset.channels:
        print(note)


def run_sense(settings: AgentSettings, arguments: argparse.Namespace) -> None:
    """Run the sources and print their samples; store nothing. Raises SilentSource if a source gave none."""
    if arguments.seconds <= 0:
        raise ConfigError((f"--seconds: must be above 0, is {arguments.seconds:g}",))
    if problems := find_sensor_problems(settings.sensors, settings.dataset, settings.holdout_percent):
        raise ConfigError(problems)
    if not settings.sensors:
        raise ConfigError(("[[sensors]]: none is configured; see: flchain-agent example",))
    asyncio.run(_sense(settings, arguments.seconds, arguments.json))


class SilentSource(FlchainError):
    """A source gave no sample while it was tried."""


async def _sense(settings: AgentSettings, seconds: float, as_json: bool) -> None:
    newest: dict[str, dict[str, float]] = {}
    units: dict[str, str] = {}

    def put(sample: Sample) -> None:
        newest.setdefault(sample.source, {}).update(sample.values)
        units.update({f"{sample.source}.{name}": unit for name, unit in sample.units.items()})

    sources = [SourceTask(sensor, put, Clock()) for sensor in settings.sensors]
    tasks = [asyncio.create_task(source.run()) for source in sources]
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    try:
        while (left_s := end_s - loop.time()) > 0 and not all(task.done() for task in tasks):
            await asyncio.sleep(min(1.0, left_s))
            for source in sources:
                source.health.dropped = source.context.dropped
                print(_format_sensed(source, newest.get(source.health.name, {}), units, as_json), flush=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    silent = [
        f"{s.health.name} ({s.health.detail or s.context.last_fault or s.health.state})"
        for s in sources
        if not s.health.samples
    ]
    if silent:
        raise SilentSource(f"nothing came from {', '.join(silent)}")


def _format_sensed(source: SourceTask, values: dict[str, float], units: dict[str, str], as_json: bool) -> str:
    health = source.health
    if as_json:
        fields = {"source": health.name, "state": health.state, "samples": health.samples, "dropped": health.dropped}
        return json.dumps({**fields, "values": values, "detail": health.detail or source.context.last_fault})
    shown = "  ".join(f"{name} {value:.6g} {units[f'{health.name}.{name}']}".rstrip() for name, value in values.items())
    fault = health.detail or source.context.last_fault
    return f"{health.name:<12}{health.state:<9}{health.samples:>7} samples  {shown}" + (f"  [{fault}]" if fault else "")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _add_sense_arguments(parser: argparse.ArgumentParser) -> None:
    _add_json(parser)
    parser.add_argument("--seconds", type=float, default=10.0, metavar="N", help="how many seconds (default: 10)")


SENSING_ACTIONS = (
    NodeAction(
        "data",
        "print the dataset card: samples, rates, gaps, sources, and usable windows",
        run_data,
        _add_json,
    ),
    NodeAction(
        "sense",
        "try the sensors and print their samples; stores and publishes nothing",
        run_sense,
        _add_sense_arguments,
    ),
)
