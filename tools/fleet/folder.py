"""The operator's folder: the key that signs releases, the certificate, the chain, and the state of the rollout.

key.pem  tls-key.pem  ca.pem  tls.pem  genesis.cbor  fleet.toml  rollout.json
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from flchain.base.crypto import PUBLIC_KEY_BYTES, Identity, compute_address
from flchain.base.errors import ConfigError, TryAgain
from flchain.base.types import Address, UnixMillis
from flchain.ledger.genesis import GENESIS_BYTES_MAX, Genesis
from flchain.wire.topics import Role
from flchain_edge.enrolment.client import RegistrarClient, fetch_authority
from flchain_edge.enrolment.enrol import CA_FILE, GENESIS_FILE, KEY_FILE, TLS_FILE, TLS_KEY_FILE, format_time, renew
from flchain_edge.enrolment.messages import (
    EnrolAnswer,
    Token,
    build_enrol_request,
    build_file_request,
    read_hex,
)
from flchain_edge.enrolment.renewal import is_due
from flchain_edge.keys.keystore import load_or_create_identity, load_passphrase
from flchain_edge.keys.private_files import create_private, replace_private
from flchain_edge.keys.tls_key import build_request, load_or_create_tls_key, read_validity
from flchain_edge.mqtt.settings import Endpoint, MqttSettings, parse_endpoint
from flchain_edge.process.chain_files import load_genesis
from flchain_edge.settings.config import load_config
from flchain_edge.settings.node import EnrolmentSettings, KeySettings

SETTINGS_FILE, PUBLIC_FILE = "fleet.toml", "operator.pub"
DEFAULT_FOLDER = Path("~/.flchain-fleet")


@dataclass(frozen=True)
class FleetSettings:
    """fleet.toml, written by `flchain fleet key`."""

    genesis: Path = field(metadata={"help": "the chain's genesis file", "example": "genesis.cbor"})
    key: KeySettings
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    enrolment: EnrolmentSettings = field(default_factory=EnrolmentSettings)


@dataclass(frozen=True)
class FleetFolder:
    """An operator's folder that has been opened."""

    path: Path
    settings: FleetSettings
    genesis: Genesis
    public_key: bytes

    @property
    def address(self) -> Address:
        """Return the operator's address."""
        return compute_address(self.public_key)

    @property
    def chain(self) -> bytes:
        """Return the chain's id."""
        return self.genesis.compute_id()

    def load_identity(self, passphrase: str | None) -> Identity:
        """Return the key that signs releases. Raise ConfigError."""
        key = self.settings.key
        if passphrase is None:
            passphrase = load_passphrase(key.passphrase_env, key.passphrase_file)
        identity = load_or_create_identity(key.file, passphrase)
        if identity.address != self.address:
            raise ConfigError((f"{key.file}: is the key of {identity.address.hex()}, not of {self.address.hex()}",))
        return identity

    def is_key_encrypted(self) -> bool:
        """Return whether signing takes a passphrase that the settings do not name."""
        key = self.settings.key
        is_named = key.passphrase_env is not None or key.passphrase_file is not None
        return not is_named and b"ENCRYPTED" in key.file.read_bytes()[:200]

    def describe_certificate(self) -> str:
        """Return a warning if the certificate ends soon, and what to do; otherwise nothing."""
        path = self.settings.mqtt.tls_certificate
        if path is None:
            return ""
        validity = read_validity(path.read_text())
        if not is_due(validity, _read_time_ms()):
            return ""
        return f"the certificate is good until {format_time(validity.not_after_s)}: renew it with: flchain fleet key"


def open_folder(path: Path) -> FleetFolder:
    """Open an operator's folder. Raise ConfigError."""
    if not (path / SETTINGS_FILE).is_file():
        hint = "make one with: flchain fleet key --token TOKEN"
        raise ConfigError((f"{path}: no fleet is operated from here; {hint}",))
    settings = load_config(path / SETTINGS_FILE, FleetSettings)
    return FleetFolder(path, settings, load_genesis(settings.genesis), _read_public_key(path, settings))


