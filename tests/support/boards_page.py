"""The table of boards in docs/boards.md, from the profiles: after a change of one `python -m
tests.support.boards_page`."""

from __future__ import annotations

import re
from pathlib import Path

from agent.edge.power.profiles import INSTALLED_DIRS, ProfileFile, load_profiles
from agent.scheduling.memory import compute_parameters_max

PATH = Path(__file__).parents[2] / "docs" / "boards.md"
BEGIN, END = "<!-- profiles: begin -->", "<!-- profiles: end -->"
KEPT_BY_FIRMWARE = 0.17
"""Of a Raspberry Pi's 512 MiB the kernel manages about 425 MB: the part that firmware and kernel keep."""
COLUMNS = (
    "profile",
    "board",
    "cores",
    "memory, GiB",
    "largest model, smallest memory",
    "power meter",
    "watchdog",
    "reset line",
)
ORDER = (
    "rpi-zero-2-w",
    "rpi-3b-plus",
    "rpi-4",
    "rpi-cm4",
    "rpi-5",
    "rpi-cm5",
    "jetson-nano",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "x86-64",
    "qemu-arm64",
)


def build_table() -> str:
    """Return the part of the page between its two marks."""
    files = load_profiles(INSTALLED_DIRS[-1])
    assert set(ORDER) == set(files), "every profile has its row"
    rows = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
        *(_build_row(name, files[name]) for name in ORDER),
    ]
    control_groups = _group({name: files[name].cgroup for name in ORDER})
    accelerators = _group({name: files[name].accelerator for name in ORDER})
    return "\n".join(
        [BEGIN, "", *rows, "", "Control groups:", "", *control_groups, "", "Accelerators:", "", *accelerators, "", END]
    )


def _group(texts: dict[str, str]) -> list[str]:
    """Return a line for each different text, with the profiles that say so."""
    lines = []
    for text in dict.fromkeys(text for text in texts.values() if text):
        names = ", ".join(f"`{name}`" for name, said in texts.items() if said == text)
        lines.append(f"- {names}: {text}.")
    return lines


def _build_row(name: str, file: ProfileFile) -> str:
    sizes = ", ".join(f"{size / 1024:g}" for size in file.memory_mb)
    largest = compute_parameters_max(round(file.memory_mb[0] * 1024 * 1024 * (1 - KEPT_BY_FIRMWARE)))
    cells = (
        f"`{name}`",
        ", ".join(f'"{model}"' for model in file.models) or f"no device tree, {file.machine}",
        f"{file.profile.cores}",
        sizes,
        f"{largest / 1e6:.1f} M",
        ", ".join(file.power_sensors) or "none",
        f"{file.watchdog_s} s" if file.watchdog else "none",
        file.reset_line or "none",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    page = PATH.read_text()
    PATH.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda found: build_table(), page, flags=re.S))
