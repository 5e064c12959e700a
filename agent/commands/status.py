"""`flchain-agent status`: show this device's status to a person or a program."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

import msgspec

from agent.commands.status_format import format_view
from agent.commands.status_view import build_view
from agent.settings import AgentSettings

WATCH_S = 2.0
CLEAR = "\x1b[H\x1b[2J"
EXIT_NOT_RUNNING = 3
"""The same as of `systemctl status`."""


def run_status(settings: AgentSettings, arguments: argparse.Namespace) -> int:
    """Print it once, or repeatedly until Ctrl-C. Return exit code 0 if the agent runs, otherwise EXIT_NOT_RUNNING."""
    view = build_view(settings)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            text = msgspec.json.encode(view).decode() if arguments.json else format_view(view)
            print((CLEAR if arguments.watch and sys.stdout.isatty() else "") + text, flush=True)
            if not arguments.watch:
                break
            time.sleep(WATCH_S)
            view = build_view(settings)
    return 0 if view.node.state == "running" else EXIT_NOT_RUNNING
