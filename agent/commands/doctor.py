"""`flchain-agent doctor`: everything a device needs, each with what to do. Looks, and changes nothing.

It may run beside the agent, which then is asked by its status for what only it can know, and is not disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from agent.commands.status_view import build_view
from agent.edge.cpu.control import count_cores
from agent.edge.cpu.probe import probe
from agent.edge.cpu.values import CpuBoard
from agent.edge.data.data_card import build_card
from agent.edge.data.sensor_checks import find_sensor_problems
from agent.edge.power.board import Board
from agent.edge.store.store import STORE_FILE
from agent.settings import UNIT, AgentSettings
from flchain.base.crypto import compute_address
from flchain.base.errors import ConfigError
from flchain.ledger.genesis import Genesis
from flchain.wire.envelope import seal
from flchain.wire.messages import Ask, Want
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.checks.broker import BROKERS_TIMEOUT_S, LOGIN_CHECK_TIMEOUT_S, check_endpoints, check_login
from flchain_edge.checks.checkup import Check, Finding, fail, ok, run_checkup, warn
from flchain_edge.checks.clock import check_clock
from flchain_edge.checks.keys import check_key, check_membership, check_tls_files, open_identity
from flchain_edge.checks.machine import check_disk, check_memory, check_unit
from flchain_edge.formatting import format_span
from flchain_edge.model.model_files import load_examples
from flchain_edge.mqtt.settings import with_client_id
from flchain_edge.process.chain_files import load_genesis, load_model_file

MODEL_TIMEOUT_S = 150.0
"""A slow board tries a model for up to two minutes."""
DATA_TIMEOUT_S = 30.0
RECEIPT_OLD_S = 3_600.0
OUTBOX_MANY = 8


def run_doctor(settings: AgentSettings, arguments: argparse.Namespace) -> int:
    """Print what was found; the exit code."""
    return run_checkup(list_checks(settings), arguments)


def list_checks(settings: AgentSettings) -> tuple[Check, ...]:
    """In the order in which a fault explains those below it."""
    view = build_view(settings)
    sysfs, proc, data_dir = settings.power.sysfs_root, settings.power.proc_root, Path(settings.data_dir)
    own = open_identity(settings)
    return (
        Check("agent", lambda: check_agent(view)),
        Check("service", lambda: check_unit(UNIT)),
        Check("clock", lambda: check_clock(_get_certified_ms(view), _get_trusting_s(settings), sysfs)),
        Check("disk", lambda: check_disk(data_dir, sysfs)),
        Check("database", lambda: check_database(data_dir / STORE_FILE), DATA_TIMEOUT_S),
        Check("memory", lambda: check_memory(proc)),
        Check("board", lambda: check_board(settings)),
        Check("cpu", lambda: check_cpu(settings, view)),
        Check("key", lambda: check_key(settings, "flchain-agent")),
        Check("chain", lambda: check_membership(settings, "device", _get_devices)),
        Check("tls", lambda: check_tls_files(settings.mqtt, own, settings.enrolment.endpoint is not None)),
        Check("broker", lambda: check_endpoints(settings.mqtt), BROKERS_TIMEOUT_S),
        Check("publish", lambda: check_publish(settings, view), LOGIN_CHECK_TIMEOUT_S),
        Check("model", lambda: check_model(settings), MODEL_TIMEOUT_S),
        Check("sensors", lambda: check_sensors(settings, view)),
        Check("data", lambda: check_data(settings), DATA_TIMEOUT_S),
    )


def _get_devices(genesis: Genesis) -> Iterable[bytes]:
    return [entry.public_key for entry in genesis.devices]


def _get_certified_ms(view: dict[str, Any]) -> int | None:
    position, now = view["history"].get("position"), view["now"]
    known = [position["time_ms"]] if position else []
    if now is not None and now["chain_time_ms"] is not None:
        known.append(now["chain_time_ms"])
    return max(known, default=None)


def _get_trusting_s(settings: AgentSettings) -> int:
    return load_genesis(settings.genesis).params.trusting_s


def check_agent(view: dict[str, Any]) -> Iterator[Finding]:
    """Whether it runs, and what it says itself."""
    node, now = view["node"], view["now"]
    if node["state"] != "running" or now is None:
        yield warn("the agent does not run", "flchain-agent status says since when; systemctl start flchain-agent")
        return
    yield ok(f"runs for {format_span(now['up_s'])}, round {now['round']}, {now['phase']}")
    if now["is_mismatch"]:
        yield fail(
            "it computed another model than the chain, and takes part no more",
            "another model file or another build than the miners'? flchain-agent logs --level error; then resync",
        )
    if now["is_expired"]:
        yield fail(
            "it was away for too long, or its clock is ahead", "set the clock, or `checkpoint` (docs/running.md)"
        )
    if not now["is_synced"]:
        yield warn(
            "its model is behind the chain's; it has asked for the newest", "wait a minute; then see: broker, publish"
        )
    if len(now["outbox"]) >= OUTBOX_MANY:
        yield warn(f"{len(now['outbox'])} messages wait for a receipt", "see: broker, publish")


def check_database(path: Path) -> Iterator[Finding]:
    """Its pages, read only."""
    if not path.is_file():
        yield ok(f"{path} is not there yet: the first run makes it")
        return
    try:
        uri = f"file:{quote(str(path.resolve()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as db:
            fault = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        fault = str(error)
    if fault == "ok":
        yield ok(f"{path} checks")
    else:
        yield fail(
            f"{path}: {fault}", "stop the agent, then: flchain-agent resync; the model comes anew from the miners"
        )


def check_board(settings: AgentSettings) -> Iterator[Finding]:
    """Temperature, throttling, supply, battery: now, and against the scheduler's limits."""
    board, limits = Board(settings.power), settings.scheduler
    reading = asyncio.run(board.read())
    if reading.temperature_c is None:
        yield warn(
            f"no temperature can be read: at most {limits.unmeasured_share_max:.0%} of the CPU is used"
            if reading.is_throttled is None
            else "no temperature can be read: the firmware's throttling alone counts",
            "docs/power.md says what each board has; in a virtual machine this is as it is",
        )
    elif reading.temperature_c >= limits.temperature_limit_c:
        yield warn(f"{reading.temperature_c:.0f} C: all rests until it cools down", "a heat sink, a fan, shade")
    else:
        yield ok(f"{reading.temperature_c:.0f} C, the limit is {limits.temperature_limit_c:.0f} C")
    if reading.is_undervolted:
        yield warn("the supply sags below what the board needs", "a better supply, a shorter and thicker cable")
    if reading.is_throttled:
        yield warn("the firmware holds the clock down", "heat or supply: see above")
    if reading.battery_fraction is not None and reading.battery_fraction < limits.battery_floor:
        yield warn(
            f"the battery is at {reading.battery_fraction:.0%}: nothing is computed", "wait for the sun, or charge it"
        )


