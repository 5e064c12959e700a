"""`flchain-agent provision` and `reset`: what flchain-provision.service does at each boot, and the same by hand."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from agent.commands.status import EXIT_NOT_RUNNING
from agent.provisioning.announcement import BoardWord, build_word
from flchain.base.errors import ConfigError
from flchain_edge.process.command import NodeAction
from flchain_edge.process.command_line import EXIT_CONFIG, EXIT_IO

PROVISION_HELP = "take this board's settings from flchain.toml on the boot partition, as at each boot; safe to repeat"
PROVISION_EPILOG = """examples:
  flchain-agent provision --example > flchain.toml
  flchain-agent provision --check flchain.toml
  flchain-agent provision --status
  flchain-agent provision

The first prints a file to fill in and to copy to the boot partition; the second names all problems at once, \
on any machine. On the board the third says whether it waits, enrols, is refused or trains, and the last, as root, \
takes the file now. See docs/firstboot.md.
"""
RESET_EPILOG = """examples:
  flchain-agent reset
  flchain-agent reset --yes

The first says what would be removed, the second removes it; then the board waits for a new flchain.toml. The same \
without a login: a file flchain-reset on the boot partition, or the button of [button], at the next boot.
"""


def _provision(_: None, arguments: argparse.Namespace) -> int:
    from agent.firstboot.announce import read_word
    from agent.firstboot.form import read_form
    from agent.firstboot.places import Places
    from agent.provisioning.example import EXAMPLE

    if arguments.example:
        print(EXAMPLE, end="")
        return 0
    if arguments.check is not None:
        path: Path = arguments.check
        try:
            read_form(path.read_bytes(), path.name, path.absolute().parent)
        except OSError as error:
            raise ConfigError((f"{path}: {error.strerror or error}",)) from error
        print(f"{path}: no problem found")
        return 0
    if arguments.status:
        print(_format_word(read_word(Places(arguments.root)), arguments.json))
        return 0
    return _take(arguments)


def _format_word(word: BoardWord, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode(word).decode()
    return "\n".join((f"{word.state}: this board {word.lines[0]}", *word.lines[1:]))


def say_not_enrolled(config: Path, as_json: bool) -> int:
    """Say how a board without `config`, its agent.toml, stands: nothing else is to be seen there. Return 3."""
    from agent.firstboot.announce import read_word
    from agent.firstboot.places import Places

    if not os.access(config.parent, os.X_OK):
        user = config.parent.owner()
        print(f"error: only root and {user} can look into {config.parent}: run this as one of them", file=sys.stderr)
    else:
        print(_format_word(read_word(Places()), as_json))
    return EXIT_NOT_RUNNING


def _take(arguments: argparse.Namespace) -> int:
    from agent.firstboot.places import Places
    from agent.firstboot.programs import NoPrograms, SystemPrograms
    from agent.firstboot.provision import boot, provision, settle

    places = Places(arguments.root)
    _refuse_without_root(places.root)
    programs = SystemPrograms() if places.root == Path("/") else NoPrograms()
    outcome, facts = (settle if arguments.settle else boot if arguments.boot else provision)(places, programs)
    for line in outcome.done:
        print(line)
    for problem in outcome.problems:
        print(f"error: {problem}", file=sys.stderr)
    if not outcome.problems:
        print(_format_word(build_word(facts), False))
    if outcome.is_full:
        print("error: a disk is full; free some space, nothing was lost; the next boot goes on", file=sys.stderr)
        return EXIT_IO
    return EXIT_CONFIG if outcome.problems else 0


def _reset(_: None, arguments: argparse.Namespace) -> int:
    from agent.firstboot.places import Places
    from agent.firstboot.programs import NoPrograms, SystemPrograms
    from agent.firstboot.reset import reset

    places = Places(arguments.root)
    if not arguments.yes:
        print(f"would remove all in {places.agent} and {places.state}: this board's key, data, settings and token;")
        print("its Wi-Fi and login keys too. Nothing was done; to do it: flchain-agent reset --yes")
        return 0
    _refuse_without_root(places.root)
    programs = SystemPrograms() if places.root == Path("/") else NoPrograms()
    try:
        for removed in reset(places, programs):
            print(f"removed {removed}")
    except OSError as error:
        raise ConfigError((f"{error.filename or places.root}: {error.strerror or error}; run it again",)) from error
    print("this board waits for a new flchain.toml with a new token (flchain-agent provision --example)")
    print("the registrar was told nothing: the operator should revoke the old board (docs/security.md)")
    return 0


def _refuse_without_root(root: Path) -> None:
    if root == Path("/") and os.geteuid() != 0:
        raise ConfigError(("this changes the system: run it as root",))


def _add_root(parser: argparse.ArgumentParser) -> None:
    text = "of another system, such as an image that is being made; no program of it is run (default: /)"
    parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help=text)


def _add_provision_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = PROVISION_EPILOG
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--example", action="store_true", help="print a provisioning file to fill in")
    kind.add_argument("--check", type=Path, metavar="FILE", help="report every problem of a file; change nothing")
    kind.add_argument("--status", action="store_true", help="say how far this board is; change nothing")
    text = "also look for flchain-reset and the button, as flchain-provision.service does"
    parser.add_argument("--boot", action="store_true", help=text)
    text = "only destroy a token that has done its work, as flchain-enroll.service does"
    parser.add_argument("--settle", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="with --status: for programs")
    _add_root(parser)


def _add_reset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = RESET_EPILOG
    parser.add_argument("--yes", action="store_true", help="do it")
    _add_root(parser)


PROVISIONING_ACTIONS = (
    NodeAction("provision", PROVISION_HELP, _provision, _add_provision_arguments, has_config=False),
    NodeAction(
        "reset",
        "factory reset: remove this board's key, data, settings and token",
        _reset,
        _add_reset_arguments,
        has_config=False,
    ),
)
