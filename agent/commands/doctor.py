"""`flchain-agent doctor`: check everything that a device needs, and say what to do. It changes nothing.

It may run beside the agent and does not disturb it: what only the agent knows is read from its status.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from agent.commands.board import check_model_fits, check_profile
from agent.commands.status_view import build_view
from agent.edge.cpu.control import count_cores
from agent.edge.cpu.probe import probe
from agent.edge.cpu.values import CpuBoard
from agent.edge.data.data_card import build_card
from agent.edge.data.sensor_checks import find_sensor_problems
from agent.edge.power.board import Board
from agent.edge.power.files import BoardRoots, read_board_roots
from agent.edge.store.store import STORE_FILE
from agent.settings import UNIT, AgentSettings
from agent.status.values import AgentStatus, StatusView
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
    """Print what was found, and return the exit code."""
    return run_checkup(list_checks(settings), arguments)


def list_checks(settings: AgentSettings) -> tuple[Check, ...]:
    """Return the checks, in the order in which a fault explains those below it."""
    view = build_view(settings)
    roots, data_dir = read_board_roots(), Path(settings.data_dir)
    own = open_identity(settings)
    return (
        Check("agent", lambda: check_agent(view)),
        Check("service", lambda: check_unit(UNIT)),
        Check("clock", lambda: check_clock(_get_certified_ms(view), _get_trusting_s(settings), roots.sysfs)),
        Check("disk", lambda: check_disk(data_dir, roots.sysfs)),
        Check("database", lambda: check_database(data_dir / STORE_FILE), DATA_TIMEOUT_S),
        Check("memory", lambda: itertools.chain(check_memory(roots.proc), check_model_fits(settings, roots))),
        Check("board", lambda: check_profile(settings, roots)),
        Check("heat", lambda: check_heat(settings, roots)),
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


def _get_certified_ms(view: StatusView) -> int | None:
    position, now = view.history.position, view.now
    known = [position.time_ms] if position is not None else []
    if now is not None and now.chain_time_ms is not None:
        known.append(now.chain_time_ms)
    return max(known, default=None)


def _get_trusting_s(settings: AgentSettings) -> int:
    return load_genesis(settings.genesis).params.trusting_s


def check_agent(view: StatusView) -> Iterator[Finding]:
    """Check that the agent runs and takes part."""
    now = view.running
    if now is None:
        yield warn("the agent is not running", "flchain-agent status says since when; systemctl start flchain-agent")
        return
    yield ok(f"running for {format_span(now.up_s)}, round {now.round}, {now.phase}")
    if now.is_mismatch:
        yield fail(
            "it computed another model than the chain, and no longer takes part",
            "has it another model file or build than the miners? flchain-agent logs --level error; then resync",
        )
    if now.is_expired:
        yield fail(
            "it was away for too long, or its clock is ahead", "set the clock, or `checkpoint` (docs/running.md)"
        )
    if not now.is_synced:
        yield warn(
            "its model is older than the chain's; it has asked for the newest",
            "wait a minute; then see: broker, publish",
        )
    if len(now.outbox) >= OUTBOX_MANY:
        yield warn(f"{len(now.outbox)} messages are waiting for a miner's receipt", "see: broker, publish")


def check_database(path: Path) -> Iterator[Finding]:
    """Check the pages of the database, without writing."""
    if not path.is_file():
        yield ok(f"{path} does not exist yet: the first run creates it")
        return
    try:
        uri = f"file:{quote(str(path.resolve()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as db:
            fault = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        fault = str(error)
    if fault == "ok":
        yield ok(f"{path} is intact")
    else:
        yield fail(
            f"{path}: {fault}", "stop the agent, then: flchain-agent resync; it fetches the model from the miners again"
        )


def check_heat(settings: AgentSettings, roots: BoardRoots) -> Iterator[Finding]:
    """Compare temperature, throttling, supply and battery with the scheduler's limits."""
    board, limits = Board(settings.power, roots), settings.scheduler
    reading = asyncio.run(board.read())
    if reading.temperature_c is None:
        yield warn(
            f"the temperature cannot be read: at most {limits.unmeasured_share_max:.0%} of the CPU is used"
            if reading.is_throttled is None
            else "the temperature cannot be read: only the firmware's throttling is heeded",
            "docs/power.md says what each board has; in a virtual machine this is normal",
        )
    elif reading.temperature_c >= limits.temperature_limit_c:
        yield warn(
            f"{reading.temperature_c:.0f} C: training and mining paused until it cools down",
            "add a heat sink, a fan or shade",
        )
    else:
        yield ok(f"{reading.temperature_c:.0f} C, the limit is {limits.temperature_limit_c:.0f} C")
    if reading.is_undervolted:
        yield warn(
            "under-voltage: the supply gives less than the board needs",
            "use a stronger supply, a shorter and thicker cable",
        )
    if reading.is_throttled:
        yield warn("the firmware has lowered the CPU clock", "heat or supply: see above")
    if reading.battery_fraction is not None and reading.battery_fraction < limits.battery_floor:
        yield warn(f"the battery is at {reading.battery_fraction:.0%}: training and mining paused", "charge it")


