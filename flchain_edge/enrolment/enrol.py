"""Enrol a node with its operator's registrar: keys are made and stay here, the rest comes over a connection pinned by
the token. Every step can be repeated: after a crash, or a second call, the same keys get the same certificate.

The folder's files, each mode 600 and whole or absent; the configuration comes last, so a folder with one is complete:

    key.pem  tls-key.pem  ca.pem  tls.pem  genesis.cbor  model.tflite  agent.toml (or miner.toml)
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError, TryAgain
from flchain.ledger.genesis import GENESIS_BYTES_MAX, Genesis
from flchain_edge.enrolment.client import RegistrarClient, check_authority, fetch_authority
from flchain_edge.enrolment.messages import (
    EnrolAnswer,
    EnrolRequest,
    Token,
    build_enrol_request,
    build_file_request,
    build_renew_request,
)
from flchain_edge.enrolment.operators import keep_operators
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.keys.private_files import create_private, replace_private
from flchain_edge.keys.tls_key import build_request, load_or_create_tls_key, read_validity
from flchain_edge.model.model_files import MODEL_BYTES_MAX
from flchain_edge.mqtt.settings import Endpoint, MqttSettings, parse_endpoint
from flchain_edge.newer_python import tomllib
from flchain_edge.process.chain_files import load_genesis, load_model_file
from flchain_edge.settings.config import parse_tables
from flchain_edge.settings.toml_text import render_toml
from flchain_edge.storage.sqlite import StoreFull

KEY_FILE, TLS_KEY_FILE, CA_FILE, TLS_FILE = "key.pem", "tls-key.pem", "ca.pem", "tls.pem"
GENESIS_FILE, MODEL_FILE, OPERATORS_FILE = "genesis.cbor", "model.tflite", "operators.txt"
PROVISIONED_FILE = "provisioned.toml"
"""Settings that were laid down before the enrolment, for the configuration that it writes."""
FOUND_OUT = ("genesis", "model", "data_dir", "key", "mqtt", "enrolment")


@dataclass(frozen=True)
class Newcomer:
    """The node that enrols, and where its files go. `role` is device or miner."""

    folder: Path
    role: str
    config_name: str
    passphrase: str | None = None
    passphrase_file: Path | None = None
    get_members: Callable[[Genesis], Iterable[bytes]] | None = None
    """Return the public keys that the genesis must contain; None where a node may join later."""


@dataclass(frozen=True)
class Enrolled:
    """The outcome of an enrolment."""

    identity: Identity
    config: Path
    is_new: bool


def enrol(token: Token, node: Newcomer, answer: EnrolAnswer | None = None) -> Enrolled:
    """Make keys, get the certificate and the chain's files, write the configuration.

    With an `answer` that was brought here the registrar is not asked: genesis and model must be in the folder. Raise
    ConfigError (the token or this folder is wrong), StoreFull, TryAgain.
    """
    folder, config = node.folder, node.folder / node.config_name
    try:
        identity, csr = _make_keys(node)
        if config.exists():
            return Enrolled(identity, config, False)
        client: RegistrarClient | None = None
        if answer is None:
            ca = fetch_authority(token)
            client = RegistrarClient(token.host, token.port, ca)
            answer = client.enrol(build_enrol_request(identity, token, node.role, csr))
        else:
            ca = check_authority(answer.ca, token)
        replace_private(folder / CA_FILE, ca.encode())
        replace_private(folder / TLS_FILE, answer.certificate.encode())
        for wanted in (
            ("genesis", GENESIS_FILE, answer.genesis_sha256, GENESIS_BYTES_MAX),
            ("model", MODEL_FILE, answer.model_sha256, MODEL_BYTES_MAX),
        ):
            _bring_file(client, token, node, identity, wanted)
        _check_files(node, identity)
        keep_operators(folder / OPERATORS_FILE, answer.operators)
        create_private(config, _add_provisioned(_render_config(answer, token, node.passphrase_file), folder).encode())
    except OSError as error:
        _raise_if_full(error, folder)
        raise ConfigError((f"{error.filename or folder}: {error.strerror or error}",)) from error
    except ValueError as error:
        raise ConfigError((f"the registrar's answer: {error}",)) from error
    return Enrolled(identity, config, True)


def build_request_file(token: Token, node: Newcomer) -> EnrolRequest:
    """Build what to take to a registrar that is out of reach, for `flchain registrar sign`. Raise ConfigError."""
    try:
        identity, csr = _make_keys(node)
    except OSError as error:
        raise ConfigError((f"{error.filename or node.folder}: {error.strerror or error}",)) from error
    return build_enrol_request(identity, token, node.role, csr)


def _make_keys(node: Newcomer) -> tuple[Identity, bytes]:
    """Return the node's identity and its certificate request, the same at every call. Raise OSError, ConfigError."""
    node.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        identity = load_or_create_identity(node.folder / KEY_FILE, node.passphrase)
        tls_key = load_or_create_tls_key(node.folder / TLS_KEY_FILE)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            _raise_if_full(error.__cause__, node.folder)
        raise
    return identity, build_request(tls_key, identity.address.hex())


