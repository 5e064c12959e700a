"""The checks of the house, each on a small tree of files made for it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house import counts, dead
from tests.house.__main__ import main
from tests.house.imports import find_file_circles, find_folder_circles, read_graph
from tests.house.tree import read_checkout

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes a checkout: files by path, a folder's `__init__.py` where none is given."""

    def write(files: dict[str, str], project: str = "") -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            for folder in path.relative_to(tmp_path).parents[:-1]:
                if folder.parts[0] != "tests":
                    (tmp_path / folder / "__init__.py").touch()
        (tmp_path / "pyproject.toml").write_text(project)
        return tmp_path

    return write


def list_circles(root: Path) -> tuple[list[list[str]], list[list[str]]]:
    graph = read_graph(root, read_checkout(root).packages)
    return find_file_circles(graph), find_folder_circles(graph)


@pytest.mark.parametrize(
    "hidden",
    [
        "from house_a.one import x",
        "def late():\n    from house_a.one import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house_a.one import x",
    ],
)
def test_a_circle_of_files_is_found_however_it_is_hidden(make: Make, hidden: str) -> None:
    """An import in a function or for types only closes a circle as one at the top does."""
    root = make({"house_a/one.py": "from house_a.two import y\nx = 1", "house_a/two.py": f"{hidden}\ny = 1"})
    assert list_circles(root) == ([["house_a.one", "house_a.two", "house_a.one"]], [])


def test_a_circle_of_folders_needs_no_circle_of_files(make: Make) -> None:
    """Two folders whose files import each other's are a circle although no file imports itself by a detour."""
    files = {
        "house_b/red/one.py": "import house_b.blue.one",
        "house_b/blue/one.py": "",
        "house_b/blue/two.py": "import house_b.red.two",
        "house_b/red/two.py": "",
    }
    assert list_circles(make(files)) == ([], [["house_b.blue", "house_b.red", "house_b.blue"]])


def test_a_file_beside_a_folder_can_make_a_circle_with_it(make: Make) -> None:
    """Settings made of a folder's, which a file of the folder reads, are a circle; an import of one's parts is none."""
    files = {
        "house_c/settings.py": "import house_c.edge.settings",
        "house_c/edge/settings.py": "",
        "house_c/edge/worker.py": "import house_c.settings",
    }
    assert list_circles(make(files)) == ([], [["house_c.edge", "house_c.settings", "house_c.edge"]])
    (make({}) / "house_c/edge/worker.py").write_text("import house_c.edge.settings")
    assert list_circles(make({})) == ([], [])


def test_each_knot_is_told_once_by_a_shortest_way(make: Make) -> None:
    """Four files that reach each other, by a way of three and one of two, are one circle, shown by the way of two."""
    files = {
        "house_d/a.py": "import house_d.b\nimport house_d.d",
        "house_d/b.py": "import house_d.c",
        "house_d/c.py": "import house_d.a",
        "house_d/d.py": "import house_d.a",
        "house_d/e.py": "import house_d.a",
    }
    assert list_circles(make(files))[0] == [["house_d.a", "house_d.d", "house_d.a"]]


