"""The commands that `flchain-agent` and `flchain-miner` share: run, check the configuration, show the key and more."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError, FlchainError, LedgerCorrupt
from flchain.ledger.genesis import Genesis
from flchain_edge.logs.setup import setup_logging
from flchain_edge.model.model_files import load_examples
from flchain_edge.mqtt.settings import build_tls_context
from flchain_edge.process import word_size
from flchain_edge.process.chain_files import load_genesis, load_model_file
from flchain_edge.process.command_line import (
    CommandParser,
    add_command,
    choose_exit_code,
    run_program,
)
from flchain_edge.process.event_loop import run_until_signal
from flchain_edge.settings.config import load_config, render_example
from flchain_edge.settings.node import NodeSettings, load_identity
from flchain_edge.storage.sqlite import StoreFull

if TYPE_CHECKING:
    from flchain_edge.model.tflite import TfliteModel

T = TypeVar("T")


@dataclass(frozen=True)
class NodeAction:
    """A further command of a program. `act` gets its settings, raises what `run` may raise, and may return an exit
    code."""

    name: str
    help: str
    act: Callable[[Any, argparse.Namespace], int | None]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    has_config: bool = True
    """False for a command that needs no configuration: `act` gets None for its settings."""


@dataclass(frozen=True)
class NodeCommand:
    """A program: its name, the class of its settings, and what it does with them."""

    program: str
    description: str
    role: str
    """The genesis's word for such a node: "validator" or "device"."""
    settings_type: type[NodeSettings]
    run: Callable[[Any], Coroutine[Any, Any, None]]
    get_members: Callable[[Genesis], Iterable[bytes]] | None = None
    """The public keys that the genesis has in this role; None if a node can join later (docs/staking.md)."""
    find_data_problems: Callable[[Any, TfliteModel | None], Iterable[str]] | None = None
    """Finds problems in the data of a node that has more than the file `examples`; None if that file is all."""
    list_warnings: Callable[[Any], Iterable[str]] | None = None
    """What `check` warns of besides: it works, but a person should know. None if there is nothing."""
    default_config: Path | None = None
    """The configuration of the node that runs as a service, used if none is named and this one can be read."""
    actions: tuple[NodeAction, ...] = ()
    """The commands besides run, check, key and example; `resync` repairs its database."""


def _build_parser(command: NodeCommand) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=command.program, description=command.description, epilog=_format_examples(command.program)
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    has_default = command.default_config is not None and os.access(command.default_config, os.R_OK)

    def add_config(action: argparse.ArgumentParser) -> None:
        default = f" (default: {command.default_config})" if has_default else ""
        action.add_argument(
            "--config",
            type=Path,
            required=not has_default,
            default=command.default_config,
            metavar="FILE",
            help=f"configuration file (TOML){default}",
        )

    for name, text in (
        ("run", "run until stopped by a signal"),
        ("check", "report every problem of the configuration and of the files that it names; change nothing"),
        ("key", "print this node's lines for the network file; make the key file if there is none"),
    ):
        add_config(add_command(actions, name, text))
    for extra in command.actions:
        action = add_command(actions, extra.name, extra.help)
        if extra.has_config:
            add_config(action)
        extra.add_arguments(action)
    add_command(actions, "example", "print a commented configuration file")
    return parser


def _format_examples(program: str) -> str:
    file = f"{program.removeprefix('flchain-')}.toml"
    return (
        "examples:\n"
        f"  {program} example > {file}\n"
        f"  {program} check --config {file}\n"
        f"  {program} run --config {file}\n"
        f"  {program} logs --config {file} --follow --level warning\n\n"
        "Exit code: 0 done, 1 a fault, 74 disk full, 75 not yet, 78 configuration (docs/running.md)."
    )


def run_command(command: NodeCommand, argv: Sequence[str] | None = None) -> int:
    """Parse and run a command; print each error as one line, and return the exit code."""
    return run_program(lambda: _parse_and_act(command, argv), command.program)


