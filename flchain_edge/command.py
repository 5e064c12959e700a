"""What `flchain-agent` and `flchain-miner` share as commands: run, check the configuration, show the key, an example."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flchain.crypto import Identity
from flchain.errors import ConfigError, FlchainError, LedgerCorrupt
from flchain_edge.config import load_config, render_example
from flchain_edge.event_loop import run_until_signal
from flchain_edge.logs import setup_logging
from flchain_edge.sqlite import StoreFull

EXIT_FAULT, EXIT_IO, EXIT_CONFIG = 1, 74, 78
"""74 and 78 as sysexits.h names them: systemd units restart after the first two, never after a configuration error."""


@dataclass(frozen=True)
class NodeCommand:
    """One program: its name, its settings' class, and what it does with them."""

    program: str
    description: str
    settings_type: type[Any]
    run: Callable[[Any], Coroutine[Any, Any, None]]
    load_identity: Callable[[Any], Identity]


def _build_parser(command: NodeCommand) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command.program, description=command.description)
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "run until stopped by a signal"),
        ("check", "read the configuration and say everything that is wrong with it"),
        ("key", "print address and public key, for the genesis; makes the key file if there is none"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration file (TOML)")
    actions.add_parser("example", help="print a commented configuration file")
    return parser


def run_command(command: NodeCommand, argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into one line each and an exit code."""
    arguments = _build_parser(command).parse_args(argv)
    if arguments.action == "example":
        print(render_example(command.settings_type), end="")
        return 0
    try:
        settings = load_config(arguments.config, command.settings_type)
        setup_logging(settings.log.level, times=True)
        if arguments.action == "check":
            print(f"{arguments.config}: no problem found")
        elif arguments.action == "key":
            identity = command.load_identity(settings)
            print(f"address    {identity.address.hex()}\npublic key {identity.public_key.hex()}")
        else:
            asyncio.run(_run(command, settings))
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_CONFIG
    except LedgerCorrupt as error:
        print(
            f"error: the database is damaged at {error}; move it away to start anew from the peers",
            file=sys.stderr,
        )
        return EXIT_FAULT
    except StoreFull as error:
        print(f"error: {error}; make room and start again, nothing was lost", file=sys.stderr)
        return EXIT_IO
    except FlchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAULT
    return 0


async def _run(command: NodeCommand, settings: Any) -> None:
    await run_until_signal(asyncio.create_task(command.run(settings)))
    logging.getLogger(command.program).info("stopped")
