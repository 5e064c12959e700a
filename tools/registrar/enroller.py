"""What the registrar decides: a request in, an answer or a refusal out. No socket here; time is passed in."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from flchain.base.crypto import PUBLIC_KEY_BYTES, compute_address, is_public_key
from flchain.base.errors import ConfigError, FlchainError
from flchain.wire.release import PACKAGE_BYTES_MAX
from flchain.wire.topics import Role
from flchain_edge.enrolment.messages import (
    FILES,
    ROLES,
    SECRET_BYTES,
    EnrolAnswer,
    EnrolRequest,
    FileRequest,
    PackageRequest,
    Refusal,
    RenewRequest,
    Token,
    compute_enrol_statement,
    compute_file_statement,
    compute_package_statement,
    compute_renew_statement,
    compute_upload_statement,
    hash_secret,
    is_sha256,
    is_signed,
    read_base64,
    read_hex,
)
from flchain_edge.mqtt.settings import HOST_PATTERN, parse_endpoint
from flchain_edge.settings.config import load_config
from tools.registrar.authority import Authority, encode_public_key
from tools.registrar.packages import PackageStore
from tools.registrar.register import CertificateRecord, NodeRecord, Register, TokenRecord

SETTINGS_FILE = "registrar.toml"
FILE_NAMES = {"genesis": "genesis.cbor", "model": "model.tflite"}
RENEW_FRACTION = 3
"""A new certificate is issued for the same key once less than a third of the old one's life is left."""
DAY_S = 86_400


@dataclass(frozen=True)
class RegistrarSettings:
    """registrar.toml, written by `flchain registrar init`."""

    name: str = field(
        metadata={
            "pattern": "[A-Za-z0-9_-]{1,32}",
            "form": "at most 32 letters, digits, _ and -",
            "help": "of the network",
            "example": "field-1",
        }
    )
    host: str = field(
        metadata={
            "pattern": HOST_PATTERN,
            "form": "a host's name or address",
            "help": "name or address by which nodes reach the registrar",
        },
    )
    port: int = field(default=8443, metadata={"min": 1, "max": 65535})
    bind: str = field(default="0.0.0.0", metadata={"help": "address to listen on; :: for IPv6 as well"})
    brokers: tuple[str, ...] = field(
        default=(), metadata={"min": 1, "max": 16, "help": "host:port that nodes are given", "example": ["edge-1:8883"]}
    )
    certificate_days: int = field(
        default=30, metadata={"min": 1, "max": 825, "help": "life of a node's certificate; renewed after two thirds"}
    )

    download_kbit_s: int = field(
        default=0,
        metadata={
            "min": 0,
            "max": 10_000_000,
            "help": "what all downloads of models and packages together may take of the line; 0: all of it",
        },
    )

    def __post_init__(self) -> None:
        try:
            for broker in self.brokers:
                parse_endpoint(broker)
        except ValueError as error:
            raise ValueError(f"brokers: {error}") from error


