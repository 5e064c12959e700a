"""What an attacker or an unlucky hour does to the registrar: races, odd requests, full disks, init that breaks off."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.cli import main as agent
from flchain.crypto import Identity
from flchain_edge.enrolment_messages import build_enrol_request, build_renew_request
from flchain_edge.tls_key import build_request, load_or_create_tls_key
from tests.support.registrar import HOST, Registrar, make_registrar
from tools.cli import main
from tools.registrar.authority import Issued
from tools.registrar.desk import Desk, RequestRefused
from tools.registrar.register import Register

NOW_S, DAY_S = 1_800_000_000, 86_400


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


def open_beside(desk: Desk) -> Desk:
    """The same registrar in another process that does not wait."""
    return Desk(desk.folder, desk.settings, desk.authority, Register(desk.folder, busy_s=0.0))


def try_in_between(monkeypatch: pytest.MonkeyPatch, desk: Desk, act: Callable[[], object]) -> None:
    """Another process acts when this desk has checked everything and has yet to write; it is made to wait."""
    issue = desk.authority.issue_client

    def issue_late(*arguments: Any) -> Issued:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            act()
        return issue(*arguments)

    monkeypatch.setattr(
        desk,
        "authority",
        SimpleNamespace(
            issue_client=issue_late, **{name: getattr(desk.authority, name) for name in ("fingerprint", "ca_pem")}
        ),
    )


def test_of_two_at_once_one_has_the_token(
    registrar: Registrar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sign` beside `serve`: a token that both would find unused lets one node in, the other is refused."""
    serving = Desk.open(registrar.folder, None)
    signing = open_beside(serving)
    token = serving.make_token("device", "", "", 60, NOW_S)
    first, second = Identity.from_seed(bytes(32)), Identity.from_seed(b"2" * 32)
    requests = [build_enrol_request(who, token, "device", build_csr(tmp_path, who)) for who in (first, second)]
    try_in_between(monkeypatch, serving, lambda: signing.enrol(requests[1], NOW_S, "file"))
    serving.enrol(requests[0], NOW_S, "peer")
    with pytest.raises(RequestRefused, match="token-used"):
        signing.enrol(requests[1], NOW_S, "file")
    assert [node.address for node in serving.register.list_nodes()] == [first.address.hex()]
    serving.register.close()
    signing.register.close()


def test_who_is_revoked_meanwhile_has_nothing_good(
    registrar: Registrar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`revoke` while a renewal is under way comes after it, and puts the new certificate on the list, too."""
    serving = Desk.open(registrar.folder, None)
    operator = open_beside(serving)
    me = Identity.from_seed(bytes(32))
    token, csr = serving.make_token("device", "", "", 60, NOW_S), build_csr(tmp_path, me)
    serving.enrol(build_enrol_request(me, token, "device", csr), NOW_S, "peer")
    later_s, name = NOW_S + 25 * DAY_S, me.address.hex()
    try_in_between(monkeypatch, serving, lambda: operator.revoke(name, later_s))
    serving.renew(build_renew_request(me, serving.authority.fingerprint, csr), later_s, "peer")
    assert operator.revoke(name, later_s) == 2
    assert all(made.revoked_s for made in serving.register.list_certificates(name))
    serving.register.close()
    operator.register.close()
