"""The agent's configuration file, agent.toml."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agent.edge.cpu.settings import CpuSettings
from agent.edge.data.settings import DatasetSettings, SampleSettings
from agent.edge.power.settings import PowerSettings
from agent.edge.sensors import SensorSettings
from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.updates import UpdateSettings
from flchain.wire.fleet import LABEL_FORM, LABEL_PATTERN, LABELS_MAX, NAME_FORM, NAME_PATTERN
from flchain_edge.settings.node import NodeSettings

UNIT = "flchain-agent.service"
"""The systemd unit that runs the agent."""


@dataclass(frozen=True)
class MiningSettings:
    """Scoring of other devices' updates, which earns and costs: docs/mining.md."""

    enabled: bool = field(default=False, metadata={"help": "score other devices' updates on held-out examples"})
    holdout_percent: int = field(
        default=20,
        metadata={"min": 1, "max": 50, "help": "percent of the examples to score on, never to train on"},
    )


@dataclass(frozen=True)
class BoardSettings:
    """What the operator calls this board, and how often it reports to them: docs/operating.md."""

    name: str = field(
        default="", metadata={"pattern": f"|{NAME_PATTERN}", "form": NAME_FORM, "help": "shown by flchain fleet list"}
    )
    labels: tuple[str, ...] = field(
        default=(),
        metadata={"max": LABELS_MAX, "help": "to choose boards by", "example": ["site=north", "roof"]},
    )
    report_s: int = field(
        default=900,
        metadata={
            "min": 0,
            "max": 86_400,
            "help": "seconds between two reports; a change of health is told at once; 0: after each round",
        },
    )

    def __post_init__(self) -> None:
        wrong = [label for label in self.labels if not re.fullmatch(LABEL_PATTERN, label)]
        if wrong:
            raise ValueError(f"labels: each must be {LABEL_FORM}, is {wrong[0]!r}")


@dataclass(frozen=True)
class AgentSettings(NodeSettings):
    """Everything that agent.toml may set."""

    failover_s: int = field(
        default=10, metadata={"min": 1, "max": 3600, "help": "seconds of silence before turning to the next miner"}
    )
    follow: str = field(
        default="full",
        metadata={
            "choices": ("full", "light"),
            "help": "full: receive all updates and compute each model; light: receive the result only, far fewer bytes",
        },
    )
    board: BoardSettings = field(default_factory=BoardSettings)
    cpu: CpuSettings = field(default_factory=CpuSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    power: PowerSettings = field(default_factory=PowerSettings)
    scheduler: SchedulerSettings = field(
        default_factory=SchedulerSettings, metadata={"help": "how the CPU is split; docs/scheduler.md"}
    )
    update: UpdateSettings = field(
        default_factory=UpdateSettings, metadata={"help": "releases of the network's operator; docs/update.md"}
    )
    samples: SampleSettings = field(default_factory=SampleSettings, metadata={"help": "what is kept of the samples"})
    dataset: DatasetSettings = field(
        default_factory=DatasetSettings,
        metadata={"help": "what the model trains on: windows of the sensors' channels"},
    )
    sensors: tuple[SensorSettings, ...] = field(
        default=(), metadata={"help": "one entry for each source of samples; docs/sensors.md"}
    )

    def __post_init__(self) -> None:
        """Raises ValueError, which the file's reader reports as a problem."""
        if self.mining.enabled and self.follow != "full":
            raise ValueError('follow: must be "full" on a device that mines: it scores all updates')

    @property
    def holdout_percent(self) -> int:
        """Part of the data that is scored on and never trained on; 0 on a device that does not mine."""
        return self.mining.holdout_percent if self.mining.enabled else 0

    @property
    def trust_clock(self) -> bool:
        """True if the wall clock counts although no time server has set it."""
        return self.samples.trust_clock
