"""What a mutant is: a small named change of the rules, as texts of their sources, and how it is put into them.

A row names a room, a folder of the protocol: a rule that moves from one file of its room to another needs no new row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


class StaleRow(Exception):
    """A row of the table no longer fits the source: it would test nothing."""


@dataclass(frozen=True)
class Edit:
    """In the sources of this room (or one file) the text `old`, which must occur exactly once, becomes `new`."""

    room: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A small change that nodes could not agree on, and the sentence that it breaks."""

    name: str
    claim: str
    edits: tuple[Edit, ...]


def change(name: str, claim: str, room: str, *texts: str) -> Mutant:
    """Return a mutant of one room; `texts` are old, new, old, new, ..."""
    assert texts and len(texts) % 2 == 0, name
    return Mutant(name, claim, tuple(Edit(room, *pair) for pair in zip(texts[::2], texts[1::2], strict=True)))


@cache
def read_room(room: str, root: Path) -> Mapping[str, str]:
    """Return the sources of a room by file, those of its folders included. Raises StaleRow if there are none."""
    place = root / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    if not files:
        raise StaleRow(f"no sources in {room}")
    return {str(file.relative_to(root)): file.read_text() for file in files}


def mutate(mutant: Mutant, root: Path = ROOT) -> dict[str, str]:
    """Return the changed sources by file. Raises StaleRow for a text that does not occur exactly once."""
    changed: dict[str, str] = {}
    for edit in mutant.edits:
        sources = {file: changed.get(file, source) for file, source in read_room(edit.room, root).items()}
        found = {file: count for file, source in sources.items() if (count := source.count(edit.old))}
        if (count := sum(found.values())) != 1:
            raise StaleRow(f"{mutant.name}: the text occurs {count} times in {edit.room}: {edit.old!r}")
        (file,) = found
        changed[file] = sources[file].replace(edit.old, edit.new)
    return changed


def join(*tables: Iterable[Mutant]) -> Mapping[str, Mutant]:
    """Return all rows by name. Raises StaleRow for a name that comes twice."""
    rows = [row for table in tables for row in table]
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise StaleRow(f"two rows of one name: {', '.join(sorted(twice))}")
    return {row.name: row for row in rows}
