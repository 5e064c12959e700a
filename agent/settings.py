"""The agent's configuration file, agent.toml."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.edge.data_settings import DatasetSettings, SampleSettings
from agent.edge.sensors import SensorSettings
from agent.power_settings import PowerSettings
from flchain_edge.node_settings import NodeSettings


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
    mining: MiningSettings = field(default_factory=MiningSettings)
    power: PowerSettings = field(default_factory=PowerSettings)
    samples: SampleSettings = field(default_factory=SampleSettings, metadata={"help": "what is kept of the sensors"})
    dataset: DatasetSettings = field(
        default_factory=DatasetSettings,
        metadata={"help": "what the model learns from: windows of the sensors' channels"},
    )
    sensors: tuple[SensorSettings, ...] = field(
        default=(), metadata={"help": "a source of samples, one entry each; docs/sensors.md"}
    )

    @property
    def holdout_percent(self) -> int:
        """Share of the data that is scored on and never trained on; 0 on a device that does not mine."""
        return self.mining.holdout_percent if self.mining.enabled else 0

    @property
    def trust_clock(self) -> bool:
        """Whether the wall clock counts although no time server has set it."""
        return self.samples.trust_clock