class RequestRefused(FlchainError):
    """A request that is refused, for a reason that its sender is given."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.refusal = Refusal(code, detail)


@dataclass
class Enroller:
    """One registrar: its settings, its authority, its register, in one folder."""

    folder: Path
    settings: RegistrarSettings
    authority: Authority
    register: Register

    @property
    def packages(self) -> PackageStore:
        """Return the packages of releases that are here for members."""
        return PackageStore(self.folder)

    @classmethod
    def open(cls, folder: Path, passphrase: str | None) -> Enroller:
        """Open the registrar in a folder. Raise ConfigError."""
        settings = load_config(folder / SETTINGS_FILE, RegistrarSettings)
        return cls(folder, settings, Authority.load(folder, passphrase), Register(folder))

    def make_token(self, role: str, address: str, home: str, valid_s: int, clock_s: int) -> Token:
        """Make a token and keep its hash. `address`, `home`: empty, or the only node that may use it, and its miner."""
        secret = secrets.token_bytes(SECRET_BYTES)
        with self.register.deciding():
            self.register.add_token(TokenRecord(hash_secret(secret), role, address, home, clock_s + valid_s))
            self.register.note(clock_s, "token", role=role, address=address, home=home, valid_s=valid_s)
        return Token(self.settings.host, self.settings.port, self.authority.fingerprint, secret)

    def enrol(self, request: EnrolRequest, clock_s: int, peer: str) -> EnrolAnswer:
        """Return a node's first certificate, and the same again for the same node. Raise RequestRefused.

        A token works once: it belongs to the first node that uses it, which may repeat its request after a crash.
        """
        public_key, csr = self._read_asker(request.public_key, request.csr)
        secret = read_hex(request.secret, SECRET_BYTES)
        statement = compute_enrol_statement(self.authority.fingerprint, request.role, csr, secret)
        if request.role not in ROLES or not is_signed(public_key, statement, request.signature):
            _refuse("bad-signature", "the request is not signed by the key that it names")
        address = compute_address(public_key).hex()
        with self.register.deciding():
            token = self._check_token(secret, request.role, address, clock_s)
            node = self.register.get_node(address)
            if node is not None:
                _check_node(node, request.role)
            node = node or NodeRecord(address, request.role, public_key.hex(), self._choose_home(token), clock_s)
            made, is_new = self._certify(address, request.role, csr, clock_s)
            if is_new:
                self.register.enrol(token.hash, node)
                self.register.add_certificate(made)
                self.register.note(clock_s, "enrol", address=address, role=node.role, serial=made.serial, peer=peer)
        return self._answer(made, node)

    def renew(self, request: RenewRequest, clock_s: int, peer: str) -> EnrolAnswer:
        """Return a new certificate for an enrolled node, even if the old one has expired. Raise RequestRefused."""
        public_key, csr = self._read_asker(request.public_key, request.csr)
        if not is_signed(public_key, compute_renew_statement(self.authority.fingerprint, csr), request.signature):
            _refuse("bad-signature", "the request is not signed by the key that it names")
        with self.register.deciding():
            node = self._find(public_key)
            made, is_new = self._certify(node.address, node.role, csr, clock_s)
            if is_new:
                self.register.add_certificate(made)
                self.register.note(clock_s, "renew", address=node.address, serial=made.serial, peer=peer)
        return self._answer(made, node)

    def get_file(self, request: FileRequest) -> Path:
        """Return the path of genesis or model, for enrolled nodes. Raise RequestRefused."""
        public_key = read_hex(request.public_key, PUBLIC_KEY_BYTES)
        statement = compute_file_statement(self.authority.fingerprint, request.name)
        if request.name not in FILES or not is_signed(public_key, statement, request.signature):
            _refuse("bad-signature", "the request is not signed by the key that it names")
        self._find(public_key)
        path = self.folder / FILE_NAMES[request.name]
        if not path.is_file():
            _refuse("not-yet", f"the operator has not put {path.name} into the registrar's folder yet")
        return path

    def get_package(self, request: PackageRequest) -> Path | None:
        """Return the path of a package, for enrolled nodes; None if it is not here. Raise RequestRefused."""
        public_key = read_hex(request.public_key, PUBLIC_KEY_BYTES)
        statement = compute_package_statement(self.authority.fingerprint, request.sha256)
        if (
            not is_sha256(request.sha256)
            or request.offset < 0
            or not is_signed(public_key, statement, request.signature)
        ):
            _refuse("bad-signature", "the request is not signed by the key that it names")
        self._find(public_key)
        return self.packages.find(request.sha256)

    def check_upload(self, sha256: str, size_bytes: int, public_key_hex: str, signature: str) -> None:
        """Check that an operator of this network sends a package of this hash and size. Raise RequestRefused."""
        public_key = read_hex(public_key_hex, PUBLIC_KEY_BYTES)
        statement = compute_upload_statement(self.authority.fingerprint, sha256, size_bytes)
        if not is_sha256(sha256) or not is_signed(public_key, statement, signature):
            _refuse("bad-signature", "the package is not signed by the key that is named")
        if self._find(public_key).role != Role.OPERATOR:
            _refuse("wrong-role", "only an operator of this network may hand it packages")
        if not 1 <= size_bytes <= PACKAGE_BYTES_MAX:
            _refuse("bad-size", f"a package has 1 to {PACKAGE_BYTES_MAX} bytes")

    def list_operators(self) -> list[str]:
        """Return the public keys of those whose releases boards install."""
        nodes = self.register.list_nodes()
        return [node.public_key for node in nodes if node.role == Role.OPERATOR and not node.revoked_s]

    def revoke(self, name: str, clock_s: int) -> int:
        """Revoke a node or server by the name in its certificates; return how many of them were revoked."""
        with self.register.deciding():
            count = self.register.revoke(name, clock_s)
            self.register.note(clock_s, "revoke", name=name, certificates=count)
        return count

    def build_crl(self, clock_s: int) -> str:
        """Return today's revocation list: what was revoked and would otherwise still be valid."""
        made = self.register.list_certificates()
        listed = [(int(c.serial, 16), c.revoked_s) for c in made if c.revoked_s and c.not_after_s > clock_s]
        return self.authority.build_crl(listed, clock_s)

    def make_server(self, host: str, clock_s: int, *, is_bridge: bool = False) -> tuple[str, str]:
        """Make certificate and key of a server by this name; return them as PEM."""
        made = self.authority.issue_server(host, clock_s, is_bridge=is_bridge)
        record = CertificateRecord(f"{made.serial:x}", host, "server", b"", made.pem, made.not_after_s)
        with self.register.deciding():
            self.register.add_certificate(record)
            self.register.note(clock_s, "server", host=host, serial=record.serial)
        return made.pem, made.key_pem

    def _read_asker(self, public_key_hex: str, csr_text: str) -> tuple[bytes, bytes]:
        public_key = read_hex(public_key_hex, PUBLIC_KEY_BYTES)
        csr = read_base64(csr_text)
        if not public_key or not is_public_key(public_key) or not csr:
            _refuse("bad-request", "public key or certificate request cannot be read")
        return public_key, csr

    def _check_token(self, secret: bytes, role: str, address: str, clock_s: int) -> TokenRecord:
        token = self.register.get_token(hash_secret(secret)) if secret else None
        if token is None:
            _refuse("token-unknown", "the registrar does not know this token: ask for a new one")
        if token.used_by == address:
            return token  # a repeated request: the same certificate again, even if the token has expired since
        if token.used_by:
            _refuse("token-used", "this token was used by another node: ask for a new one, and tell the operator")
        if clock_s > token.expires_s:
            _refuse("token-expired", "this token has expired: ask for a new one")
        if token.role != role:
            _refuse("wrong-role", f"this token is for a {token.role}, not for a {role}")
        if token.address not in ("", address):
            _refuse("wrong-address", f"this token is for {token.address}, but this node is {address}")
        return token

    def _find(self, public_key: bytes) -> NodeRecord:
        node = self.register.get_node(compute_address(public_key).hex())
        if node is None:
            _refuse("unknown-node", "this node has not enrolled here: enrol it with a token")
        _check_node(node, node.role)
        return node

    def _choose_home(self, token: TokenRecord) -> str:
        """Return the token's home, or the miner with the fewest devices, ties by address; empty without any miner."""
        if token.role != "device" or token.home:
            return token.home
        nodes = [node for node in self.register.list_nodes() if not node.revoked_s]
        counts = Counter(node.home for node in nodes if node.role == "device")
        miners = [node.public_key for node in nodes if node.role == "miner"]
        return min(miners, key=lambda key: counts[key], default="")

    def _certify(self, address: str, role: str, csr: bytes, clock_s: int) -> tuple[CertificateRecord, bool]:
        """Return this key's newest certificate if it has time left, otherwise a new one; and whether it is new."""
        try:
            key = encode_public_key(csr, address)
        except ValueError as error:
            _refuse("bad-request", str(error))
        life_s = self.settings.certificate_days * DAY_S
        for known in reversed(self.register.list_certificates(address)):
            is_same = (known.key, known.revoked_s) == (key, 0)
            if is_same and known.not_after_s - clock_s > life_s // RENEW_FRACTION:
                return known, False
        made = self.authority.issue_client(address, csr, self.settings.certificate_days, clock_s)
        return CertificateRecord(f"{made.serial:x}", address, role, key, made.pem, made.not_after_s), True

    def _answer(self, made: CertificateRecord, node: NodeRecord) -> EnrolAnswer:
        digests = {name: self._digest(file) for name, file in FILE_NAMES.items()}
        return EnrolAnswer(
            certificate=made.pem,
            ca=self.authority.ca_pem,
            brokers=list(self.settings.brokers),
            home=node.home,
            genesis_sha256=digests["genesis"],
            model_sha256=digests["model"],
            operators=self.list_operators(),
        )

    def _digest(self, name: str) -> str:
        path = self.folder / name
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _check_node(node: NodeRecord, role: str) -> None:
    if node.revoked_s:
        _refuse("revoked", "this node was revoked: to come back it needs a new key, and a token for it")
    if node.role != role:
        _refuse("wrong-role", f"this node has enrolled as a {node.role}")


def _refuse(code: str, detail: str) -> NoReturn:
    raise RequestRefused(code, detail)


def find_registrar(folder: Path) -> None:
    """Raise ConfigError if there is no registrar in the folder, or it belongs to another user.

    The service could not write to files that root has made there.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise ConfigError((f"{folder}: no registrar here; make one with: flchain registrar init --dir {folder}",))
    owner = (folder / SETTINGS_FILE).stat().st_uid
    if owner != os.geteuid():
        raise ConfigError(
            (f"{folder}: belongs to user {owner}: run this as that user (runuser -u USER -- flchain ...)",)
        )
