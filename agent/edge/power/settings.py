"""The section [power] of agent.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

AUTO = "auto"


@dataclass(frozen=True)
class PowerSettings:
    """How the board's power and heat are measured; docs/power.md."""

    board: str = field(
        default=AUTO,
        metadata={"help": "profile to estimate power from where no sensor measures it; auto: by the board's name"},
    )
    boards_dir: Path | None = field(default=None, metadata={"help": "folder of profiles, if not the installed one"})
    board_chip: str = field(
        default="",
        metadata={"help": "hwmon chip that measures the whole board, if there are several: its name, or as 1-0040"},
    )
