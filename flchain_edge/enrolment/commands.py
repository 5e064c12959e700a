"""`enroll` and `renew`. Imported only when they are called: a running agent does not need them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from flchain.base.errors import ConfigError, FlchainError
from flchain.ledger.genesis import Genesis
from flchain_edge.enrolment.enrol import Newcomer, build_request_file, enrol, format_time, renew
from flchain_edge.enrolment.messages import ANSWER_BYTES_MAX, EnrolAnswer, EnrolRequest, parse_token
from flchain_edge.keys.keystore import load_passphrase
from flchain_edge.keys.private_files import replace_private
from flchain_edge.settings.node import NodeSettings, load_identity

TOKEN_BYTES_MAX = 1_024


def run_enroll(
    name: str, role: str, get_members: Callable[[Genesis], Iterable[bytes]] | None, arguments: argparse.Namespace
) -> None:
    """Enrol this node, and report why if it fails. Raise ConfigError, StoreFull, TryAgain."""
    report: Path | None = arguments.report
    if report is not None:
        report.unlink(missing_ok=True)
    try:
        _enroll(name, role, get_members, arguments)
    except FlchainError as error:
        if report is not None:
            text = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
            content = {"text": text, "is_final": isinstance(error, ConfigError)}
            replace_private(report, msgspec.json.encode(content))
        raise


def _enroll(
    name: str, role: str, get_members: Callable[[Genesis], Iterable[bytes]] | None, arguments: argparse.Namespace
) -> None:
    token = parse_token(arguments.token if arguments.token is not None else _read_token(arguments.token_file))
    passphrase = load_passphrase(None, arguments.passphrase_file)
    folder = arguments.dir
    newcomer = Newcomer(folder, role, f"{name}.toml", passphrase, arguments.passphrase_file, get_members)
    if arguments.request is not None:
        _write_request(arguments.request, build_request_file(token, newcomer))
        print(f"{arguments.request}: take it to the operator, for: flchain registrar sign; it holds the token")
        return
    done = enrol(token, newcomer, _read_answer(arguments.answer) if arguments.answer is not None else None)
    print(f"{done.config}: {'enrolled' if done.is_new else 'already enrolled'} as {done.identity.address.hex()}")
    print(f"put this node's data into {folder / 'examples.npz'}, then: flchain-{name} check --config {done.config}")


def run_renew(settings: NodeSettings, arguments: argparse.Namespace) -> None:
    """Renew this node's certificate. Raise ConfigError, TryAgain."""
    where = settings.enrolment.endpoint
    if where is None:
        raise ConfigError((f"{arguments.config}: [enrolment] registrar: not set, so nothing can renew it",))
    fingerprint = bytes.fromhex(settings.enrolment.fingerprint)
    ends_s = renew(settings.mqtt, where, fingerprint, load_identity(settings), settings.enrolment.operators)
    print(f"{settings.mqtt.tls_certificate}: valid until {format_time(ends_s)}")


def _write_request(path: Path, request: EnrolRequest) -> None:
    try:
        replace_private(path, msgspec.json.encode(request))
    except OSError as error:
        raise ConfigError((f"request {path}: {error.strerror or error}",)) from error


def _read_answer(path: Path) -> EnrolAnswer:
    try:
        with path.open("rb") as stream:
            return msgspec.json.decode(stream.read(ANSWER_BYTES_MAX), type=EnrolAnswer)
    except OSError as error:
        raise ConfigError((f"answer {path}: {error.strerror or error}",)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError((f"answer {path}: is not a registrar's answer: {error}",)) from error


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(TOKEN_BYTES_MAX).decode("ascii", errors="replace")
    except OSError as error:
        raise ConfigError((f"token file {path}: {error.strerror or error}",)) from error
