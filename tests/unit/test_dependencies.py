"""What a board installs is what its agent imports, and the versions are those that the tests ran with."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flchain_edge.newer_python import tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ROOT / "requirements"
ROOMS = ("flchain", "flchain_edge", "agent", "miner")
"""What runs on boards and edge servers; `tools` is an extra."""

MODULES = {
    "paho-mqtt": "paho",
    "cbor2": "cbor2",
    "pynacl": "nacl",
    "pycryptodome": "Crypto",
    "aiosqlite": "aiosqlite",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "tflite-runtime": "tflite_runtime",
    "ai-edge-litert": "ai_edge_litert",
    "tomli": "tomli",
    "async-timeout": "async_timeout",
    "pymavlink": "pymavlink",
    "pyarrow": "pyarrow",
}
BY_NAME = {"tflite_runtime", "ai_edge_litert"}
"""Imported by a name in a table: flchain_edge/model/tflite.py."""
OWN = sys.stdlib_module_names | {"tomllib"}
"""Python's own modules, those of a newer one, too."""
SENSORS = {"uav", "parquet"}
"""Extras of agents; whoever configures such a sensor without it has a sentence that says so."""


def list_names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", text) for text in requirements)
    return {match[0].lower() for match in found if match}


def find_imports(room: str, *, is_top: bool) -> Iterator[str]:
    """Top-level names of other people's modules that a room imports, as its files are loaded or anywhere."""
    for path in (ROOT / room).rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in tree.body if is_top else ast.walk(tree):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            yield from (name for module in modules if (name := module.split(".")[0]) not in OWN)


def read_lock(name: str) -> dict[str, str]:
    """`name==version` -> all its hashes; markers say for whom, and differ with who else wants a package."""
    text = re.sub(r"^\s*#.*\n", "", (LOCKS / name).read_text(), flags=re.MULTILINE)
    entries = re.findall(r"^(\S+==\S+)[^\\\n]*\\\n((?:\s+--hash=\S+(?:\s*\\)?\n)+)", text, flags=re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\S", text, flags=re.MULTILINE)), f"a line of {name} is read as nothing"
    return {requirement: " ".join(sorted(re.findall(r"sha256:\w{64}", hashes))) for requirement, hashes in entries}


def test_every_dependency_is_imported_and_nothing_else() -> None:
    """The dependencies are exactly what agent, miner and what they share import; a board carries nothing beside it."""
    imported = {name for room in ROOMS for name in find_imports(room, is_top=False)} - set(ROOMS)
    extras = {MODULES[name] for extra in SENSORS for name in list_names(PROJECT["optional-dependencies"][extra])}
    assert imported - extras | BY_NAME == {MODULES[name] for name in list_names(PROJECT["dependencies"])}
    assert extras <= imported


def test_extras_are_imported_late() -> None:
    """No module of agent or miner needs an extra to be loaded."""
    needed = {name for room in ROOMS for name in find_imports(room, is_top=True)} - set(ROOMS)
    assert needed <= {MODULES[name] for name in list_names(PROJECT["dependencies"])} - BY_NAME


@pytest.mark.parametrize("command", ["agent", "miner", "flchain"])
def test_commands_start_without_the_extras(command: str) -> None:
    """With the dependencies alone each command says what it can do."""
    main = "tools.cli" if command == "flchain" else f"{command}.cli"
    extras = {name for requirements in PROJECT["optional-dependencies"].values() for name in list_names(requirements)}
    blocked = {name.replace("-", "_") for name in extras} - set(MODULES.values())
    script = (
        f"import sys\nfor name in {sorted(blocked)!r}: sys.modules[name] = None\n"
        f"from {main} import main\nsys.exit(main(['--help']))"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout.lower()


def test_a_board_has_the_versions_that_were_tested() -> None:
    """Each package of agent.lock stands in main.lock with the same version and hashes."""
    agent, main = read_lock("agent.lock"), read_lock("main.lock")
    different = {requirement for requirement, hashes in agent.items() if main.get(requirement) != hashes}
    assert not different
    assert list_names(PROJECT["dependencies"]) <= list_names(list(agent))


def test_a_board_installs_no_workshop() -> None:
    """agent.lock has the dependencies and what they need, and none of what `flchain demo`, tests or linters want."""
    names = list_names(list(read_lock("agent.lock")))
    others = {
        name
        for extra in ("tools", "dev", "uav", "parquet")
        for name in list_names(PROJECT["optional-dependencies"][extra])
    }
    assert not names & others
    assert len(names) <= 20


@pytest.mark.parametrize("path", [*sorted(LOCKS.glob("*.in")), ROOT / "pyproject.toml"], ids=lambda path: path.name)
def test_numpy_is_chosen_by_python(path: Path) -> None:
    """numpy 1 is asked for on Python 3.10 and 3.11 only: newer ones have no wheel of it and would build it."""
    lines = [line.split("#")[0] for line in path.read_text().splitlines() if "numpy<2" in line.split("#")[0]]
    assert all("python_version <" in line for line in lines)
