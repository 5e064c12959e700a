"""The agent's configuration file, agent.toml."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.power_settings import PowerSettings
from flchain_edge.node_settings import NodeSettings


@dataclass(frozen=True)
class AgentSettings(NodeSettings):
    """What one device is told."""

    failover_s: int = field(
        default=10, metadata={"min": 1, "max": 3600, "help": "turn to the next miner after this silence"}
    )
    power: PowerSettings = field(default_factory=PowerSettings)
