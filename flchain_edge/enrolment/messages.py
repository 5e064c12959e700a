"""The messages between a node and the registrar: tokens, requests, answers, and what is signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field

import msgspec

from flchain.base.crypto import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Identity, hash_tagged, verify
from flchain.base.errors import ConfigError
from flchain.wire.topics import Role
from flchain_edge.mqtt.settings import Endpoint, parse_endpoint

REQUEST_BYTES_MAX = 16_384
ANSWER_BYTES_MAX = 262_144
SECRET_BYTES = 16
ROLES = tuple(role.value for role in Role)
FILES = ("genesis", "model")
KEY_HEADER, SIGNATURE_HEADER = "flchain-key", "flchain-signature"
"""Of a package that an operator hands over."""
TOKEN_FORM = "flchain1/HOST:PORT/FINGERPRINT/SECRET"
_TOKEN = re.compile(r"flchain1/(?P<where>[^/]{1,264})/(?P<fp>[\w-]{43})/(?P<secret>[\w-]{22})", re.ASCII)


@dataclass(frozen=True)
class Token:
    """Where the registrar is, the SHA-256 of its authority's certificate (DER), and a secret that works once."""

    host: str
    port: int
    fingerprint: bytes
    secret: bytes = field(repr=False)


def format_token(token: Token) -> str:
    """Return the token as one word that a person can paste."""
    return f"flchain1/{Endpoint(token.host, token.port)}/{_encode(token.fingerprint)}/{_encode(token.secret)}"


def parse_token(text: str) -> Token:
    """Read a token. Raise ConfigError, which does not repeat the token: it is a secret."""
    found = _TOKEN.fullmatch(text.strip())
    try:
        where = parse_endpoint(found["where"]) if found else None
    except ValueError:
        where = None
    if found is None or where is None:
        raise ConfigError((f"token: is incomplete; it looks like {TOKEN_FORM} (flchain registrar token)",))
    fingerprint, secret = (
        base64.urlsafe_b64decode(found[name] + "=" * (-len(found[name]) % 4)) for name in ("fp", "secret")
    )
    return Token(where.host, where.port, fingerprint, secret)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hash_secret(secret: bytes) -> bytes:
    """Return what the registrar keeps of a token."""
    return bytes(hash_tagged("enrolment-token", secret))


class EnrolRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node's request for its first certificate. `csr` is PKCS#10 in DER, base64; the rest is in hexadecimal."""

    role: str
    public_key: str
    csr: str
    secret: str
    signature: str


class RenewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An enrolled node's request for a new certificate, signed by its Ed25519 key, so good whatever has expired."""

    public_key: str
    csr: str
    signature: str


class FileRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An enrolled node's request for genesis or model."""

    name: str
    public_key: str
    signature: str


class PackageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An enrolled node's request for a package of a release, by its SHA-256, from the byte `offset` on."""

    sha256: str
    offset: int
    public_key: str
    signature: str


class EnrolAnswer(msgspec.Struct, frozen=True):
    """The certificate, and where to connect. Digests are empty until the operator has made the genesis."""

    certificate: str
    ca: str
    brokers: list[str]
    home: str = ""
    """Public key of the miner that a device belongs to."""
    genesis_sha256: str = ""
    model_sha256: str = ""
    operators: list[str] = []
    """Public keys of the network's operators: whose releases a board installs."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is refused: a code for programs and a sentence for people."""

    code: str
    detail: str


def compute_enrol_statement(fingerprint: bytes, role: str, csr: bytes, secret: bytes) -> bytes:
    """Return what the node's Ed25519 key signs: this request, with this token, at this registrar."""
    parts = fingerprint + hash_secret(secret) + hashlib.sha256(csr).digest() + role.encode()
    return bytes(hash_tagged("enrolment/enrol", parts))


def compute_renew_statement(fingerprint: bytes, csr: bytes) -> bytes:
    """Return the same for a renewal. A stranger who replays it gets a certificate for a key that it does not have."""
    return bytes(hash_tagged("enrolment/renew", fingerprint + hashlib.sha256(csr).digest()))


def compute_file_statement(fingerprint: bytes, name: str) -> bytes:
    """Return the same for a file."""
    return bytes(hash_tagged("enrolment/file", fingerprint + name.encode()))


def compute_package_statement(fingerprint: bytes, sha256: str) -> bytes:
    """Return the same for a package. Whoever replays it gets what the node has asked for, which is no secret."""
    return bytes(hash_tagged("enrolment/package", fingerprint + sha256.encode()))


def compute_upload_statement(fingerprint: bytes, sha256: str, size_bytes: int) -> bytes:
    """Return what an operator signs to hand the registrar a package of this hash and size."""
    return bytes(hash_tagged("enrolment/upload", fingerprint + sha256.encode() + size_bytes.to_bytes(8, "big")))


def build_enrol_request(identity: Identity, token: Token, role: str, csr: bytes) -> EnrolRequest:
    """Build a request that both keys sign: the TLS key `csr`, the node's own key all of it."""
    statement = compute_enrol_statement(token.fingerprint, role, csr, token.secret)
    signature = identity.sign(statement).hex()
    return EnrolRequest(role, identity.public_key.hex(), base64.b64encode(csr).decode(), token.secret.hex(), signature)


def build_renew_request(identity: Identity, fingerprint: bytes, csr: bytes) -> RenewRequest:
    """Build the same for a renewal, without a token."""
    signature = identity.sign(compute_renew_statement(fingerprint, csr)).hex()
    return RenewRequest(identity.public_key.hex(), base64.b64encode(csr).decode(), signature)


def build_file_request(identity: Identity, fingerprint: bytes, name: str) -> FileRequest:
    """Build a request for one of FILES."""
    signature = identity.sign(compute_file_statement(fingerprint, name)).hex()
    return FileRequest(name, identity.public_key.hex(), signature)


def build_package_request(identity: Identity, fingerprint: bytes, sha256: str, offset: int) -> PackageRequest:
    """Build a request for a package, or for what is missing of it."""
    signature = identity.sign(compute_package_statement(fingerprint, sha256)).hex()
    return PackageRequest(sha256, offset, identity.public_key.hex(), signature)


def build_upload_headers(identity: Identity, fingerprint: bytes, sha256: str, size_bytes: int) -> dict[str, str]:
    """Build the headers under which an operator hands the registrar a package."""
    signature = identity.sign(compute_upload_statement(fingerprint, sha256, size_bytes)).hex()
    return {KEY_HEADER: identity.public_key.hex(), SIGNATURE_HEADER: signature}


def is_signed(public_key: bytes, statement: bytes, signature: str) -> bool:
    """Return whether this is a signature by this key; False for anything that is not a signature."""
    return len(public_key) == PUBLIC_KEY_BYTES and verify(public_key, statement, read_hex(signature, SIGNATURE_BYTES))


def read_hex(text: str, count: int) -> bytes:
    """Return `count` bytes, or none at all if the text is anything else."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return b""
    return data if len(data) == count and len(text) == 2 * count else b""


def is_sha256(text: str) -> bool:
    """Return whether this is a SHA-256 in hexadecimal, in the one spelling that names a file."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def read_base64(text: str) -> bytes:
    """Return the bytes, or none at all if the text is anything else."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
