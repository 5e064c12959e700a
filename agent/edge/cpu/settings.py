"""What an operator sets of training's and mining's share of the board."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CpuSettings:
    """What training and mining may take of this board; they run as processes of their own (docs/cpu.md)."""

    mechanism: str = field(
        default="auto",
        metadata={
            "choices": ("auto", "cgroup2", "cgroup1", "duty-cycle", "none"),
            "help": "how shares are enforced; auto takes the first that works, and the log says which",
        },
    )
    train_percent: int = field(
        default=100, metadata={"min": 1, "max": 100, "help": "most that training gets of the whole CPU, all cores"}
    )
    mine_percent: int = field(
        default=100, metadata={"min": 1, "max": 100, "help": "the same for mining, if it is enabled"}
    )
    threads: int = field(
        default=1, metadata={"min": 1, "max": 64, "help": "of one training step; one thread uses at most one core"}
    )
    memory_max_mb: int = field(
        default=256, metadata={"min": 64, "max": 65_536, "help": "of each; what takes more is ended and reported"}
    )
    niceness: int = field(
        default=5, metadata={"min": 0, "max": 19, "help": "how far both stand back behind other processes"}
    )
