"""A node's TLS key, its certificate request, and reading its certificate, without a library for certificates.

The key is EC P-256, made here, in PKCS#8 PEM of mode 600; it never leaves the node. A request is
PKCS#10 (RFC 2986), signed by that key, for the common name that brokers take as the user: the node's address.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flchain.base.errors import ConfigError
from flchain_edge.keys.private_files import create_private

CURVE = "P-256"
_COMMON_NAME, _ECDSA_SHA256 = "2.5.4.3", "1.2.840.10045.4.3.2"
_UTF8, _UTC_TIME, _GENERALIZED_TIME = 0x0C, 0x17, 0x18
_NO_ATTRIBUTES = b"\xa0\x00"
_VERSION_TAG = 0xA0


@dataclass(frozen=True)
class Validity:
    """From when until when a certificate is valid, seconds since 1970."""

    not_before_s: int
    not_after_s: int


def load_or_create_tls_key(path: Path) -> Any:
    """Return the node's TLS key, made on first use. Raise ConfigError."""
    from Crypto.PublicKey import ECC

    try:
        if not path.exists():
            create_private(path, str(ECC.generate(curve=CURVE).export_key(format="PEM", use_pkcs8=True)).encode())
        return ECC.import_key(path.read_bytes())
    except OSError as error:
        raise ConfigError((f"TLS key {path}: {error.strerror or error}",)) from error
    except (ValueError, IndexError, TypeError) as error:
        raise ConfigError((f"TLS key {path}: is damaged ({error}); remove it to make a new one",)) from error


def build_request(key: Any, common_name: str) -> bytes:
    """Build a PKCS#10 request in DER: this name, this key, signed by it. The bytes are the same at every call."""
    from Crypto.Hash import SHA256
    from Crypto.Signature import DSS
    from Crypto.Util.asn1 import DerBitString, DerObject, DerObjectId, DerSequence, DerSetOf

    name = DerObject(_UTF8, common_name.encode())
    attribute = DerSequence([DerObjectId(_COMMON_NAME), name.encode()])
    subject = DerSequence([DerSetOf([attribute.encode()])])
    info = DerSequence([0, subject, key.public_key().export_key(format="DER"), _NO_ATTRIBUTES]).encode()
    # Deterministic (RFC 6979): a request repeated after a crash is the same request.
    signature = DSS.new(key, "deterministic-rfc6979", encoding="der").sign(SHA256.new(info))
    algorithm = DerSequence([DerObjectId(_ECDSA_SHA256)])
    return bytes(DerSequence([info, algorithm, DerBitString(signature)]).encode())


def _read_fields(pem: str) -> Any:
    """Return the fields of the first certificate in a PEM text, from its serial number on (RFC 5280, 4.1)."""
    from Crypto.Util.asn1 import DerSequence

    end = pem.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    certificate = DerSequence().decode(ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN") : end]))
    fields: Any = DerSequence().decode(certificate[0])
    has_version = isinstance(fields[0], bytes) and fields[0][0] == _VERSION_TAG
    return fields[1:] if has_version else fields[:]


def read_common_name(pem: str) -> str:
    """Return the subject's common name in the first certificate of a PEM text, or an empty text. Raise ValueError."""
    from Crypto.Util.asn1 import DerObject, DerObjectId, DerSequence, DerSetOf

    try:
        subject: Any = DerSequence().decode(_read_fields(pem)[4])
        for part in subject[:]:
            attributes: Any = DerSetOf().decode(part)
            name: Any = DerSequence().decode(attributes[0])
            if DerObjectId().decode(name[0]).value == _COMMON_NAME:
                return str(DerObject().decode(name[1]).payload.decode())
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"not a certificate ({error})") from error
    return ""


def read_validity(pem: str) -> Validity:
    """Return the validity of the first certificate in a PEM text. Raise ValueError for anything else."""
    from Crypto.Util.asn1 import DerObject, DerSequence

    try:
        validity = DerSequence().decode(_read_fields(pem)[3])
        first, last = (_read_time(DerObject().decode(validity[index])) for index in (0, 1))
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"not a certificate ({error})") from error
    return Validity(first, last)


def _read_time(value: Any) -> int:
    text, tag = value.payload.decode(), value._tag_octet
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError(f"a time with tag {tag}")
    if tag == _UTC_TIME:  # RFC 5280, 4.1.2.5.1: two digits are 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp())