def test_the_command_names_each_import_of_a_circle(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """`circles` ends with 1 and shows file, line and statement of each step; without a circle it says nothing."""
    root = make({"house_e/one.py": "import house_e.two", "house_e/two.py": "\n\nimport house_e.one"})
    assert main(["circles", "--root", str(root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "circle of files: house_e.one -> house_e.two -> house_e.one",
        "  house_e.one:1: import house_e.two",
        "  house_e.two:3: import house_e.one",
    ]
    (root / "house_e/two.py").write_text("")
    assert main(["circles", "--root", str(root)]) == 0
    assert capsys.readouterr().out == ""


def test_a_package_from_elsewhere_is_refused(make: Make) -> None:
    """A graph of another place's code would be a wrong answer: a name that is found elsewhere raises LookupError."""
    with pytest.raises(LookupError, match="json"):
        read_graph(make({"house_f/one.py": ""}), ("json",))


# --- counts -----------------------------------------------------------------------------------------------------------

LONG = "def long():\n" + "    pass\n" * 40
SHORT = "def short():\n" + "    pass\n" * 39
EXAMPLE = '''def f():
    """Return one.

    >>> f()
    1
    """
    return 1
'''
CASTS = """import typing
from typing import cast as c

a = c(int, 1)
b = typing.cast(int, 2)
cast = max
d = cast(1, 2)
e = 1  # noqa: E501
f = "# noqa"
"""
CONTRACT = """[[tool.importlinter.contracts]]
source_modules = ["house_g", "house_g.one", "house_g.room"]
forbidden_modules = ["house_g.two", "os"]
ignore_imports = ["house_g.one -> house_g.room.three"]
"""


def test_counts_of_a_small_house(make: Make) -> None:
    """Each figure is what its meaning says, counted by hand in a tree of four product files and one test."""
    files = {
        "house_g/one.py": LONG + SHORT,
        "house_g/two.py": CASTS,
        "house_g/room/three.py": EXAMPLE,
        "house_g/room/empty/four.py": "",
        "tests/unit/test_long.py": "\n" * 401,
    }
    found = counts.count(make(files, CONTRACT))
    assert (found.rooms, found.rooms_tests) == (2, 0)
    assert (found.file_circles, found.folder_circles) == ([], [])
    assert (found.flat_most, found.flat_most_tests, found.flat_wide) == (2, 1, [])
    assert found.long_modules == ["tests/unit/test_long.py 401"]
    assert found.long_functions == ["house_g/one.py:1 long 41"]
    assert found.lint_names == ["house_g.one", "house_g.one", "house_g.room.three", "house_g.two"]
    assert (found.product_lines, found.test_lines) == (41 + 40 + 9 + 7, 401)
    assert (found.exceptions, found.exceptions_tests) == (1, 0)
    assert found.casts == ["house_g/two.py:4", "house_g/two.py:5"]
    assert found.doctests == 1


def test_a_wide_folder_is_named(make: Make) -> None:
    """Sixteen modules beside each other are one too many, of the product and of the tests."""
    files = {f"{folder}/m{n}.py": "x = 1" for folder in ("house_h", "tests/unit") for n in range(16)}
    assert sorted(counts.count(make(files)).flat_wide) == ["house_h 16", "tests/unit 16"]


def test_every_figure_has_a_meaning_and_a_column(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` explains each figure; `--against` puts old beside new; `--json` gives both."""
    root = make({"house_i/one.py": "x = 1"})
    with pytest.raises(SystemExit):
        main(["counts", "--help"])
    shown = capsys.readouterr().out
    assert main(["counts", "--root", str(root), "--against", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"old", "new"}
    assert list(found["old"]) == list(counts.MEANINGS)
    assert all(name in shown for name in found["old"])
    assert main(["counts", "--root", str(root), "--against", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["old", "new"]
    assert ["rooms", "1", "1"] in [line.split() for line in lines]


def test_no_checkout_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without packages ends with 2 and a word, not with figures of nothing."""
    assert main(["counts", "--root", str(tmp_path)]) == 2
    assert "no folder with an __init__.py" in capsys.readouterr().err


# --- dead declarations ------------------------------------------------------------------------------------------------


def list_unused(root: Path) -> list[str]:
    return sorted(f"{finding.place} {finding.name}" for finding in dead.find_unused_names(read_checkout(root)))


def test_a_name_of_two_files_is_told_apart(make: Make) -> None:
    """A constant that nobody reads is found although another file's of the same name is read."""
    files = {
        "house_j/one.py": "SIZE = 1\nprint(SIZE)",
        "house_j/two.py": "SIZE = 1",
    }
    assert list_unused(make(files)) == ["house_j/two.py:1 SIZE"]


def test_use_by_tests_and_by_itself_is_no_use(make: Make) -> None:
    """A function that only tests and its own body call is dead."""
    files = {
        "house_k/one.py": "def walk():\n    return walk()",
        "tests/test_one.py": "from house_k.one import walk\nwalk()",
    }
    assert list_unused(make(files)) == ["house_k/one.py:1 walk"]


@pytest.mark.parametrize(
    ("user", "is_used"),
    [
        ("from house_l.inner import f\nf()", True),
        ("import house_l.inner\nhouse_l.inner.f()", True),
        ("from house_l import inner\ninner.f()", True),
        ("from house_l import inner as i\ni.f()", True),
        ("from house_l.inner import f", False),
        ("from house_l.inner import f\n__all__ = ['f']", False),
        ("f = 1\nprint(f)", False),
    ],
)
def test_use_is_followed_through_files_that_hand_a_name_on(make: Make, user: str, is_used: bool) -> None:
    """A package's __init__ hands f on; only who calls it, by whatever kind of import, uses it."""
    files = {
        "house_l/inner/__init__.py": "from house_l.inner.deep import f\n__all__ = ['f']",
        "house_l/inner/deep.py": "def f(): ...",
        "house_l/user.py": user,
    }
    root = make({key: text for key, text in files.items() if not key.endswith("__init__.py")})
    (root / "house_l/inner/__init__.py").write_text(files["house_l/inner/__init__.py"])
    found = [entry for entry in list_unused(root) if "deep" in entry]
    assert found == ([] if is_used else ["house_l/inner/deep.py:1 f"])


def test_an_installed_command_is_used(make: Make) -> None:
    """The function that pyproject.toml names for a command is called by whoever types the command."""
    root = make({"house_m/cli.py": "def run(): ..."}, '[project.scripts]\nhouse = "house_m.cli:run"\n')
    assert list_unused(root) == []


@pytest.mark.skipif(importlib.util.find_spec("vulture") is None, reason="vulture is not installed")
def test_the_command_finds_methods_and_needless_excuses(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`dead` reports an unused method and an excuse that nothing needs; an excused name is left out."""
    root = make({"house_n/one.py": "class A:\n    def dead(self): ...\n    def odd(self): ...\nprint(A)"})
    monkeypatch.setattr(dead, "ALIVE", {"odd": "a library calls it", "gone": "nothing is called so"})
    assert main(["dead", "--root", str(root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "house_n/one.py:2: unused method 'dead'",
        "tests/house/dead.py: needless excuse for 'gone'",
    ]