def check_cpu(settings: AgentSettings, view: dict[str, Any]) -> Iterator[Finding]:
    """What enforces shares in the running agent; else what would for a process like this one."""
    if view["node"]["state"] == "running":
        used = view["now"]["cpu"]["mechanism"]
        advice = "run it as the unit in systemd/, which delegates a control group (docs/cpu.md)"
        yield (
            ok(f"shares are enforced by {used}")
            if used.startswith("cgroup")
            else warn(f"shares by {used} only", advice)
        )
        return
    found = probe(CpuBoard(count_cores()))
    best = next(name for name, why in found.items() if not why)
    others = "; ".join(f"{name}: {why}" for name, why in found.items() if why)
    yield ok(f"for a process started from here: {best}" + (f" ({others})" if others else ""))
    wanted = settings.cpu.mechanism
    if found.get(wanted):
        yield warn(f"[cpu] mechanism = {wanted} would not work for a process started from here", f"{found[wanted]}")


def check_publish(settings: AgentSettings, view: dict[str, Any]) -> Iterator[Finding]:
    """Whether this device is let in and heard: by its running agent's receipts, else by a question of its own."""
    if view["node"]["state"] == "running":
        yield from _judge_running_link(view["now"])
        return
    identity = open_identity(settings)
    if identity is None:
        yield fail("without a key nothing can be asked", "see: key")
        return
    genesis = load_genesis(settings.genesis)
    chain = genesis.compute_id()
    topics, me = Topics.of_chain(chain), identity.address
    position = view["history"].get("position")
    height, model_round = (position["height"] + 1, position["round"] - 1) if position else (1, 0)
    questions = tuple(
        (
            topics.device_up(me),
            encode_packet(
                PacketType.MESSAGE,
                seal(Ask(height, compute_address(entry.public_key), Want.HEAD, model_round), chain, identity),
            ),
        )
        for entry in genesis.validators
    )
    yield from check_login(with_client_id(settings.mqtt, me.hex()), topics.answers_to(me), questions)