def _raise_if_full(error: OSError, folder: Path) -> None:
    """Raise StoreFull if there is no room: that is nobody's configuration, and it passes."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StoreFull(f"{error.filename or folder}: {error.strerror}") from error


def _bring_file(
    client: RegistrarClient | None, token: Token, node: Newcomer, identity: Identity, wanted: tuple[str, str, str, int]
) -> None:
    name, file, digest, bytes_max = wanted
    path = node.folder / file
    if not digest:
        raise TryAgain(
            f"enrolled as {identity.address.hex()}; the network's {name} does not exist yet: run this again "
            "once the operator has made it (flchain registrar network)"
        )
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return
    if client is None:
        raise ConfigError((f"{path}: copy the network's {name} there, the one with SHA-256 {digest}",))
    data = client.get_file(build_file_request(identity, token.fingerprint, name), bytes_max)
    if hashlib.sha256(data).hexdigest() != digest:
        raise TryAgain(f"{name}: arrived damaged, or has just been replaced; run this again")
    replace_private(path, data)


def _check_files(node: Newcomer, identity: Identity) -> None:
    genesis = load_genesis(node.folder / GENESIS_FILE)
    load_model_file(node.folder / MODEL_FILE, genesis)
    if node.get_members is not None and identity.public_key not in node.get_members(genesis):
        raise TryAgain(
            f"enrolled as {identity.address.hex()}, but the genesis of {genesis.name} does not include this device: "
            "run this again once the operator has made one that does"
        )


def _render_config(answer: EnrolAnswer, token: Token, passphrase_file: Path | None) -> str:
    # Parsed before it is written: a registrar's answer must not add lines of its own to the configuration.
    brokers = ", ".join(f'"{parse_endpoint(broker)}"' for broker in answer.brokers)
    protected = f'passphrase_file = "{passphrase_file.resolve()}"\n' if passphrase_file else ""
    return (
        f'genesis = "{GENESIS_FILE}"\nmodel = "{MODEL_FILE}"\n'
        '# This node\'s own data, arrays x and y: put them here, they never leave it.\nexamples = "examples.npz"\n'
        f'data_dir = "data"\n\n[key]\nfile = "{KEY_FILE}"\n{protected}\n'
        f'[mqtt]\nbrokers = [{brokers}]\ntls_ca = "{CA_FILE}"\ntls_certificate = "{TLS_FILE}"\n'
        f'tls_key = "{TLS_KEY_FILE}"\n\n[enrolment]\nregistrar = "{Endpoint(token.host, token.port)}"\n'
        f'fingerprint = "{token.fingerprint.hex()}"\noperators = "{OPERATORS_FILE}"\n'
    )


def _add_provisioned(config: str, folder: Path) -> str:
    """Return the configuration with the settings that were laid down for it. Raise ConfigError, OSError."""
    path = folder / PROVISIONED_FILE
    extra = parse_tables(path.read_bytes(), path.name) if path.is_file() else {}
    return render_toml(merge_provisioned(tomllib.loads(config), extra)) if extra else config


def merge_provisioned(tables: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's tables with those of `extra` in their place, but for what enrolment has found out."""
    return {**tables, **{key: value for key, value in extra.items() if key not in FOUND_OUT}}


def renew(
    mqtt: MqttSettings,
    registrar: Endpoint,
    fingerprint: bytes,
    identity: Identity,
    operators: Path | None = None,
) -> int:
    """Get a new certificate for the TLS key that is there; return when it ends, seconds since 1970. Block meanwhile.

    The operators' keys are kept in the file `operators` if that holds none yet.
    Raise ConfigError (refused, files that cannot be used), TryAgain.
    """
    if mqtt.tls_ca is None or mqtt.tls_certificate is None or mqtt.tls_key is None:
        raise ConfigError(("[mqtt]: there is no certificate to renew",))
    try:
        ca = mqtt.tls_ca.read_text()
        csr = build_request(load_or_create_tls_key(mqtt.tls_key), identity.address.hex())
        answer = RegistrarClient(registrar.host, registrar.port, ca).renew(
            build_renew_request(identity, fingerprint, csr)
        )
        ends_s = read_validity(answer.certificate).not_after_s
        replace_private(mqtt.tls_certificate, answer.certificate.encode())
        if operators is not None:
            keep_operators(operators, answer.operators)
    except OSError as error:
        raise ConfigError((f"{error.filename}: {error.strerror or error}",)) from error
    except ValueError as error:
        raise ConfigError((f"registrar: answered with {error}",)) from error
    return ends_s


def format_time(seconds: int) -> str:
    """Format a time for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
