"""Energy counters of x86 processors (Documentation/power/powercap): microjoules that wrap at `max_energy_range_uj`.

The domain `psys` is the whole platform where it exists; otherwise the packages, which include cores and graphics, and
their memory, which they do not. Screen, disks and losses of the supply are then missing. Since Linux 5.10 only root
may read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.edge.power.files import SensorFiles
from agent.edge.power.source import NOTHING, Look
from agent.scheduling.energy import unwrap


@dataclass
class Domain:
    """One counter with its wraps undone."""

    path: Path
    range_max_uj: int
    last_uj: int | None = None
    total_uj: int = 0

    def process(self, now_uj: int) -> int:
        if self.last_uj is not None:
            self.total_uj += unwrap(self.last_uj, now_uj, self.range_max_uj)
        self.last_uj = now_uj
        return self.total_uj


class Rapl:
    """Energy that the processor, or the platform, has used since the first reading."""

    def __init__(self, files: SensorFiles, board_chip: str = "") -> None:
        self._files = files
        self._domains: dict[Path, Domain] = {}

    def find(self) -> bool:
        files, known, found = self._files, self._domains, dict[str, list[Path]]()
        for folder in files.find("class/powercap/intel-rapl:*"):
            name = files.read_text(folder / "name", is_optional=True) or ""
            found.setdefault(name.partition("-")[0], []).append(folder)
        folders = found.get("psys") or found.get("package", []) + found.get("dram", [])
        self._domains = {}
        for folder in folders:
            path = folder / "energy_uj"
            range_max_uj = files.read_unsigned(folder / "max_energy_range_uj")
            if range_max_uj:
                self._domains[path] = known.get(path) or Domain(path, range_max_uj)
        return bool(self._domains)

    def read(self) -> Look:
        counted = []
        for path, domain in self._domains.items():
            now_uj = self._files.read_unsigned(path)
            if now_uj is None or now_uj > domain.range_max_uj:
                domain.last_uj = None  # unknown how often it wraps until it can be read again
                return NOTHING
            counted.append(domain.process(now_uj))
        return Look(counter_j=sum(counted) / 1e6) if counted else NOTHING
