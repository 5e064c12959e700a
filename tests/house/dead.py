"""Declarations of the product that no product code uses; use by tests alone does not count.

Two looks. `vulture` goes by name alone, for attributes, methods and fields too: what is used anywhere counts as used
everywhere. The second look follows the imports, for names at the top of a file: it tells two constants of one name
apart, and a name that is only exported again is not yet used.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flchain_edge.newer_python import tomllib
from tests.house.tree import Checkout, Source

CONFIDENCE_MIN = 60
"""Percent: vulture gives 60 to functions, classes and variables, 100 to arguments and code that cannot be reached."""
FINDING = re.compile(r"^(?P<path>.+?):(?P<line>\d+): (?P<text>.+?) \(\d+% confidence.*\)$")

ALIVE = {
    # read by what we hand it to
    "gpsd": "the reader of settings finds a sensor's section by the field's name",
    "mavlink": "the reader of settings finds a sensor's section by the field's name",
    "crashes": "a sweep sums the counters by name",
    "run_probe_program": "a program that is started by its source calls it",
    "mtime": "tarfile writes it into an archive",
    "main": "`flchain COMMAND` imports the command's module by name and calls its main",
    # fakes, each beside the seam that it stands in for
    "FakeLink": "runners in tests have no broker",
    "MemoryJournal": "miners in tests have no disk",
    "PressedFor": "tests have no button",
    # read from JSON by programs
    "heard_age_s": "a field of the status",
    # said beside what they are about
    "find_illegal": "tests ask it of every state that a device reaches",
    "iio": "a section of [[sensors]], read by the name of its kind",
    # set or defined for a library
    "robust_parsing": "pymavlink reads it",
    "text_factory": "sqlite3 reads it",
    "isolation_level": "sqlite3 reads it",
    "_split_lines": "argparse calls it",
    "handle": "logging calls it",
    "handleError": "logging calls it",
    "supported_ops": "TensorFlow's converter reads it",
    "experimental_enable_resource_variables": "TensorFlow's converter reads it",
    "suppress_exceptions": "paho reads it",
    "connect_timeout": "paho reads it",
    "on_connect": "paho calls it",
    "on_disconnect": "paho calls it",
    "on_subscribe": "paho calls it",
    "on_socket_close": "paho calls it",
    "on_socket_register_write": "paho calls it",
    "on_socket_unregister_write": "paho calls it",
    "userdata": "paho passes it",
    "properties": "paho passes it",
    # promises that tests hold the product to
    "keeps_error": "what a codec claims of its error; a property test holds each codec to its claim",
    "reload": "an operator's brokers read a new revocation list; tests play the operator",
    "compute_success": "the formula behind the table of attacks in docs/consensus.md",
    "simulate_attack": "holds that formula against the block tree",
    "withhold": "holds the simulated network against an attacker in it",
}
"""By name: why it stays although no product code reads it. An entry that nothing needs is itself a finding."""


@dataclass(frozen=True)
class Finding:
    """One dead declaration."""

    place: str
    name: str
    text: str


@dataclass
class _Names:
    """What one file declares at its top, what it uses, and where its imported names come from."""

    declared: dict[str, int] = field(default_factory=dict)
    """By name: the line."""
    used: set[str] = field(default_factory=set)
    """Names loaded outside their own definition."""
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By local name: module, and name in it; an empty name for the module itself."""
    attributes: set[tuple[str, str]] = field(default_factory=set)
    """Local names, dotted ones too, with an attribute that is read of them."""


def find_dead(checkout: Checkout) -> list[Finding]:
    """Return what neither the product uses nor `ALIVE` excuses, and excuses that nothing needs.

    Raises OSError if vulture is not installed.
    """
    found = {*_run_vulture(checkout), *find_unused_names(checkout)}
    kept = [finding for finding in found if finding.name not in ALIVE]
    idle = set(ALIVE) - {finding.name for finding in found}
    kept += [Finding("tests/house/dead.py", name, f"needless excuse for '{name}'") for name in idle]
    return sorted(kept, key=lambda finding: (finding.place, finding.name))


def _run_vulture(checkout: Checkout) -> Iterator[Finding]:
    command = [sys.executable, "-m", "vulture", "--min-confidence", str(CONFIDENCE_MIN), *checkout.packages]
    done = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: found something
        raise OSError(f"vulture: {done.stderr.strip() or done.stdout.strip()}")
    for line in done.stdout.splitlines():
        if (match := FINDING.match(line)) is not None:
            name = match["text"].split("'")[1] if "'" in match["text"] else match["text"]
            yield Finding(f"{match['path']}:{match['line']}", name, match["text"])


def find_unused_names(checkout: Checkout) -> Iterator[Finding]:
    """Yield each name declared at the top of a product file that no product file uses."""
    files = {source.module: (source, _read_names(source)) for source in checkout.product}
    used = {(module, name) for module, (_, names) in files.items() for name in names.used}
    for _, names in files.values():
        used |= set(_list_module_uses(names, files))
    used |= _read_entry_points(checkout)
    origins = {
        (module, local): origin for module, (_, names) in files.items() for local, origin in names.imported.items()
    }
    ahead = list(used)
    while ahead:  # what uses an imported name uses the declaration, through every file that hands it on
        origin = origins.get(ahead.pop())
        if origin is not None and origin not in used:
            used.add(origin)
            ahead.append(origin)
    for module, (source, names) in files.items():
        for name, line in names.declared.items():
            if (module, name) not in used and not name.startswith("__") and name != "_":
                yield Finding(f"{source.path}:{line}", name, f"unused name '{name}' at the top of a file")


def _read_names(source: Source) -> _Names:
    names = _Names()
    for statement in source.tree.body:
        own = dict(_list_declared(statement))
        names.declared.update({name: line for name, line in own.items() if name not in names.declared})
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in own:
                names.used.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names.imported.update(_list_imported(node, source))
            elif isinstance(node, ast.Attribute) and (dotted := _read_dotted(node.value)) is not None:
                names.attributes.add((dotted, node.attr))
    return names


def _list_declared(statement: ast.stmt) -> Iterator[tuple[str, int]]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name, statement.lineno
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id, statement.lineno
    elif isinstance(statement, ast.If | ast.Try):
        for inner in (*statement.body, *statement.orelse):
            yield from _list_declared(inner)


def _list_imported(node: ast.Import | ast.ImportFrom, source: Source) -> Iterator[tuple[str, tuple[str, str]]]:
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{source.path}: a relative import"
        for alias in node.names:
            yield alias.asname or alias.name, (node.module or "", alias.name)
    else:
        for alias in node.names:
            yield alias.asname or alias.name, (alias.name, "")


def _read_dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _read_dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None


def _list_module_uses(names: _Names, modules: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what is read as an attribute of an imported module."""
    for local, attribute in names.attributes:
        if local in names.imported:
            module, name = names.imported[local]
            full = f"{module}.{name}" if name else module
            if full in modules:
                yield full, attribute


def _read_entry_points(checkout: Checkout) -> set[tuple[str, str]]:
    """Return the functions that the installed commands call."""
    project = tomllib.loads((checkout.root / "pyproject.toml").read_text("utf-8")).get("project", {})
    points: defaultdict[str, str] = defaultdict(str, project.get("scripts", {}))
    return {(module, name) for module, _, name in (point.partition(":") for point in points.values())}
