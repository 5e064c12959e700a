"""Check keys, certificates, genesis and membership: the files that say who a node is."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flchain.base.crypto import Identity
from flchain.base.errors import ConfigError
from flchain.ledger.genesis import Genesis
from flchain_edge.checks.checkup import Finding, fail, ok, warn
from flchain_edge.formatting import format_moment, format_span
from flchain_edge.keys.tls_key import read_common_name, read_validity
from flchain_edge.mqtt.settings import MqttSettings, build_tls_context
from flchain_edge.process.chain_files import load_genesis
from flchain_edge.settings.node import NodeSettings, load_identity

SOON_PART = 6
"""One part in so many: a certificate with less of its life left should have been renewed, which begins at a third."""


def open_identity(settings: NodeSettings) -> Identity | None:
    """Return the node's key if it is there and opens, otherwise None. Create nothing."""
    try:
        return load_identity(settings) if settings.key.file.exists() else None
    except ConfigError:
        return None


def check_key(settings: NodeSettings, program: str) -> Iterator[Finding]:
    """Check that the Ed25519 key is there, is private, and opens."""
    path = settings.key.file
    if not path.exists():
        yield fail(f"key file {path}: no such file", f"make it: {program} key, or {program} enroll")
        return
    identity = load_identity(settings)
    yield ok(f"{path} opens and is private; address {identity.address.hex()}")
    for folder in {path.parent, Path(settings.data_dir)}:
        if folder.is_dir() and folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield warn(f"others can write to {folder} and could replace the key", f"chmod go-w {folder}")


def check_membership(
    settings: NodeSettings, role: str, get_members: Callable[[Genesis], Iterable[bytes]] | None
) -> Iterator[Finding]:
    """Check the genesis, and whether this node is in it. Raise ConfigError."""
    genesis, identity = load_genesis(settings.genesis), open_identity(settings)
    yield ok(f"genesis of chain {genesis.name!r}: {len(genesis.devices)} devices, {len(genesis.validators)} miners")
    if identity is None or get_members is None:
        return
    if identity.public_key in get_members(genesis):
        yield ok(f"this node is a {role} of it")
    else:
        yield fail(
            f"{identity.address.hex()} is not a {role} of this chain",
            "the key or the genesis is not the one that was agreed on",
        )


def check_tls_files(mqtt: MqttSettings, identity: Identity | None, can_renew: bool) -> Iterator[Finding]:
    """Check that this node's certificate loads with its key, is its own, and stays valid. Raise ConfigError."""
    if build_tls_context(mqtt) is None:
        yield warn(
            "[mqtt] has no tls_ca: anyone on the way can read everything, and forge it",
            "enrol this node (docs/security.md), or set tls_ca",
        )
        return
    if mqtt.tls_certificate is None or mqtt.tls_key is None:
        yield warn("this node has no certificate: brokers with rules refuse it", "enrol this node")
        return
    if mqtt.tls_key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warn(f"others have access to {mqtt.tls_key}", f"chmod 600 {mqtt.tls_key}")
    try:
        pem = mqtt.tls_certificate.read_text()
        name, validity = read_common_name(pem), read_validity(pem)
    except (OSError, ValueError) as error:
        raise ConfigError((f"[mqtt] tls_certificate {mqtt.tls_certificate}: {error}",)) from error
    if identity is not None and name != identity.address.hex():
        yield fail(f"the certificate is for {name}, but this node is {identity.address.hex()}", "enrol this node again")
    left_s, life_s = validity.not_after_s - time.time(), validity.not_after_s - validity.not_before_s
    until = format_moment(1000 * validity.not_after_s)
    if left_s <= 0:
        yield fail(f"the certificate of {name} expired on {until}", "if the clock is right, enrol this node again")
    elif time.time() < validity.not_before_s:
        yield fail(
            f"the certificate is not valid before {format_moment(1000 * validity.not_before_s)}", "set the clock"
        )
    elif left_s < life_s / SOON_PART:
        how = (
            "the running node should have renewed it: can it reach its registrar?"
            if can_renew
            else "enrol this node again"
        )
        yield warn(f"the certificate of {name} expires on {until}, in {format_span(left_s)}", how)
    else:
        yield ok(f"certificate of {name}, valid until {until}")
