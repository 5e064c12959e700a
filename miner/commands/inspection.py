"""The commands that inspect a miner: doctor, logs. They import what they need when called."""

from __future__ import annotations

import argparse

from flchain_edge.process.command import NodeAction
from flchain_edge.process.log_actions import build_log_action
from miner.settings import UNIT, MinerSettings


def _doctor(settings: MinerSettings, arguments: argparse.Namespace) -> int:
    from miner.commands.doctor import run_doctor

    return run_doctor(settings, arguments)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


INSPECTION_ACTIONS = (
    NodeAction(
        "doctor",
        "check everything that this miner needs and say how to fix what is wrong; changes nothing",
        _doctor,
        _add_json,
    ),
    build_log_action(UNIT),
)
