"""The command line of `flchain-agent logs` and `flchain-miner logs`."""

from __future__ import annotations

import argparse

from flchain_edge.process.command import NodeAction
from flchain_edge.process.command_line import read_whole_number
from flchain_edge.settings.node import NodeSettings

LINES = 50
LINES_MAX = 100_000
LEVELS = ("debug", "info", "warning", "error")


def build_log_action(unit: str) -> NodeAction:
    """Return the command, for the node that runs as this unit."""

    def act(settings: NodeSettings, arguments: argparse.Namespace) -> None:
        from flchain_edge.logs.reader import run_logs  # imported here: a running node does not need it

        run_logs(settings, arguments, unit)

    return NodeAction("logs", "print this node's log, from the journal or its log file", act, _add_arguments)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", type=_read_count, default=LINES, metavar="N", dest="lines", help=f"newest lines (default: {LINES})"
    )
    parser.add_argument("--follow", action="store_true", help="continue with new lines as they come, until Ctrl-C")
    parser.add_argument("--level", choices=LEVELS, default="debug", help="this level and worse")
    parser.add_argument(
        "--round", type=int, metavar="N", help="only lines about this round: the same as --field round=N"
    )
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        type=_read_field,
        metavar="NAME=VALUE",
        help="only lines with this field; can be repeated",
    )


def _read_count(text: str) -> int:
    return read_whole_number(text, 0, LINES_MAX)


def _read_field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value