def _parse_and_act(command: NodeCommand, argv: Sequence[str] | None) -> int:
    arguments = _build_parser(command).parse_args(argv)
    if arguments.action == "example":
        print(render_example(command.settings_type), end="")
        return 0
    try:
        word_size.check_address_bits(word_size.ADDRESS_BITS)
        settings = load_config(arguments.config, command.settings_type) if "config" in arguments else None
        file = settings.log.file if settings is not None and arguments.action == "run" else None
        setup_logging(settings.log.level if settings is not None else "info", times=True, file=file)
        return _act(command, settings, arguments)
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return choose_exit_code(error)
    except LedgerCorrupt as error:
        print(
            f"error: the database is damaged{':' if error.height is None else ' at'} {error}; repair it with: "
            f"{command.program} resync --config {arguments.config}",
            file=sys.stderr,
        )
        return choose_exit_code(error)
    except StoreFull as error:
        print(f"error: {error}; free some space and start again, nothing was lost", file=sys.stderr)
        return choose_exit_code(error)
    except FlchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return choose_exit_code(error)


def _act(command: NodeCommand, settings: Any, arguments: argparse.Namespace) -> int:
    action = arguments.action
    if extra := next((extra for extra in command.actions if extra.name == action), None):
        return extra.act(settings, arguments) or 0
    if action == "key":
        print(format_key(command, load_identity(settings)))
    elif action == "check":
        if problems := find_problems(command, settings):
            raise ConfigError(problems)
        for warning in command.list_warnings(settings) if command.list_warnings is not None else ():
            print(f"warning: {warning}", file=sys.stderr)
        print(f"{arguments.config}: no problem found")
    else:
        try:
            asyncio.run(_run(command, settings))
        except ConfigError as error:
            # A start stops at the first wrong file; a person who has to correct them wants to hear of all.
            raise ConfigError(tuple(dict.fromkeys((*error.problems, *find_problems(command, settings))))) from error
    return 0


async def _run(command: NodeCommand, settings: Any) -> None:
    await run_until_signal(asyncio.create_task(command.run(settings)))
    logging.getLogger(command.program).info("stopped")


def format_key(command: NodeCommand, identity: Identity) -> str:
    """Return the lines to paste into the network file that `flchain genesis make` reads."""
    public_key = identity.public_key.hex()
    entry = {
        "validator": f'[[validators]]\npublic_key = "{public_key}"',
        "device": f'[[devices]]\npublic_key = "{public_key}"\n# home = "the public key of the miner it belongs to"',
    }
    return f"# address    {identity.address.hex()}\n# public key {public_key}\n{entry[command.role]}"


def find_problems(command: NodeCommand, settings: Any) -> tuple[str, ...]:
    """Return all problems of the files that a configuration names. A file that depends on a bad one need only exist.

    Nothing is created: a key file that is missing is a problem, since the genesis cannot contain its key.
    """
    problems: list[str] = []
    genesis = _attempt(problems, load_genesis, settings.genesis)
    model = None
    if genesis is None:
        _look_for(problems, "model", settings.model)
    else:
        model = _attempt(problems, _load_model, settings.model, genesis)
    if command.find_data_problems is not None:
        problems += command.find_data_problems(settings, model)
    elif model is None:
        _look_for(problems, "data", settings.examples)
    else:
        _attempt(problems, load_examples, settings.examples, model)
    _attempt(problems, build_tls_context, settings.mqtt)
    if not settings.key.file.exists():
        problems.append(f"key file {settings.key.file}: No such file or directory; make it with: {command.program} key")
        return tuple(problems)
    identity = _attempt(problems, load_identity, settings)
    if genesis is None or identity is None or command.get_members is None:
        return tuple(problems)
    if identity.public_key not in command.get_members(genesis):
        problems.append(f"key {settings.key.file}: {identity.address.hex()} is not a {command.role} of this chain")
    return tuple(problems)


def _load_model(path: Path, genesis: Genesis) -> TfliteModel:
    # Imported here: a running agent never loads the runtime itself (docs/decisions/0011).
    from flchain_edge.model.tflite import TfliteModel, probe_model

    data = load_model_file(path, genesis)
    probe_model(data)
    return TfliteModel(data)


def _look_for(problems: list[str], what: str, path: Path) -> None:
    if not path.is_file():
        problems.append(f"{what} {path}: No such file or directory")


def _attempt(problems: list[str], load: Callable[..., T], *arguments: Any) -> T | None:
    try:
        return load(*arguments)
    except ConfigError as error:
        problems += error.problems
        return None
