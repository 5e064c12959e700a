"""The graph of imports, and its circles.

Every import counts: at the top of a file, inside a function, and under `if TYPE_CHECKING`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import grimp

Arrows = Mapping[str, frozenset[str]]
"""By importer: what it imports."""


def read_graph(root: Path, packages: Sequence[str]) -> grimp.ImportGraph:
    """Return the graph of a checkout's packages, without what they import from elsewhere.

    Nothing of the checkout is run. Raises LookupError if a package would come from another place.
    """
    sys.path.insert(0, str(root.resolve()))
    importlib.invalidate_caches()
    try:
        for package in packages:
            found = importlib.util.find_spec(package)
            if found is None or found.origin is None or not Path(found.origin).is_relative_to(root.resolve()):
                raise LookupError(f"{package} is not found below {root} but at {found and found.origin}")
        return grimp.build_graph(*packages, exclude_type_checking_imports=False, cache_dir=None)
    finally:
        sys.path.pop(0)


def list_file_arrows(graph: grimp.ImportGraph) -> dict[str, frozenset[str]]:
    """Return what each file imports; a package stands for its `__init__.py`."""
    return {module: frozenset(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def list_sibling_arrows(graph: grimp.ImportGraph) -> dict[str, dict[str, frozenset[str]]]:
    """Return, by folder, what its members import of each other; a member is a file, or a folder with all below it."""
    folders: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for importer, imported in list_file_arrows(graph).items():
        for other in imported:
            if (fork := _find_fork(importer, other)) is not None:
                folder, one, two = fork
                folders[folder][one].add(two)
    return {
        folder: {one: frozenset(others) for one, others in arrows.items()} for folder, arrows in sorted(folders.items())
    }


def _find_fork(importer: str, imported: str) -> tuple[str, str, str] | None:
    """Return the folder in which two modules part, and its two members; None if one contains the other."""
    one, two = importer.split("."), imported.split(".")
    shared = 0
    while shared < min(len(one), len(two)) and one[shared] == two[shared]:
        shared += 1
    if shared == min(len(one), len(two)):
        return None
    return ".".join(one[:shared]), ".".join(one[: shared + 1]), ".".join(two[: shared + 1])


def find_file_circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Return a path around each knot of files that import each other."""
    return find_circles(list_file_arrows(graph))


def find_folder_circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Return a path around each knot of a folder's members, of which at least one is itself a folder."""
    return [
        path
        for arrows in list_sibling_arrows(graph).values()
        for path in find_circles(arrows)
        if any(graph.find_children(member) for member in path)
    ]


def explain_step(graph: grimp.ImportGraph, one: str, two: str) -> str:
    """Return an import, with file and line, that makes one member of a circle depend on the next."""
    inner = [(a, b) for a in _list_below(graph, one) for b in _list_below(graph, two)]
    for importer, imported in sorted(inner):
        for detail in graph.get_import_details(importer=importer, imported=imported):
            return f"{importer}:{detail['line_number']}: {detail['line_contents'].strip()}"
    return f"{one} -> {two}"


def _list_below(graph: grimp.ImportGraph, member: str) -> list[str]:
    return [member, *graph.find_descendants(member)]


def find_circles(arrows: Arrows) -> list[list[str]]:
    """Return, for each knot (strongly connected component of two or more), a shortest path around it.

    The path begins and ends with the same name.
    """
    return [_find_path(arrows, knot) for knot in find_knots(arrows)]


def find_knots(arrows: Arrows) -> list[frozenset[str]]:
    """Return the largest sets of two or more names each of which reaches every other."""
    reached = {name: _reach(arrows, name) for name in arrows}
    knots = {frozenset(other for other in reached[name] if name in reached.get(other, ())) for name in arrows}
    return sorted((knot for knot in knots if len(knot) > 1), key=min)


def _reach(arrows: Arrows, start: str) -> set[str]:
    """Return all that `start` imports, directly or by others; itself too if it is in a circle."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for other in arrows.get(ahead.pop(), frozenset()) - found:
            found.add(other)
            ahead.append(other)
    return found


def _find_path(arrows: Arrows, knot: frozenset[str]) -> list[str]:
    """Return a shortest way from the knot's first name back to it."""
    start = min(knot)
    ways, seen = deque([[start]]), {start}
    while True:  # ends: each name of a knot reaches the first
        way = ways.popleft()
        for other in sorted(arrows[way[-1]] & knot):
            if other == start:
                return [*way, start]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