def _judge_running_link(now: dict[str, Any]) -> Iterator[Finding]:
    link, receipt_s = now["link"], now["receipt_age_s"]
    if not link["is_connected"]:
        why = link["trouble"] or "no answer yet"
        yield fail(f"the agent has no broker for {format_span(link['for_s'])}: {why}", "see: broker, tls")
    elif receipt_s is None:
        advice = "normal within its first round; later: the broker's rules may keep its topic, or no miner runs"
        yield (warn if now["up_s"] > RECEIPT_OLD_S else _quietly)(
            "no miner has receipted a message of this life yet", advice
        )
    elif receipt_s > RECEIPT_OLD_S:
        yield warn(
            f"the last receipt of a miner is {format_span(receipt_s)} old", "do rounds go on? flchain-agent logs"
        )
    else:
        yield ok(f"a miner's receipt {format_span(receipt_s)} ago: it may publish, and is heard")


def _quietly(reason: str, advice: str) -> Finding:
    return ok(f"{reason} ({advice})")


def check_model(settings: AgentSettings) -> Iterator[Finding]:
    """The model file is the chain's, and this machine's runtime loads it and trains with it, in a child process."""
    from flchain_edge.model.tflite import RUNTIME_NAME, TfliteModel, probe_model, read_runtime_version

    data = load_model_file(settings.model, load_genesis(settings.genesis))
    probe_model(data)
    model = TfliteModel(data)
    runtime = f"{RUNTIME_NAME} {read_runtime_version()}, numpy {np.__version__}"
    yield ok(f"{model.parameters_count} parameters; trains here with {runtime}")


def check_sensors(settings: AgentSettings, view: dict[str, Any]) -> Iterator[Finding]:
    """The configuration, and what the running sources say."""
    problems = find_sensor_problems(settings.sensors, settings.dataset, settings.holdout_percent)
    yield from (fail(problem, "docs/sensors.md") for problem in problems)
    if not settings.sensors:
        yield ok("none is configured: the file `examples` is what is learned from")
    elif view["node"]["state"] != "running":
        yield ok(f"{len(settings.sensors)} configured; try them with: flchain-agent sense")
    for sensor in view["now"]["sensors"] if view["node"]["state"] == "running" else ():
        text = f"{sensor['name']} is {sensor['state']}, {sensor['samples']} samples"
        if sensor["state"] in ("running", "ended"):
            yield ok(text)
        else:
            yield warn(
                f"{text}: {sensor['detail'] or 'nothing yet'}",
                "flchain-agent sense, without the agent, shows what comes",
            )


def check_data(settings: AgentSettings) -> Iterator[Finding]:
    """Whether there is enough to train on."""
    from flchain_edge.model.tflite import TfliteModel

    model = TfliteModel(load_model_file(settings.model, load_genesis(settings.genesis)))
    if not settings.dataset.channels:
        examples = load_examples(settings.examples, model)
        yield ok(f"{len(examples)} examples of {len(np.unique(examples.y))} classes in {settings.examples}")
        return
    try:
        card = build_card(settings, model.input_shape, model.classes)
    except ConfigError as error:  # no ring yet
        yield warn(error.problems[0], "run the agent: sensors fill it; flchain-agent data shows how far it is")
        return
    dataset = card["dataset"]
    yield from (fail(problem, "docs/sensors.md") for problem in dataset["problems"])
    text = f"{dataset['windows']} windows usable now, {dataset['windows_min']} are needed"
    if not dataset["is_enough"]:
        yield warn(text, "flchain-agent data shows why: gaps, labels, age")
    elif sum(count > 0 for count in dataset["by_class"].values()) < 2:
        yield warn(f"{text}; all of one class", "is the label's source alive?")
    else:
        yield ok(text)
