"""The commands of who looks after a board. What they need is imported when they are called: `run` need not hold it."""

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
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")


def _add_status_arguments(parser: argparse.ArgumentParser) -> None:
    _add_json(parser)
    parser.add_argument("--watch", action="store_true", help="again every two seconds, until Ctrl-C")


INSPECTION_ACTIONS = (
    NodeAction(
        "status",
        "say how this device does: round, model, broker, scheduler, board, sensors; exit code 3 if it does not run",
        _status,
        _add_status_arguments,
    ),
    NodeAction(
        "doctor",
        "check everything this device needs, say what to do about what is wrong; changes nothing",
        _doctor,
        _add_json,
    ),
    build_log_action(UNIT),
)
