"""The miner's configuration file, miner.toml."""

from __future__ import annotations

from dataclasses import dataclass

from flchain_edge.settings.node import NodeSettings

UNIT = "flchain-miner.service"
"""The systemd unit that runs the miner."""


@dataclass(frozen=True)
class MinerSettings(NodeSettings):
    """What one miner is told: no more than every node."""
