"""The command blocks of a page in docs/, in their order, each with the machine on which a reader types it.

A block is what is indented by four spaces. The paragraph before it says in bold where it runs ("**On each board**:"),
or a comment before it says why no test runs it (`<!-- not run: a card and a board are needed -->`). What a reader does
by hand between blocks is a comment, too (`<!-- by hand: copy-broker-files -->`), and so is an exit code that the
page explains (`<!-- exit code: 75 -->`). A page without one of these at a block is a page that nobody has tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PLACES = {
    "in a clone": ("clone",),
    "on the operator's machine": ("operator",),
    "on the edge server": ("edge",),
    "on each edge server": ("edge",),
    "on the board": ("board",),
    "on each board": ("board",),
    "on every machine": ("operator", "edge", "board"),
}
"""The words of the pages, and the machines of the tests that they mean."""
_BOLD = re.compile(r"\*\*((?:in|on) [^*]+?):?\*\*", re.IGNORECASE)
_COMMENT = re.compile(r"<!-- (not run|by hand|exit code): (.+?) -->")


@dataclass(frozen=True)
class Block:
    """Commands that are typed together on each of the machines."""

    line: int
    section: str
    """The heading above it."""
    machines: tuple[str, ...]
    script: str
    exit_code: int = 0
    not_run: str = ""
    """Why no test runs it; empty if one does."""


@dataclass(frozen=True)
class ByHand:
    """What a reader does between two blocks, which a test does in a way of its own."""

    line: int
    section: str
    name: str


Step = Block | ByHand


class UntriedBlock(AssertionError):
    """A block of which the page does not say where it runs, nor why it is not run."""


def read_page(name: str) -> tuple[Step, ...]:
    """Return the steps of docs/NAME. Raises UntriedBlock."""
    return tuple(parse_page((DOCS / name).read_text(), name))


def parse_page(text: str, name: str = "page") -> Iterator[Step]:
    """Yield the steps of a page. Raises UntriedBlock."""
    before: list[str] = []
    notes: dict[str, str] = {}
    section = ""
    for line, chunk in _split(text):
        if chunk[0].startswith("    "):
            script, why = "\n".join(each[4:] for each in chunk), notes.get("not run", "")
            machines = () if why else _find_machines(f"{name}:{line}", " ".join(before))
            yield Block(line, section, machines, script, int(notes.get("exit code", "0")), why)
            notes = {}
            continue
        if chunk[0].startswith("#"):
            section = chunk[0].lstrip("# ")
        before = [each for each in chunk if not _COMMENT.match(each)] or before
        for offset, each in enumerate(chunk):
            if found := _COMMENT.match(each):
                if found[1] == "by hand":
                    yield ByHand(line + offset, section, found[2])
                else:
                    notes[found[1]] = found[2]


def _split(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line's number and the lines of each paragraph, and of each block with its empty lines."""
    chunk: list[str] = []
    start = 1
    lines = [*text.splitlines(), ""]
    for number, line in enumerate(lines, 1):
        is_code = line.startswith("    ")
        was_code = bool(chunk) and chunk[0].startswith("    ")
        goes_on = was_code and not line and any(lines[number:]) and _next_is_code(lines, number)
        if chunk and not goes_on and (not line or is_code != was_code):
            yield start, chunk
            chunk = []
        if line or goes_on:
            start = start if chunk else number
            chunk.append(line)


def _next_is_code(lines: list[str], number: int) -> bool:
    return next(line for line in lines[number:] if line).startswith("    ")


def _find_machines(where: str, before: str) -> tuple[str, ...]:
    found = [place.lower() for place in _BOLD.findall(before)]
    unknown = [place for place in found if place not in PLACES]
    if unknown or not found:
        what = f"unknown place {unknown[0]!r}" if unknown else "neither a place in bold before it nor why it is not run"
        raise UntriedBlock(f"{where}: {what}; places: {', '.join(PLACES)}")
    return PLACES[found[-1]]