def check_cpu(settings: AgentSettings, view: StatusView) -> Iterator[Finding]:
    """Say what enforces shares in the running agent; without one, what would for a process like this one."""
    if (now := view.running) is not None:
        used = now.cpu.mechanism
        advice = "run it as the systemd unit, which gives it a control group (docs/cpu.md)"
        yield (
            ok(f"CPU shares are enforced by {used}")
            if used.startswith("cgroup")
            else warn(f"CPU shares are enforced by {used} only", advice)
        )
        return
    found = probe(CpuBoard(count_cores()))
    best = next(name for name, why in found.items() if not why)
    others = "; ".join(f"{name}: {why}" for name, why in found.items() if why)
    yield ok(f"for a process started from here: {best}" + (f" ({others})" if others else ""))
    wanted = settings.cpu.mechanism
    if found.get(wanted):
        yield warn(f"[cpu] mechanism = {wanted} would not work for a process started from here", f"{found[wanted]}")


def check_publish(settings: AgentSettings, view: StatusView) -> Iterator[Finding]:
    """Check that this device may publish and is heard: by the running agent's receipts, or by a question of its own."""
    if (now := view.running) is not None:
        yield from _judge_running_link(now)
        return
    identity = open_identity(settings)
    if identity is None:
        yield fail("not tried: the broker and the miners know this device by its key", "see: key")
        return
    genesis = load_genesis(settings.genesis)
    chain = genesis.compute_id()
    topics, me = Topics.of_chain(chain), identity.address
    position = view.history.position
    height, model_round = (position.height + 1, position.round - 1) if position is not None else (1, 0)
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


def _judge_running_link(now: AgentStatus) -> Iterator[Finding]:
    link, receipt_s = now.link, now.receipt_age_s
    if not link.is_connected:
        why = link.trouble or "no answer yet"
        yield fail(f"the agent has had no broker for {format_span(link.for_s)}: {why}", "see: broker, tls")
    elif receipt_s is None:
        advice = "normal during its first round; later: the broker's rules may block its topic, or no miner is running"
        yield (warn if now.up_s > RECEIPT_OLD_S else _quietly)(
            "no miner has acknowledged a message since the agent started", advice
        )
    elif receipt_s > RECEIPT_OLD_S:
        yield warn(
            f"a miner last acknowledged a message {format_span(receipt_s)} ago",
            "are rounds still being settled? flchain-agent logs",
        )
    else:
        yield ok(f"a miner's receipt arrived {format_span(receipt_s)} ago: it may publish, and is heard")


def _quietly(reason: str, advice: str) -> Finding:
    return ok(f"{reason} ({advice})")


def check_model(settings: AgentSettings) -> Iterator[Finding]:
    """Check that the model file is the chain's, and that this machine trains with it, in a child process."""
    from flchain_edge.model.tflite import RUNTIME_NAME, TfliteModel, probe_model, read_runtime_version

    data = load_model_file(settings.model, load_genesis(settings.genesis))
    probe_model(data)
    model = TfliteModel(data)
    runtime = f"{RUNTIME_NAME} {read_runtime_version()}, numpy {np.__version__}"
    yield ok(f"{model.parameters_count} parameters; trains here with {runtime}")


def check_sensors(settings: AgentSettings, view: StatusView) -> Iterator[Finding]:
    """Check the configuration, and what the running sources report."""
    problems = find_sensor_problems(settings.sensors, settings.dataset, settings.holdout_percent)
    yield from (fail(problem, "docs/sensors.md") for problem in problems)
    if not settings.sensors:
        yield ok("none is configured: the agent trains on the file `examples`")
    elif view.running is None:
        yield ok(f"{len(settings.sensors)} configured; try them with: flchain-agent sense")
    for sensor in view.running.sensors if view.running is not None else ():
        text = f"{sensor.name} is {sensor.state}, {sensor.samples} samples"
        if sensor.state in ("running", "ended"):
            yield ok(text)
        else:
            yield warn(
                f"{text}: {sensor.detail or 'nothing yet'}",
                "stop the agent; flchain-agent sense then shows what the sensor sends",
            )


def check_data(settings: AgentSettings) -> Iterator[Finding]:
    """Check that there is enough to train on."""
    from flchain_edge.model.tflite import TfliteModel

    model = TfliteModel(load_model_file(settings.model, load_genesis(settings.genesis)))
    if not settings.dataset.channels:
        examples = load_examples(settings.examples, model)
        yield ok(f"{len(examples)} examples of {len(np.unique(examples.y))} classes in {settings.examples}")
        return
    try:
        card = build_card(settings, model.input_shape, model.classes)
    except ConfigError as error:  # no ring yet
        yield warn(error.problems[0], "run the agent, so that sensors fill it; flchain-agent data shows the progress")
        return
    dataset = card["dataset"]
    yield from (fail(problem, "docs/sensors.md") for problem in dataset["problems"])
    text = f"{dataset['windows']} windows are usable now, {dataset['windows_min']} are needed"
    if not dataset["is_enough"]:
        yield warn(text, "flchain-agent data shows why: gaps, labels, age")
    elif sum(count > 0 for count in dataset["by_class"].values()) < 2:
        yield warn(f"{text}; all of one class", "does the source of the label still send?")
    else:
        yield ok(text)
