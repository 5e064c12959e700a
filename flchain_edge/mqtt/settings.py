"""Where the broker is, how this node identifies itself, and what the broker publishes when the node vanishes."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path

from flchain.base.errors import ConfigError

BROKERS_MAX = 16
"""Brokers that one node may know."""
HOST_PATTERN = r"[A-Za-z0-9._:%-]{1,253}"
"""Names in ASCII and addresses, without anything that configuration files or tokens would misread."""


@dataclass(frozen=True)
class Endpoint:
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class MqttSettings:
    """Where the broker is and how this node identifies itself; a section of the configuration file."""

    host: str = field(default="127.0.0.1", metadata={"help": "name or address of the broker", "min": 1})
    port: int = field(default=1883, metadata={"min": 1, "max": 65535, "help": "1883, or 8883 with TLS"})
    client_id: str = field(default="", metadata={"max": 64, "help": "default: the node's own address"})
    username: str | None = field(default=None, metadata={"help": "only if the broker asks for one"})
    password: str | None = field(
        default=None, repr=False, metadata={"secret": True, "help": "better set FLCHAIN_MQTT_PASSWORD than this"}
    )
    tls_ca: Path | None = field(
        default=None, metadata={"help": "PEM of the authority that signed the broker's certificate; turns TLS on"}
    )
    tls_certificate: Path | None = field(default=None, metadata={"help": "PEM of this node's client certificate"})
    tls_key: Path | None = field(default=None, metadata={"help": "PEM of its key"})
    keepalive_s: int = field(default=30, metadata={"min": 1, "max": 3600, "help": "seconds between pings"})
    brokers: tuple[str, ...] = field(
        default=(),
        metadata={
            "max": BROKERS_MAX,
            "help": "host:port of several brokers, instead of host and port; the first is preferred",
            "example": ["edge-1:8883", "edge-2:8883"],
        },
    )
    return_s: int = field(
        default=300,
        metadata={"min": 1, "max": 86_400, "help": "seconds on another broker before the first is tried again"},
    )

    def __post_init__(self) -> None:
        try:
            self.endpoints  # noqa: B018 - only whether they can be read
        except ValueError as error:
            raise ValueError(f"brokers: {error}") from error

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where to connect, the preferred broker first; never empty."""
        return tuple(parse_endpoint(text) for text in self.brokers) or (Endpoint(self.host, self.port),)


def parse_endpoint(text: str) -> Endpoint:
    """Read host:port or [IPv6 address]:port. Raise ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not colon or not re.fullmatch(HOST_PATTERN, host) or not is_port:
        raise ValueError(f'must be "host:port", is "{text[:60]}"')
    return Endpoint(host, int(port))


@dataclass(frozen=True)
class Will:
    """What the broker publishes for this node, at QoS 1, when it vanishes without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = False


def build_tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """Build a TLS context from the settings, or None without `tls_ca`. Raise ConfigError when a file cannot be used."""
    if settings.tls_ca is None:
        if settings.tls_certificate or settings.tls_key:
            raise ConfigError(("[mqtt] tls_ca: needed as well when tls_certificate or tls_key is given",))
        return None
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ConfigError(("[mqtt] tls_certificate and tls_key: give both or none",))
    try:
        context = ssl.create_default_context(cafile=str(settings.tls_ca))
    except OSError as error:
        raise ConfigError((f"[mqtt] tls_ca: {settings.tls_ca}: {error.strerror or error}",)) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_certificate is not None and settings.tls_key is not None:
        try:
            # An empty passphrase: a key that has one must fail here, and not ask for it on the terminal.
            context.load_cert_chain(str(settings.tls_certificate), str(settings.tls_key), password="")
        except OSError as error:
            raise ConfigError((f"[mqtt] tls_certificate or tls_key: {error.strerror or error}",)) from error
    return context


def with_client_id(settings: MqttSettings, client_id: str) -> MqttSettings:
    """Return the settings, with `client_id` if the configuration names none."""
    return settings if settings.client_id else replace(settings, client_id=client_id)
