"""The agent's configuration file, agent.toml."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.edge.cpu.settings import CpuSettings
from agent.edge.data.settings import DatasetSettings, SampleSettings
from agent.edge.power.settings import PowerSettings
from agent.edge.sensors import SensorSettings
from agent.scheduling.settings import SchedulerSettings
from flchain_edge.settings.node import NodeSettings

UNIT = "flchain-agent.service"
"""The systemd unit that runs the agent."""


@dataclass(frozen=True)
class MiningSettings:
    """Scoring the others' updates, which earns and costs: docs/mining.md."""

    enabled: bool = field(default=False, metadata={"help": "score other devices' updates on examples held out"})
    holdout_percent: int = field(
        default=20, metadata={"min": 1, "max": 50, "help": "of the examples, to score on and never to train on"}
    )


@dataclass(frozen=True)
class AgentSettings(NodeSettings):
    """What one device is told."""

    failover_s: int = field(
        default=10, metadata={"min": 1, "max": 3600, "help": "turn to the next miner after this silence"}
    )
    follow: str = field(
        default="full",
        metadata={
            "choices": ("full", "light"),
            "help": "full: take all updates and compute each model; light: take the outcome only, far fewer bytes",
        },
    )
    cpu: CpuSettings = field(default_factory=CpuSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    power: PowerSettings = field(default_factory=PowerSettings)
    scheduler: SchedulerSettings = field(
        default_factory=SchedulerSettings, metadata={"help": "how the CPU is split; docs/scheduler.md"}
    )
    samples: SampleSettings = field(default_factory=SampleSettings, metadata={"help": "what is kept of the sensors"})
    dataset: DatasetSettings = field(
        default_factory=DatasetSettings,
        metadata={"help": "what the model learns from: windows of the sensors' channels"},
    )
    sensors: tuple[SensorSettings, ...] = field(
        default=(), metadata={"help": "a source of samples, one entry each; docs/sensors.md"}
    )

    def __post_init__(self) -> None:
        """Raises ValueError, of which the file's reader makes a problem."""
        if self.mining.enabled and self.follow != "full":
            raise ValueError('follow: must be "full" on a device that mines: it scores everybody\'s updates')

    @property
    def holdout_percent(self) -> int:
        """Share of the data that is scored on and never trained on; 0 on a device that does not mine."""
        return self.mining.holdout_percent if self.mining.enabled else 0

    @property
    def trust_clock(self) -> bool:
        """Whether the wall clock counts although no time server has set it."""
        return self.samples.trust_clock
