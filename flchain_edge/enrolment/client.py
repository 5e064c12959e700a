"""The node's side of the registrar's HTTPS: pinned by a fingerprint, then by the authority's certificate."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, NoReturn, TypeVar

import msgspec

from flchain.base.errors import ConfigError, TryAgain
from flchain_edge.enrolment.messages import (
    ANSWER_BYTES_MAX,
    EnrolAnswer,
    EnrolRequest,
    FileRequest,
    PackageRequest,
    Refusal,
    RenewRequest,
    Token,
)
from flchain_edge.mqtt.tls_errors import describe_tls_error

if TYPE_CHECKING:
    import http.client

TIMEOUT_S = 15.0
CHUNK_BYTES = 65_536
JSON_HEADERS = {"Content-Type": "application/json"}
RETRY_STATUSES = (429, 500, 502, 503)
RETRY_CODES = ("not-yet",)
T = TypeVar("T")


def fetch_authority(token: Token) -> str:
    """Return the authority's certificate (PEM), from a stranger, believed because it has the token's fingerprint.

    Nothing secret is sent on this connection. Raise ConfigError, TryAgain.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    status, body = _ask(Server(token.host, token.port, context), "GET", "/v1/ca", b"")
    try:
        return check_authority(body.decode("ascii"), token)
    except ValueError as error:
        raise TryAgain(f"{token.host}:{token.port} is not a registrar (HTTP status {status})") from error


def check_authority(pem: str, token: Token) -> str:
    """Return the certificate if the token names it. Raise ConfigError, or ValueError for what is not a certificate."""
    der = ssl.PEM_cert_to_DER_cert(pem)
    found = hashlib.sha256(der).digest()
    if found != token.fingerprint:
        raise ConfigError(
            (
                f"registrar {token.host}:{token.port}: its authority's fingerprint is {found.hex()[:16]}, the token's "
                f"{token.fingerprint.hex()[:16]}: somebody intercepts this, or the token is old; nothing was sent",
            )
        )
    # Encoded again: text after the certificate could carry a second one that nobody has checked.
    return ssl.DER_cert_to_PEM_cert(der)


@dataclass(frozen=True)
class Server:
    """Where to ask, and which authority to trust."""

    host: str
    port: int
    context: ssl.SSLContext

    def __str__(self) -> str:
        return f"registrar {self.host}:{self.port}"


class RegistrarClient:
    """A client of a registrar whose authority is known. Every call blocks, at most TIMEOUT_S for each step.

    Calls raise ConfigError if they are refused for good, otherwise TryAgain.
    """

    def __init__(self, host: str, port: int, ca_pem: str) -> None:
        try:
            context = ssl.create_default_context(cadata=ca_pem)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError((f"the authority's certificate cannot be used: {error}",)) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._server = Server(host, port, context)

    def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        """Ask for the first certificate."""
        return self._post("/v1/enroll", request)

    def renew(self, request: RenewRequest) -> EnrolAnswer:
        """Ask for the next certificate."""
        return self._post("/v1/renew", request)

    def get_file(self, request: FileRequest, bytes_max: int) -> bytes:
        """Fetch genesis or model."""
        return self._ask("/v1/file", request, bytes_max)

    def fetch_package(self, request: PackageRequest, sink: BinaryIO, bytes_max: int) -> int:
        """Write to `sink` what the registrar sends of a package from the request's offset on; return how many bytes.

        What came before a connection broke is in the sink: ask again from there on. The caller checks the hash.
        """
        body, taken = msgspec.json.encode(request), 0
        with _connecting(self._server) as connection:
            connection.request("POST", "/v1/package", body, JSON_HEADERS)
            response = connection.getresponse()
            if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                self._refuse(response.status, response.read(ANSWER_BYTES_MAX))
            expected = int(response.headers.get("Content-Length") or 0)
            if expected > bytes_max:
                raise TryAgain(f"{self._server}: a package of more than {bytes_max} bytes")
            while taken < expected and (chunk := response.read(min(CHUNK_BYTES, expected - taken))):
                taken += sink.write(chunk)
        if taken < expected:
            raise TryAgain(f"{self._server}: the package stopped after {taken} of {expected} bytes")
        return taken

    def has_package(self, request: PackageRequest) -> bool:
        """Return whether the registrar has all of a package; the request's offset is the package's size."""
        status, answer = _ask(self._server, "POST", "/v1/package", msgspec.json.encode(request))
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return True
        if self._decode(answer, Refusal).code == "no-package":
            return False
        self._refuse(status, answer)

    def send_package(self, stream: BinaryIO, sha256: str, size_bytes: int, headers: dict[str, str]) -> None:
        """Hand the registrar a package; `headers` say by whom (see `build_upload_headers`)."""
        with _connecting(self._server) as connection:
            length = {"Content-Length": str(size_bytes)}
            connection.request("PUT", f"/v1/package/{sha256}", stream, {**headers, **length})
            response = connection.getresponse()
            answer = response.read(ANSWER_BYTES_MAX)
        if response.status != HTTPStatus.OK:
            self._refuse(response.status, answer)

    def _refuse(self, status: int, answer: bytes) -> NoReturn:
        refusal = self._decode(answer, Refusal)
        text = f"{self._server}: {refusal.detail} ({refusal.code})"
        if status in RETRY_STATUSES or refusal.code in RETRY_CODES:
            raise TryAgain(text)
        raise ConfigError((text,))

    def _post(self, path: str, request: EnrolRequest | RenewRequest) -> EnrolAnswer:
        return self._decode(self._ask(path, request, ANSWER_BYTES_MAX), EnrolAnswer)

    def _ask(self, path: str, request: msgspec.Struct, bytes_max: int) -> bytes:
        body = msgspec.json.encode(request)
        status, answer = _ask(self._server, "POST", path, body, bytes_max=bytes_max)
        if status != HTTPStatus.OK:
            self._refuse(status, answer)
        return answer

    def _decode(self, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TryAgain(f"{self._server}: not a registrar's answer ({error})") from error


def _ask(
    server: Server, method: str, path: str, body: bytes, *, bytes_max: int = ANSWER_BYTES_MAX
) -> tuple[int, bytes]:
    """Return status and body. Raise TryAgain, which says what to do."""
    with _connecting(server) as connection:
        connection.request(method, path, body or None, JSON_HEADERS if body else {})
        response = connection.getresponse()
        data = response.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise TryAgain(f"{server}: an answer of more than {bytes_max} bytes")
    return response.status, data


@contextlib.contextmanager
def _connecting(server: Server) -> Iterator[http.client.HTTPSConnection]:
    """Connect for the block. Raise TryAgain for whatever the network does in it."""
    import http.client  # 3 MB that a running agent needs once a month

    connection = http.client.HTTPSConnection(server.host, server.port, timeout=TIMEOUT_S, context=server.context)
    try:
        yield connection
    except ssl.SSLError as error:
        raise TryAgain(f"{server}: {describe_tls_error(error, time.time())}") from error
    except (OSError, http.client.HTTPException) as error:
        hint = "is there a network, is the address right, is the registrar running?"
        raise TryAgain(f"{server}: {str(error) or type(error).__name__}; {hint}") from error
    finally:
        connection.close()
