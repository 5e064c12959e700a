"""The miner's configuration file, miner.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flchain_edge.mqtt import MqttSettings
from flchain_edge.node_settings import KeySettings, LogSettings


@dataclass(frozen=True)
class MinerSettings:
    """What one miner is told; rules and names of the chain are in the genesis file."""

    genesis: Path = field(metadata={"help": "the chain's genesis file", "example": "genesis.cbor"})
    model: Path = field(metadata={"help": "the .tflite file that the genesis names", "example": "model.tflite"})
    examples: Path = field(
        metadata={"help": "arrays x and y of this miner's own, to score updates on", "example": "examples.npz"}
    )
    data_dir: Path = field(metadata={"help": "where the ledger is kept", "example": "data"})
    key: KeySettings
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    log: LogSettings = field(default_factory=LogSettings)
    until_round: int = field(default=0, metadata={"min": 0, "help": "pause after this round; 0: go on for ever"})
