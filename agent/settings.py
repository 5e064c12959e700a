"""The agent's configuration file, agent.toml."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    follow: str = field(
        default="full",
        metadata={
            "choices": ("full", "light"),
            "help": "full: take all updates and compute each model; light: take the outcome only, far fewer bytes",
        },
    )
    mining: MiningSettings = field(default_factory=MiningSettings)
    power: PowerSettings = field(default_factory=PowerSettings)

    def __post_init__(self) -> None:
        """Raises ValueError, of which the file's reader makes a problem."""
        if self.mining.enabled and self.follow != "full":
            raise ValueError('follow: must be "full" on a device that mines: it scores everybody\'s updates')
