"""The help of every command of ours, as it appears on a terminal of 80 columns."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence

import pytest

from agent.cli import main as agent_main
from flchain_edge.process.command_line import CommandParser
from miner.cli import main as miner_main
from tools.cli import COMMANDS
from tools.cli import main as flchain_main

COLUMNS = 80
PROGRAMS: dict[str, tuple[Callable[[Sequence[str]], int], tuple[str, ...]]] = {
    "flchain-agent": (agent_main, ()),
    "flchain-miner": (miner_main, ()),
    **{f"flchain {name}": (flchain_main, (name,)) for name in COMMANDS},
}


def find_parser(program: str, monkeypatch: pytest.MonkeyPatch) -> CommandParser:
    """The parser that answers `--help`. One that is no CommandParser is not caught here, and its help is printed."""
    asked: list[CommandParser] = []
    monkeypatch.setattr(CommandParser, "print_help", lambda parser, file=None: asked.append(parser))
    main, arguments = PROGRAMS[program]
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    return asked[0]


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser, and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from walk(inner)


def list_texts(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What the author of the help wrote, before it is laid out."""
    yield parser.description or ""
    for action in parser._actions:
        if action.help not in (None, argparse.SUPPRESS):
            yield str(action.help).replace("%(default)s", str(action.default)).replace("%%", "%")


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_help_fits_80_columns_and_breaks_no_word(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal, and each word of a text, a list of names too, stands whole on one line."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    for parser in walk(find_parser(program, monkeypatch)):
        shown = parser.format_help()
        assert [line for line in shown.splitlines() if len(line) > COLUMNS] == [], parser.prog
        words = set(shown.split())
        for text in list_texts(parser):
            assert set(text.split()) <= words, (parser.prog, set(text.split()) - words)


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_every_command_says_what_it_does(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command has a description that begins like a sentence and ends like one, each option a line of help; each
    program shows examples."""
    whole = find_parser(program, monkeypatch)
    assert re.search(r"^examples:$", whole.epilog or "", re.MULTILINE), "an example is what people copy"
    for parser in walk(whole):
        description = parser.description or ""
        assert description[:1].isupper() and description.endswith("."), (parser.prog, description)
        without = [action.dest for action in parser._actions if not action.help and action.dest not in GROUPS]
        assert without == [], parser.prog


GROUPS = ("action", "command", "kind", "benchmark", "task")
"""Where the list of commands is kept: its help is that of the commands."""


def test_the_list_of_commands_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """`flchain --help` keeps to the terminal's width, however long the line of a command."""
    assert flchain_main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= COLUMNS
    for _, text in COMMANDS.values():
        assert set(text.split()) <= set(shown.split())


def test_a_long_list_moves_to_the_next_line() -> None:
    """A name with a hyphen is never broken at it, and examples keep their columns."""
    parser = CommandParser(prog="x", epilog="examples:\n  x --a        one\n" + "word-with-hyphens " * 9)
    parser.add_argument("--names", help=", ".join(f"name-{i}" for i in range(40)))
    shown = textwrap.dedent(parser.format_help())
    assert all(f"name-{i}" in re.split(r"[\s,]+", shown) for i in range(40))
    assert "\n  x --a        one\n" in shown
    assert shown.split().count("word-with-hyphens") == 9
