"""What a failed TLS connection means, for the person who has to repair it. The usual cause is a wrong clock."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone

# X509_V_ERR_* of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _NO_FIRST = 18, 19, 20, 21
_HOST, _IP = 62, 64


def describe_tls_error(error: Exception, now_s: float) -> str:
    """Return one line that says what to do. `now_s` is this machine's clock, seconds since 1970."""
    if isinstance(error, ssl.SSLCertVerificationError):
        now = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return _describe_refused_server(error, now)
    plain = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return describe_alert(str(error)) or plain or str(error) or type(error).__name__


def describe_alert(text: str) -> str:
    """Return what the other side's alert means (RFC 8446, 6.2), from OpenSSL's name for it; empty if it is none."""
    return next((f"{meaning} ({name})" for name, meaning in _ALERTS.items() if name in text), "")


_ALERTS = {
    "CERTIFICATE_EXPIRED": "the other side says that our certificate has expired; enrol again or renew it",
    "CERTIFICATE_REVOKED": "the other side says that our certificate is revoked; ask the operator",
    "CERTIFICATE_REQUIRED": "the other side wants a client certificate: set tls_certificate and tls_key, or enrol",
    "UNKNOWN_CA": "the other side does not know the authority of our certificate; enrol with its registrar",
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS on this port",
}


def _describe_refused_server(error: ssl.SSLCertVerificationError, clock: str) -> str:
    code, text = error.verify_code, error.verify_message
    if code == _NOT_YET_VALID:
        return f"its certificate is not yet valid: this machine's clock says {clock}; is that right? (timedatectl)"
    if code == _EXPIRED:
        return f"its certificate has expired: this machine's clock says {clock}; if that is right, renew it there"
    if code in (_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _NO_FIRST):
        return f"its certificate is not from the authority in tls_ca: a wrong CA file, or not our broker ({text})"
    if code in (_HOST, _IP):
        return f"its certificate is for another name: {text}"
    return f"its certificate is not valid: {text}"
