"""A checkout's Python files: which are the product's, which the tests', and what a folder holds."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

TESTS = "tests"


@dataclass(frozen=True)
class Source:
    """One Python file, read once; `path` is relative to the checkout."""

    path: PurePosixPath
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Return the parsed file."""
        return ast.parse(self.text, str(self.path))

    @property
    def module(self) -> str:
        """Return the name that the file is imported by."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def lines(self) -> int:
        """Return the number of lines, empty ones and comments too."""
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Checkout:
    """The Python files below the product's packages and below `tests/`."""

    root: Path
    packages: tuple[str, ...]
    product: tuple[Source, ...]
    tests: tuple[Source, ...]


def read_checkout(root: Path) -> Checkout:
    """Read every Python file of a checkout. Raises FileNotFoundError where there is no package."""
    packages = tuple(sorted(folder.parent.name for folder in root.glob("*/__init__.py") if folder.parent.name != TESTS))
    if not packages:
        raise FileNotFoundError(f"{root}: no folder with an __init__.py")
    product = tuple(source for package in packages for source in _read_below(root, package))
    return Checkout(root, packages, product, tuple(_read_below(root, TESTS)))


def _read_below(root: Path, folder: str) -> Iterable[Source]:
    for path in sorted((root / folder).rglob("*.py")):
        yield Source(PurePosixPath(path.relative_to(root).as_posix()), path.read_text("utf-8"))


def list_folders(sources: Iterable[Source]) -> list[str]:
    """Return the folders that hold at least one Python file with a line in it."""
    return sorted({str(source.path.parent) for source in sources if source.text.strip()})


def count_flat_modules(sources: Iterable[Source]) -> Counter[str]:
    """Return how many modules lie directly in each folder; its own `__init__.py` is not one."""
    return Counter(str(source.path.parent) for source in sources if source.path.name != "__init__.py")