def _read_public_key(path: Path, settings: FleetSettings) -> bytes:
    """Return the key that checks releases: kept aside, since the other one may take a passphrase. Raise ConfigError."""
    file = path / PUBLIC_FILE
    if not file.is_file():
        key = settings.key
        return load_or_create_identity(key.file, load_passphrase(key.passphrase_env, key.passphrase_file)).public_key
    public_key = read_hex(file.read_text().strip(), PUBLIC_KEY_BYTES)
    if not public_key:
        raise ConfigError((f"{file}: is not a public key: copy the folder anew, or make another one",))
    return public_key


def make_folder(path: Path, token: Token, passphrase: str | None, passphrase_file: Path | None) -> Identity:
    """Make the operator's keys, and get a certificate and the chain from the registrar. Safe to repeat.

    Raise ConfigError, TryAgain.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = load_or_create_identity(path / KEY_FILE, passphrase)
        replace_private(path / PUBLIC_FILE, f"{identity.public_key.hex()}\n".encode())
        csr = build_request(load_or_create_tls_key(path / TLS_KEY_FILE), identity.address.hex())
        ca = fetch_authority(token)
        client = RegistrarClient(token.host, token.port, ca)
        answer = client.enrol(build_enrol_request(identity, token, Role.OPERATOR, csr))
        replace_private(path / CA_FILE, ca.encode())
        replace_private(path / TLS_FILE, answer.certificate.encode())
        if not answer.genesis_sha256:
            raise TryAgain(
                f"enrolled as {identity.address.hex()}; the network's genesis does not exist yet: run this again once "
                "it does (flchain registrar network)"
            )
        request = build_file_request(identity, token.fingerprint, "genesis")
        data = client.get_file(request, GENESIS_BYTES_MAX)
        if hashlib.sha256(data).hexdigest() != answer.genesis_sha256:
            raise TryAgain("genesis: arrived damaged, or has just been replaced; run this again")
        replace_private(path / GENESIS_FILE, data)
        load_genesis(path / GENESIS_FILE)
        text = _render_settings(answer, token, passphrase_file)
        create_private(path / SETTINGS_FILE, text.encode())
    except OSError as error:
        raise ConfigError((f"{error.filename or path}: {error.strerror or error}",)) from error
    except ValueError as error:
        raise ConfigError((f"the registrar's answer: {error}",)) from error
    return identity


def _render_settings(answer: EnrolAnswer, token: Token, passphrase_file: Path | None) -> str:
    # Parsed before it is written: a registrar's answer must not add lines of its own to the settings.
    brokers = ", ".join(f'"{parse_endpoint(broker)}"' for broker in answer.brokers)
    protected = f'passphrase_file = "{passphrase_file.resolve()}"\n' if passphrase_file else ""
    return (
        f'genesis = "{GENESIS_FILE}"\n\n[key]\nfile = "{KEY_FILE}"\n{protected}\n'
        f'[mqtt]\nbrokers = [{brokers}]\ntls_ca = "{CA_FILE}"\ntls_certificate = "{TLS_FILE}"\n'
        f'tls_key = "{TLS_KEY_FILE}"\n\n[enrolment]\nregistrar = "{Endpoint(token.host, token.port)}"\n'
        f'fingerprint = "{token.fingerprint.hex()}"\n'
    )


def renew_certificate(folder: FleetFolder, identity: Identity) -> str:
    """Get a new certificate; return until when it is good. Raise ConfigError, TryAgain."""
    where = folder.settings.enrolment.endpoint
    if where is None:
        raise ConfigError((f"{folder.path / SETTINGS_FILE}: [enrolment] registrar: is not set",))
    fingerprint = bytes.fromhex(folder.settings.enrolment.fingerprint)
    return format_time(renew(folder.settings.mqtt, where, fingerprint, identity))


def connect_registrar(folder: FleetFolder) -> tuple[RegistrarClient, bytes]:
    """Return a client of the registrar and its authority's fingerprint. Raise ConfigError."""
    where, ca = folder.settings.enrolment.endpoint, folder.settings.mqtt.tls_ca
    if where is None or ca is None:
        raise ConfigError((f"{folder.path / SETTINGS_FILE}: [enrolment] registrar and [mqtt] tls_ca: are not set",))
    client = RegistrarClient(where.host, where.port, ca.read_text())
    return client, bytes.fromhex(folder.settings.enrolment.fingerprint)


def _read_time_ms() -> UnixMillis:
    return UnixMillis(time.time_ns() // 1_000_000)
