"""Run in a process of its own: load the rules with some sources changed, and say which vector fails first.

Standard input is JSON, file -> source; standard output is JSON: the name of the first vector that fails, or null.
The changes are in place before the first module of the protocol is loaded, and nothing is written to disk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from tests.mutants.table import ROOT

RULES = "flchain"
OF_DEVICES = ("flchain/light/", "flchain/ledger/certificate.py")
"""Changes here fail the vectors of devices first."""


class ChangedSource(SourceFileLoader):
    """Compiles another source than the file's; neither reads nor writes bytecode."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._source.encode(), self.path)
        return code


class ChangedFinder(MetaPathFinder):
    """Finds the changed sources before the ordinary finders find the files."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = {str(ROOT / file): source for file, source in sources.items()}
        self.loaded: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin not in self._sources:
            return None
        self.loaded.add(spec.origin)
        loader = ChangedSource(fullname, spec.origin, self._sources[spec.origin])
        places = spec.submodule_search_locations
        return spec_from_file_location(fullname, spec.origin, loader=loader, submodule_search_locations=places)

    def list_not_loaded(self) -> list[str]:
        """The changed files that no module came from."""
        return sorted(set(self._sources) - self.loaded)


def find_first_failure(sources: Mapping[str, str]) -> str | None:
    """The name of the first vector that fails with these sources in place, or None."""
    assert not any(name.partition(".")[0] == RULES for name in sys.modules), "the rules are loaded already"
    finder = ChangedFinder(sources)
    sys.meta_path.insert(0, finder)

    from tests.vectors.light import check as light
    from tests.vectors.transitions import check as transitions

    assert not finder.list_not_loaded(), f"not loaded: {finder.list_not_loaded()}"
    # Where they are likely to fail is looked at first: most mutants are then caught in a fraction of the time.
    is_of_devices = any(file.startswith(OF_DEVICES) for file in sources)
    readers = [transitions.find_differences, light.find_differences]
    for find_differences in reversed(readers) if is_of_devices else readers:
        for name, difference in find_differences():
            if difference:
                return name
    return None


if __name__ == "__main__":
    sys.path.insert(0, str(Path(ROOT)))
    print(json.dumps(find_first_failure(json.load(sys.stdin))))
