"""What the configuration files of agent and miner share, and the key that they name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flchain.base.crypto import Identity
from flchain.base.types import Hash
from flchain_edge.keys.keystore import load_or_create_identity, load_passphrase
from flchain_edge.mqtt.settings import Endpoint, MqttSettings, parse_endpoint

HASH_FORM = "64 digits of 0-9 and a-f"


@dataclass(frozen=True)
class KeySettings:
    """Where the node's Ed25519 key is, and its passphrase if it has one."""

    file: Path = field(metadata={"help": "PKCS#8 PEM, mode 600; made at the first start", "example": "key.pem"})
    passphrase_env: str | None = field(default=None, metadata={"help": "environment variable with its passphrase"})
    passphrase_file: Path | None = field(default=None, metadata={"help": "file with its passphrase"})


@dataclass(frozen=True)
class LogSettings:
    """What is logged to stderr, which under systemd is the journal."""

    level: str = field(default="info", metadata={"choices": ("debug", "info", "warning", "error")})
    file: Path | None = field(
        default=None,
        metadata={
            "help": "also log here, if there is no journal; at most two files of 8 MB",
            "example": "node.log",
        },
    )


@dataclass(frozen=True)
class EnrolmentSettings:
    """Which registrar renews this node's certificate; written by `enroll`."""

    registrar: str = field(
        default="", metadata={"pattern": r"|[^\s/]+:\d{1,5}", "form": "HOST:PORT", "example": "registrar.local:8443"}
    )
    fingerprint: str = field(
        default="",
        metadata={"pattern": "|[0-9a-f]{64}", "form": HASH_FORM, "help": "SHA-256 of its authority's certificate"},
    )
    operators: Path | None = field(
        default=None,
        metadata={"help": "file with the keys whose releases are installed, one a line", "example": "operators.txt"},
    )

    def __post_init__(self) -> None:
        if self.registrar:
            try:
                parse_endpoint(self.registrar)
            except ValueError as error:
                raise ValueError(f"registrar: {error}") from error
        if bool(self.registrar) != bool(self.fingerprint):
            raise ValueError("registrar and fingerprint: give both or none")

    @property
    def endpoint(self) -> Endpoint | None:
        """Return where the registrar is, if there is one."""
        return parse_endpoint(self.registrar) if self.registrar else None


@dataclass(frozen=True)
class NodeSettings:
    """The settings of every node; rules and names of the chain are in the genesis file."""

    genesis: Path = field(metadata={"help": "the chain's genesis file", "example": "genesis.cbor"})
    model: Path = field(metadata={"help": "the .tflite file that the genesis names", "example": "model.tflite"})
    examples: Path = field(
        metadata={
            "help": "this node's own data, arrays x and y, to train or to score on; they never leave it",
            "example": "examples.npz",
        }
    )
    data_dir: Path = field(metadata={"help": "where this node's database is kept", "example": "data"})
    key: KeySettings
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    enrolment: EnrolmentSettings = field(default_factory=EnrolmentSettings)
    log: LogSettings = field(default_factory=LogSettings)
    until_round: int = field(default=0, metadata={"min": 0, "help": "take part up to this round; 0: without end"})
    checkpoint: str = field(
        default="",
        metadata={
            "pattern": "|[0-9a-f]{64}",
            "form": HASH_FORM,
            "help": "hash of a header to trust, for a node that was away for too long; see: flchain chain show",
        },
    )

    def get_checkpoint(self) -> Hash | None:
        """Return the header's hash, if one is given."""
        return Hash(bytes.fromhex(self.checkpoint)) if self.checkpoint else None


def load_identity(settings: NodeSettings) -> Identity:
    """Return the node's key, made on first use. Raise ConfigError."""
    passphrase = load_passphrase(settings.key.passphrase_env, settings.key.passphrase_file)
    return load_or_create_identity(settings.key.file, passphrase)
