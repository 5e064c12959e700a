"""The miner's configuration file, miner.toml."""

from __future__ import annotations

from dataclasses import dataclass

from flchain_edge.settings.node import NodeSettings

UNIT = "flchain-miner.service"
"""The systemd unit that runs the miner."""


@dataclass(frozen=True)
class MinerSettings(NodeSettings):
    """The settings of a miner: those that every node has, and no others."""
