"""What an attacker or an unlucky hour does to the registrar: races, odd requests, full disks, init that breaks off."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.cli import main as agent
from flchain.crypto import Identity
from flchain_edge.enrolment_messages import EnrolRequest, RenewRequest, build_enrol_request, build_renew_request
from flchain_edge.tls_key import build_request, load_or_create_tls_key
from tests.support.registrar import HOST, Registrar, make_registrar
from tools.cli import main
from tools.registrar.desk import Desk, RequestRefused

NOW_S = 1_800_000_000


@pytest.fixture
def registrar(tmp_path: Path) -> Registrar:
    return make_registrar(tmp_path / "registrar")


def build_csr(folder: Path, identity: Identity) -> bytes:
    return build_request(load_or_create_tls_key(folder / f"{identity.address.hex()}.pem"), identity.address.hex())


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--name", "bad name!", "name: must match"),
        ("--name", 'a"\nport = 1\n#', "name: must match"),
        ("--host", 'h"x', "host: must match"),
        ("--host", "büro", "host: must match"),
        ("--port", "99999", "port: must be"),
        ("--days", "9999", "certificate_days: must be"),
        ("--broker", "nowhere", "host:port"),
        ("--broker", 'a"b:1', "host:port"),
    ],
)
def test_init_that_is_refused_leaves_nothing(
    tmp_path: Path, option: str, value: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that cannot be: said at once, no authority made, and the same command mended goes through."""
    given = {"--dir": str(tmp_path / "r"), "--name": "n", "--host": HOST, "--port": "8443", "--broker": "b:1"}
    command = [text for pair in (given | {option: value}).items() for text in pair]
    assert main(["registrar", "init", *command]) == 78
    assert word in capsys.readouterr().err
    assert main(["registrar", "init", *(text for pair in given.items() for text in pair)]) == 0


@pytest.mark.parametrize(
    ("where", "secret"),
    [
        ("h:1", "é" * 22),
        ("h:99999", "A" * 22),
        ("h:0", "A" * 22),
        ("h h:1", "A" * 22),
        ("h:\u0661", "A" * 22),
        ("[]:1", "A" * 22),
    ],
)
def test_a_torn_token_is_named_as_one(
    tmp_path: Path, where: str, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Letters that no token has, a port that is none: one sentence, no traceback, and no key is made for it."""
    assert agent(["enroll", "--token", f"flchain1/{where}/{'A' * 43}/{secret}", "--dir", str(tmp_path / "node")]) == 78
    assert "token: is not whole" in capsys.readouterr().err
    assert not (tmp_path / "node").exists()
