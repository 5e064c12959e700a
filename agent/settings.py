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
    mining: MiningSettings = field(default_factory=MiningSettings)
    power: PowerSettings = field(default_factory=PowerSettings)
