"""What an operator sets of training's and mining's share of the board."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CpuSettings:
    """What training and mining may use of this board; each runs in a process of its own (docs/cpu.md)."""

    mechanism: str = field(
        default="auto",
        metadata={
            "choices": ("auto", "cgroup2", "cgroup1", "duty-cycle", "none"),
            "help": "how CPU shares are enforced; auto takes the first that works, and logs which",
        },
    )
    train_percent: int = field(
        default=100, metadata={"min": 1, "max": 100, "help": "most that training gets of all cores together"}
    )
    mine_percent: int = field(
        default=100, metadata={"min": 1, "max": 100, "help": "the same for mining, if it is enabled"}
    )
    threads: int = field(
        default=1, metadata={"min": 1, "max": 64, "help": "threads of one training step; each uses at most one core"}
    )
    memory_max_mb: int = field(
        default=256, metadata={"min": 64, "max": 65_536, "help": "of each; a process that takes more is ended"}
    )
    niceness: int = field(
        default=5, metadata={"min": 0, "max": 19, "help": "priority of both, as in nice(1): 19 gives way to everything"}
    )
