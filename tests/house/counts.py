"""The figures by which the house is judged, of one checkout or of two side by side."""

from __future__ import annotations

import ast
import doctest
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flchain_edge.newer_python import tomllib
from tests.house.imports import find_file_circles, find_folder_circles, read_graph
from tests.house.tree import Checkout, Source, count_flat_modules, list_folders, read_checkout

FLAT_MAX = 15
"""Modules directly in one folder."""
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 40
EXCEPTION = re.compile(r"#.*\b(noqa|type:\s*ignore)\b")

MEANINGS = {
    "rooms": "folders of the product that hold a Python file with at least one line",
    "rooms_tests": "the same below tests/",
    "file_circles": "knots of product files that import each other, at the top, in functions or for types only",
    "folder_circles": "knots of a folder's members (a file, or a folder with all below it), one at least a folder",
    "flat_most": "modules directly in the fullest folder of the product, its __init__.py not counted",
    "flat_most_tests": "the same below tests/",
    "flat_wide": f"folders with more than {FLAT_MAX} of them, product and tests",
    "long_modules": f"Python files of more than {MODULE_LINES_MAX} lines, product and tests, empty lines counted",
    "long_functions": f"functions of the product of more than {FUNCTION_LINES_MAX} lines, from `def` to their last",
    "lint_names": "single files named in the contracts of import-linter in pyproject.toml, once for each mention",
    "product_lines": "lines of Python in the product's packages, empty lines and comments counted",
    "test_lines": "the same below tests/",
    "exceptions": "comments with noqa or type: ignore in the product",
    "exceptions_tests": "the same below tests/",
    "casts": "calls of typing.cast in the product",
    "doctests": "examples (>>>) in docstrings of the product",
}
"""By figure: what exactly it counts."""


@dataclass(frozen=True)
class Counts:
    """One field a figure, in the order of the table; `MEANINGS` says what each counts. Lists say where."""

    rooms: int
    rooms_tests: int
    file_circles: list[str]
    folder_circles: list[str]
    flat_most: int
    flat_most_tests: int
    flat_wide: list[str]
    long_modules: list[str]
    long_functions: list[str]
    lint_names: list[str]
    product_lines: int
    test_lines: int
    exceptions: int
    exceptions_tests: int
    casts: list[str]
    doctests: int


def count(root: Path) -> Counts:
    """Return the figures of the checkout at `root`. Raises FileNotFoundError, LookupError or SyntaxError."""
    checkout = read_checkout(root)
    graph = read_graph(root, checkout.packages)
    flat, flat_tests = count_flat_modules(checkout.product), count_flat_modules(checkout.tests)
    everything = (*checkout.product, *checkout.tests)
    return Counts(
        rooms=len(list_folders(checkout.product)),
        rooms_tests=len(list_folders(checkout.tests)),
        file_circles=[" -> ".join(path) for path in find_file_circles(graph)],
        folder_circles=[" -> ".join(path) for path in find_folder_circles(graph)],
        flat_most=max(flat.values(), default=0),
        flat_most_tests=max(flat_tests.values(), default=0),
        flat_wide=[f"{folder} {n}" for folder, n in (flat + flat_tests).most_common() if n > FLAT_MAX],
        long_modules=[f"{s.path} {s.lines}" for s in everything if s.lines > MODULE_LINES_MAX],
        long_functions=[text for source in checkout.product for text in list_long_functions(source)],
        lint_names=list_lint_names(checkout),
        product_lines=sum(source.lines for source in checkout.product),
        test_lines=sum(source.lines for source in checkout.tests),
        exceptions=sum(count_exceptions(source) for source in checkout.product),
        exceptions_tests=sum(count_exceptions(source) for source in checkout.tests),
        casts=[text for source in checkout.product for text in list_casts(source)],
        doctests=sum(count_doctests(source) for source in checkout.product),
    )


def list_long_functions(source: Source) -> Iterator[str]:
    """Yield place and length of each function of more than FUNCTION_LINES_MAX lines."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{source.path}:{node.lineno} {node.name} {lines}"


def list_lint_names(checkout: Checkout) -> list[str]:
    """Return the single files that the contracts of import-linter name: what moves or is new is not held to them."""
    settings = tomllib.loads((checkout.root / "pyproject.toml").read_text("utf-8"))
    contracts = settings.get("tool", {}).get("importlinter", {}).get("contracts", ())
    files = {source.module for source in checkout.product if source.path.name != "__init__.py"}
    named = (
        name.strip()
        for contract in contracts
        for key in ("source_modules", "forbidden_modules", "modules", "ignore_imports", "protected_modules")
        for entry in contract.get(key, ())
        for name in entry.split("->")
    )
    return sorted(name for name in named if name in files)


def count_exceptions(source: Source) -> int:
    """Return how many comments switch a checker off."""
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    return sum(token.type == tokenize.COMMENT and bool(EXCEPTION.match(token.string)) for token in tokens)


def list_casts(source: Source) -> Iterator[str]:
    """Yield the place of each call of `typing.cast`."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module == "typing"
        for alias in node.names
        if alias.name == "cast"
    }
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if (isinstance(called, ast.Name) and called.id in names) or (
            isinstance(called, ast.Attribute) and ast.unparse(called) == "typing.cast"
        ):
            yield f"{source.path}:{node.lineno}"


def count_doctests(source: Source) -> int:
    """Return how many examples its docstrings hold."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node) for node in ast.walk(source.tree) if isinstance(node, documented))
    return sum(len(doctest.DocTestParser().get_examples(text)) for text in texts if text)


def format_table(columns: Mapping[str, Counts]) -> Iterator[str]:
    """Yield a row for each figure, a column for each checkout, and below it where the lists of the last one point."""
    values = {title: {key: _size(value) for key, value in asdict(c).items()} for title, c in columns.items()}
    width = max(len(key) for key in MEANINGS)
    widths = [max(8, len(title)) for title in columns]
    yield _format_row("", columns, width, widths)
    for key in MEANINGS:
        yield _format_row(key, [f"{values[title][key]:,}" for title in columns], width, widths)
    for key, value in asdict(list(columns.values())[-1]).items():
        if isinstance(value, list) and value:
            yield ""
            yield f"{key}:"
            yield from (f"  {entry}" + f" ({n} times)" * (n > 1) for entry, n in Counter(value).items())


def _format_row(name: str, cells: Iterable[str], width: int, widths: Sequence[int]) -> str:
    return f"{name:<{width}}  " + "  ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list) else value
