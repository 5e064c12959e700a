"""The commands that inspect a board: status, doctor, logs. They import what they need when called, not for `run`."""

from __future__ import annotations

import argparse

from agent.settings import UNIT, AgentSettings
from flchain_edge.process.command import NodeAction
from flchain_edge.process.log_actions import build_log_action


def _status(settings: AgentSettings, arguments: argparse.Namespace) -> int:
    from agent.commands.status import run_status

    return run_status(settings, arguments)


def _doctor(settings: AgentSettings, arguments: argparse.Namespace) -> int:
    from agent.commands.doctor import run_doctor

    return run_doctor(settings, arguments)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def _add_status_arguments(parser: argparse.ArgumentParser) -> None:
    _add_json(parser)
    parser.add_argument("--watch", action="store_true", help="print it again every two seconds, until Ctrl-C")


INSPECTION_ACTIONS = (
    NodeAction(
        "status",
        "show this device's status: round, model, broker, scheduler, board, sensors; exit code 3 if it is not running",
        _status,
        _add_status_arguments,
    ),
    NodeAction(
        "doctor",
        "check everything that this device needs and say how to fix what is wrong; changes nothing",
        _doctor,
        _add_json,
    ),
    build_log_action(UNIT),
)
