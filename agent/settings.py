"""The agent's configuration file, agent.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flchain_edge.mqtt import MqttSettings
from flchain_edge.node_settings import KeySettings, LogSettings


@dataclass(frozen=True)
class AgentSettings:
    """What one device is told; rules and names of the chain are in the genesis file."""

    genesis: Path = field(metadata={"help": "the chain's genesis file", "example": "genesis.cbor"})
    model: Path = field(metadata={"help": "the .tflite file that the genesis names", "example": "model.tflite"})
    examples: Path = field(
        metadata={"help": "arrays x and y to train on; they never leave this device", "example": "examples.npz"}
    )
    data_dir: Path = field(metadata={"help": "where the device's database is kept", "example": "data"})
    key: KeySettings
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    log: LogSettings = field(default_factory=LogSettings)
    until_round: int = field(default=0, metadata={"min": 0, "help": "take part up to this round; 0: go on for ever"})
    failover_s: int = field(
        default=10, metadata={"min": 1, "max": 3600, "help": "turn to the next miner after this silence"}
    )
