"""`flchain emulate`: a sensor for people without hardware; see docs/sensors.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from agent.sensing.home_assistant import PREFIX
from flchain.base.errors import ConfigError
from flchain_edge.process.command_line import CommandParser, add_command, read_number, read_whole_number
from tools.emulators.examples import write_examples
from tools.emulators.iio_tree import run_iio
from tools.emulators.mqtt_sensors import Target, run_watch, run_weather
from tools.emulators.receiver import run_receiver
from tools.emulators.uav import run_uav

WEARERS = range(10)
"""The subjects of the recordings (tools/network/datasets.py)."""


def _positive(text: str) -> float:
    number = read_number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, is {text}")
    return number


def _not_negative(text: str) -> float:
    number = read_number(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, is {text}")
    return number


def _port(text: str) -> int:
    return read_whole_number(text, 1, 65535)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all emulators."""
    parser = CommandParser(
        prog="flchain emulate",
        description="Emulate a sensor. Ctrl-C ends it. docs/sensors.md has the settings of an agent for each.",
        epilog="examples:\n"
        "  flchain emulate watch --host broker.local --subject 3\n"
        "  flchain emulate iio --root /tmp/iio --seconds 60\n"
        "  flchain emulate nmea --link /tmp/gps\n"
        "  flchain emulate examples --subject 8 9 --out examples.npz",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="SENSOR")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        kind = add_command(kinds, name, text)
        kind.add_argument(
            "--seconds", type=_not_negative, default=0.0, metavar="N", help="how long (default: until Ctrl-C)"
        )
        kind.add_argument("--seed", type=int, default=1, metavar="N", help="decides order and noise (default: 1)")
        return kind

    _add_watch(add("watch", "a smart watch over MQTT: real recordings at 50 Hz, labelled with the exercise"))
    _add_iio(add("iio", "an MPU6050 as Linux shows it: a folder of files and a buffer, moved as the watch was"))
    _add_weather(add("weather", "a weather station over MQTT that announces itself to Home Assistant's discovery"))
    _add_uav(add("uav", "a UAV over MAVLink and UDP: climbs, circles, hovers, lands"))
    _add_nmea(add("nmea", "a satellite receiver on a serial port (a pseudo-terminal): NMEA 0183 along the UAV's path"))
    examples = add_command(kinds, "examples", "no sensor: writes other wearers' data to a file, to score on")
    examples.add_argument(
        "--subject", type=int, choices=WEARERS, nargs="+", default=[8, 9], metavar="0..9", help="who (default: 8 9)"
    )
    examples.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .npz file to write")
    return parser


def _add_watch(kind: argparse.ArgumentParser) -> None:
    _add_broker_options(kind, "watch")
    _add_wearer_options(kind)
    text = "how many times faster; the agent then needs rate_hz = 50 times that (default: 1)"
    kind.add_argument("--speed", type=_positive, default=1.0, metavar="X", help=text)


def _add_iio(kind: argparse.ArgumentParser) -> None:
    _add_wearer_options(kind)
    kind.add_argument("--root", type=Path, required=True, metavar="DIR", help="root = DIR/devices, dev_root = DIR/dev")


def _add_weather(kind: argparse.ArgumentParser) -> None:
    _add_broker_options(kind, "weather")
    kind.add_argument("--rate", type=_positive, default=1.0, metavar="HZ", help="readings per second (default: 1)")
    kind.add_argument("--discovery", default=PREFIX, metavar="PREFIX", help=f"of Home Assistant (default: {PREFIX})")


def _add_uav(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--host", default="127.0.0.1", help="where to send (default: 127.0.0.1)")
    kind.add_argument("--port", type=_port, default=14550, help="its UDP port (default: 14550)")
    kind.add_argument(
        "--system", type=int, choices=range(1, 256), default=1, metavar="ID", help="the vehicle's id (default: 1)"
    )


def _add_nmea(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("--link", type=Path, metavar="PATH", help="make a link to the port (default: print its name)")
    kind.add_argument("--rate", type=_positive, default=1.0, metavar="HZ", help="positions per second (default: 1)")


def _add_broker_options(kind: argparse.ArgumentParser, prefix: str) -> None:
    kind.add_argument("--host", default="127.0.0.1", help="the broker (default: 127.0.0.1)")
    kind.add_argument("--port", type=_port, default=1883, help="its port (default: 1883)")
    kind.add_argument("--prefix", default=prefix, help=f"topics are PREFIX/... (default: {prefix})")


def _add_wearer_options(kind: argparse.ArgumentParser) -> None:
    text = "whose recordings (default: 0)"
    kind.add_argument("--subject", type=int, choices=WEARERS, default=0, metavar="0..9", help=text)
    text = "cut each exercise to S seconds (default: whole)"
    kind.add_argument("--recording-s", type=_not_negative, default=0.0, metavar="S", help=text)


def build_run(options: argparse.Namespace) -> Coroutine[Any, Any, int]:
    """Return the chosen emulator, not started yet."""
    seconds, seed = options.seconds, options.seed
    if options.kind == "watch":
        target = Target(options.host, options.port, options.prefix)
        return run_watch(
            target,
            options.subject,
            seconds=seconds,
            speed=options.speed,
            seed=seed,
            recording_s=options.recording_s,
        )
    if options.kind == "weather":
        target = Target(options.host, options.port, options.prefix)
        return run_weather(target, seconds=seconds, rate_hz=options.rate, seed=seed, discovery=options.discovery)
    if options.kind == "iio":
        return run_iio(options.root, options.subject, seconds=seconds, seed=seed, recording_s=options.recording_s)
    if options.kind == "uav":
        return run_uav(options.host, options.port, seconds=seconds, system=options.system)
    return run_receiver(options.link, seconds=seconds, rate_hz=options.rate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `flchain emulate`. Raises ConfigError."""
    options = build_parser().parse_args(argv)
    try:
        if options.kind == "examples":
            print(f"{options.out}: {write_examples(tuple(options.subject), options.out)} examples")
            return 0
        with contextlib.suppress(KeyboardInterrupt):
            print(f"{options.kind}: {asyncio.run(build_run(options))} readings sent")
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ConfigError((f"emulate {options.kind}: {where}{error.strerror or error}",)) from error
    return 0
