"""`flchain-miner doctor`: check what a miner needs on an edge server and say what to do; changes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from flchain.base.errors import ConfigError
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header
from flchain_edge.checks.broker import BROKERS_TIMEOUT_S, LOGIN_CHECK_TIMEOUT_S, check_endpoints, check_login
from flchain_edge.checks.checkup import Check, Finding, fail, ok, run_checkup, warn
from flchain_edge.checks.clock import check_clock
from flchain_edge.checks.keys import check_key, check_membership, check_tls_files, open_identity
from flchain_edge.checks.machine import check_disk, check_memory, check_unit
from flchain_edge.model.model_files import load_examples
from flchain_edge.mqtt.settings import with_client_id
from flchain_edge.process.chain_files import load_genesis, load_model_file
from flchain_edge.storage.database_files import is_open
from miner.edge.ledger.file import open_ledger_file
from miner.edge.ledger.ledger import LEDGER_FILE
from miner.settings import UNIT, MinerSettings

MODEL_TIMEOUT_S = 150.0
LEDGER_TIMEOUT_S = 60.0


def run_doctor(settings: MinerSettings, arguments: argparse.Namespace) -> int:
    """Print the findings; return the exit code."""
    return run_checkup(list_checks(settings), arguments)


def list_checks(settings: MinerSettings) -> tuple[Check, ...]:
    """Return the checks; a fault may explain those further down."""
    ledger = Path(settings.data_dir) / LEDGER_FILE
    own = open_identity(settings)
    return (
        Check("miner", lambda: check_running(ledger)),
        Check("service", lambda: check_unit(UNIT)),
        Check("clock", lambda: check_clock(_read_tip_ms(ledger), load_genesis(settings.genesis).params.trusting_s)),
        Check("disk", lambda: check_disk(Path(settings.data_dir))),
        Check("ledger", lambda: check_ledger(ledger), LEDGER_TIMEOUT_S),
        Check("memory", check_memory),
        Check("key", lambda: check_key(settings, "flchain-miner")),
        Check("chain", lambda: check_membership(settings, "validator", None)),
        Check("tls", lambda: check_tls_files(settings.mqtt, own, settings.enrolment.endpoint is not None)),
        Check("broker", lambda: check_endpoints(settings.mqtt), BROKERS_TIMEOUT_S),
        Check("login", lambda: check_miner_login(settings, ledger), LOGIN_CHECK_TIMEOUT_S),
        Check("model", lambda: check_model(settings), MODEL_TIMEOUT_S),
    )


def _is_running(ledger: Path) -> bool:
    try:
        return is_open(ledger)
    except OSError:  # the check of the ledger reports it
        return False


def check_running(ledger: Path) -> Iterator[Finding]:
    """Check that a process has the ledger open."""
    if _is_running(ledger):
        yield ok("running: its ledger is open")
    else:
        yield warn("the miner is not running", "systemctl start flchain-miner")


def _read_tip_ms(ledger: Path) -> int | None:
    try:
        with open_ledger_file(ledger) as opened:
            block = opened.get_block(opened.get_height())
    except ConfigError:
        return None
    return decode_struct(block.header, Header, HEADER_BYTES_MAX).time_ms if block is not None else None


def check_ledger(path: Path) -> Iterator[Finding]:
    """Check the pages of the file; `flchain audit` checks every block."""
    if not path.is_file():
        yield ok(f"{path} does not exist yet: the first run creates it")
        return
    with open_ledger_file(path) as ledger:
        fault, height = ledger.get_pages_fault(), ledger.get_height()
    if fault is None:
        yield ok(f"{path} has no fault, height {height}")
    else:
        yield fail(f"{path}: {fault}", "stop the miner, then: flchain-miner resync")


def check_miner_login(settings: MinerSettings, ledger: Path) -> Iterator[Finding]:
    """Check the login, but only while the miner is stopped: a second login would end its connection."""
    identity = open_identity(settings)
    if _is_running(ledger):
        yield ok("the running miner uses the login; see: flchain-miner logs")
    elif identity is None:
        yield fail("no login without a key", "see: key")
    else:
        yield from check_login(with_client_id(settings.mqtt, identity.address.hex()))


def check_model(settings: MinerSettings) -> Iterator[Finding]:
    """Check that the chain's model loads here and that there are examples to score on."""
    from flchain_edge.model.tflite import RUNTIME_NAME, TfliteModel, probe_model, read_runtime_version

    data = load_model_file(settings.model, load_genesis(settings.genesis))
    probe_model(data)
    model = TfliteModel(data)
    yield ok(f"{model.parameters_count} parameters; runs here with {RUNTIME_NAME} {read_runtime_version()}")
    yield ok(f"{len(load_examples(settings.examples, model))} examples to score on in {settings.examples}")
