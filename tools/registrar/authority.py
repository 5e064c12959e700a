"""A certificate authority for one network: client certificates of nodes, server certificates, revocation list.

X.509 v3 (RFC 5280), EC P-256 and SHA-256 throughout, since every broker and every OpenSSL accepts them. A client
certificate names the node's address and can do nothing but be a TLS client; it is short-lived. Certificates of servers
and of the authority begin ten years ago: a board whose clock is behind must still connect, to learn the time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flchain.base.errors import ConfigError
from flchain_edge.keys.private_files import create_private

CA_KEY_FILE, CA_FILE = "ca-key.pem", "ca.pem"
AUTHORITY_YEARS = 20
SERVER_DAYS = 825
BACKDATED_SERVER = timedelta(days=3652)
BACKDATED_CLIENT = timedelta(days=1)
"""A broker whose clock is a little behind takes a certificate that was made a minute ago."""
CRL_YEARS = 10
"""OpenSSL refuses everybody once a list is past its date, so a list is kept fresh by handing it on, not by expiry."""


@dataclass(frozen=True)
class Issued:
    """A certificate and its key: `key_pem` is empty if the requester has made its own key."""

    serial: int
    pem: str
    not_after_s: int
    key_pem: str = ""


class Authority:
    """The key that signs. `clock_s`, seconds since 1970, is passed in with every call."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def create(cls, folder: Path, name: str, passphrase: str | None, clock_s: int) -> Authority:
        """Make key and certificate in `folder`, which has neither. Raise ConfigError."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"FLchain {name} authority")])
        now = datetime.fromtimestamp(clock_s, timezone.utc)
        usage = _build_usage(cert_sign=True)
        builder = (
            _begin(subject, subject, key.public_key(), now - BACKDATED_SERVER)
            .not_valid_after(now + timedelta(days=365 * AUTHORITY_YEARS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        certificate = builder.sign(key, hashes.SHA256())
        if (folder / CA_KEY_FILE).exists() or (folder / CA_FILE).exists():
            hint = f"if an init was interrupted there, remove {CA_KEY_FILE} and {CA_FILE}"
            raise ConfigError((f"{folder}: already holds an authority; {hint}",))
        create_private(folder / CA_KEY_FILE, _encode_key(key, passphrase).encode())
        create_private(folder / CA_FILE, _encode(certificate).encode())
        return cls(key, certificate)

    @classmethod
    def load(cls, folder: Path, passphrase: str | None) -> Authority:
        """Load both. Raise ConfigError: no authority there, a wrong or missing passphrase, a damaged file."""
        try:
            secret = passphrase.encode() if passphrase is not None else None
            key = serialization.load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), secret)
            certificate = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        except OSError as error:
            hint = "make one with: flchain registrar init"
            raise ConfigError((f"authority {error.filename}: {error.strerror}; {hint}",)) from error
        except (ValueError, TypeError) as error:
            raise ConfigError((f"authority {folder / CA_KEY_FILE}: {error}",)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError((f"authority {folder / CA_KEY_FILE}: is not an elliptic-curve key",))
        return cls(key, certificate)

    @property
    def ca_pem(self) -> str:
        """Return the authority's certificate."""
        return _encode(self._certificate)

    @property
    def fingerprint(self) -> bytes:
        """Return the SHA-256 of the authority's certificate in DER, which a token pins."""
        return self._certificate.fingerprint(hashes.SHA256())

    def issue_client(self, common_name: str, csr: bytes, days: int, clock_s: int) -> Issued:
        """Issue a client certificate for the key in a request. Raise ValueError, which says what is wrong with it.

        Nothing but the key is taken from the request.
        """
        public_key = read_request(csr, common_name)
        now = datetime.fromtimestamp(clock_s, timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = self._begin_leaf(subject, public_key, now - BACKDATED_CLIENT, now + timedelta(days=days))
        client_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._sign(builder.add_extension(client_only, critical=False))

    def issue_server(self, host: str, clock_s: int, *, is_bridge: bool = False) -> Issued:
        """Issue a server's key and certificate for this name or address; a bridge also connects to other brokers."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.fromtimestamp(clock_s, timezone.utc)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
        names = x509.SubjectAlternativeName([_build_name(host)])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if is_bridge else [])]
        begin, end = now - BACKDATED_SERVER, now + timedelta(days=SERVER_DAYS)
        builder = self._begin_leaf(subject, key.public_key(), begin, end).add_extension(names, critical=False)
        return self._sign(builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False), _encode_key(key, None))

    def build_crl(self, revoked: Iterable[tuple[int, int]], clock_s: int) -> str:
        """Return the list of revoked certificates, given as (serial, when in seconds), as PEM."""
        now = datetime.fromtimestamp(clock_s, timezone.utc)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self._certificate.subject,
            last_update=now - BACKDATED_CLIENT,
            next_update=now + timedelta(days=365 * CRL_YEARS),
        )
        for serial, when_s in revoked:
            entry = x509.RevokedCertificateBuilder(serial, datetime.fromtimestamp(when_s, timezone.utc))
            builder = builder.add_revoked_certificate(entry.build())
        number = x509.CRLNumber(clock_s)
        signed = builder.add_extension(number, critical=False).sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def _begin_leaf(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        end = min(end, self._certificate.not_valid_after_utc)
        authority = self._certificate.public_key()
        assert isinstance(authority, ec.EllipticCurvePublicKey)
        return (
            _begin(subject, self._certificate.subject, public_key, begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_build_usage(cert_sign=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder, key_pem: str = "") -> Issued:
        signed = builder.sign(self._key, hashes.SHA256())
        return Issued(signed.serial_number, _encode(signed), int(signed.not_valid_after_utc.timestamp()), key_pem)


def read_request(csr: bytes, common_name: str) -> ec.EllipticCurvePublicKey:
    """Return the key in a PKCS#10 request that this key has signed for this name. Raise ValueError."""
    try:
        request = x509.load_der_x509_csr(csr)
        is_signed = request.is_signature_valid
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = request.public_key()
    except (ValueError, InvalidSignature, UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(f"not a certificate request ({error})") from error
    if not is_signed:
        raise ValueError("the request is not signed by its own key")
    if [name.value for name in names] != [common_name] or len(request.subject) != 1:
        raise ValueError("the request names another node than the one that sent it")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("the request is not for a P-256 key")
    return key


def encode_public_key(csr: bytes, common_name: str) -> bytes:
    """Return the request's key in DER, by which it is recognised later. Raise ValueError."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return read_request(csr, common_name).public_bytes(encoding, form)


@dataclass(frozen=True)
class ServerCertificate:
    """The parts of a server's certificate that decide whether it can stay in use."""

    serial: int
    hosts: frozenset[str]
    not_after_s: int
    is_bridge: bool
    """Whether it may also connect to other brokers."""


def read_server(pem: str) -> ServerCertificate:
    """Read a certificate. Raise ValueError for what is not a server's."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise ValueError("a certificate without names or usages") from error
    return ServerCertificate(
        serial=certificate.serial_number,
        hosts=frozenset(str(name.value) for name in names),
        not_after_s=int(certificate.not_valid_after_utc.timestamp()),
        is_bridge=ExtendedKeyUsageOID.CLIENT_AUTH in usages,
    )


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime
) -> x509.CertificateBuilder:
    serial = x509.random_serial_number()
    return x509.CertificateBuilder(issuer, subject, key, serial).not_valid_before(begin)


def _build_usage(*, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _build_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _encode(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _encode_key(key: ec.EllipticCurvePrivateKey, passphrase: str | None) -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        protection = serialization.BestAvailableEncryption(passphrase.encode())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, protection).decode()
