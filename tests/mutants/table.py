"""What a mutant is: a small named change of the rules, as texts of source files, and how it is put into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


class StaleRow(Exception):
    """A row of the table no longer fits the source: it would test nothing."""


@dataclass(frozen=True)
class Edit:
    """In this file the text `old`, which must occur exactly once, becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A small change that nodes could not agree on, and the sentence that it breaks."""

    name: str
    claim: str
    edits: tuple[Edit, ...]


def change(name: str, claim: str, file: str, *texts: str) -> Mutant:
    """A mutant of one file; `texts` are old, new, old, new, ..."""
    assert texts and len(texts) % 2 == 0, name
    return Mutant(name, claim, tuple(Edit(file, *pair) for pair in zip(texts[::2], texts[1::2], strict=True)))


def mutate(mutant: Mutant, root: Path = ROOT) -> dict[str, str]:
    """The changed sources by file. Raises StaleRow for a text that does not occur exactly once."""
    sources: dict[str, str] = {}
    for edit in mutant.edits:
        source = sources.get(edit.file) or (root / edit.file).read_text()
        if (count := source.count(edit.old)) != 1:
            raise StaleRow(f"{mutant.name}: the text occurs {count} times in {edit.file}: {edit.old!r}")
        sources[edit.file] = source.replace(edit.old, edit.new)
    return sources


def join(*tables: Iterable[Mutant]) -> Mapping[str, Mutant]:
    """All rows by name. Raises StaleRow for a name that comes twice."""
    rows = [row for table in tables for row in table]
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise StaleRow(f"two rows of one name: {', '.join(sorted(twice))}")
    return {row.name: row for row in rows}
