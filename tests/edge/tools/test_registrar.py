"""What an attacker or an unlucky hour does to the registrar: races, odd requests, full disks, init that breaks off."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.cli import main as agent
from flchain.base.crypto import Identity
from flchain_edge.enrolment.messages import build_enrol_request, build_renew_request, parse_token
from flchain_edge.keys.tls_key import build_request, load_or_create_tls_key
from flchain_edge.process.command_line import EXIT_TRY_AGAIN
from tests.support.networks.registrar import HOST, Registrar, make_registrar, serving
from tools.cli import main
from tools.registrar.authority import Issued
from tools.registrar.enroller import Enroller, RequestRefused
from tools.registrar.register import Register
from tools.registrar.server import CONNECTIONS_MAX

# Object identifiers in DER, and others of the same length that nobody knows.
P256, UNKNOWN_CURVE = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
ECDSA_SHA256, UNKNOWN_ALGORITHM = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
EC_KEY, UNKNOWN_KEY = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d027f")
NOW_S, DAY_S = 1_800_000_000, 86_400


@pytest.fixture
def registrar(tmp_path: Path) -> Registrar:
    return make_registrar(tmp_path / "registrar")


def build_csr(folder: Path, identity: Identity) -> bytes:
    return build_request(load_or_create_tls_key(folder / f"{identity.address.hex()}.pem"), identity.address.hex())


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--name", "bad name!", "name: must be at most 32 letters"),
        ("--name", 'a"\nport = 1\n#', "name: must be at most 32 letters"),
        ("--host", 'h"x', "host: must be a host's name or address"),
        ("--host", "büro", "host: must be a host's name or address"),
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
    """Characters that no token has, a port out of range: one sentence, no traceback, and no key is made for it."""
    assert agent(["enroll", "--token", f"flchain1/{where}/{'A' * 43}/{secret}", "--dir", str(tmp_path / "node")]) == 78
    assert "token: is incomplete" in capsys.readouterr().err
    assert not (tmp_path / "node").exists()


def open_beside(enroller: Enroller) -> Enroller:
    """The same registrar in another process that does not wait."""
    return Enroller(enroller.folder, enroller.settings, enroller.authority, Register(enroller.folder, busy_s=0.0))


def try_in_between(monkeypatch: pytest.MonkeyPatch, enroller: Enroller, act: Callable[[], object]) -> None:
    """Another process acts when this enroller has checked everything and has yet to write; it is made to wait."""
    issue = enroller.authority.issue_client

    def issue_late(*arguments: Any) -> Issued:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            act()
        return issue(*arguments)

    monkeypatch.setattr(
        enroller,
        "authority",
        SimpleNamespace(
            issue_client=issue_late, **{name: getattr(enroller.authority, name) for name in ("fingerprint", "ca_pem")}
        ),
    )


def test_of_two_at_once_one_has_the_token(
    registrar: Registrar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sign` beside `serve`: a token that both would find unused lets one node in, the other is refused."""
    serving = Enroller.open(registrar.folder, None)
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
    serving = Enroller.open(registrar.folder, None)
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


@pytest.mark.parametrize("hours", ["0", "-3", "100000000000000", "x"])
def test_a_tokens_life_is_bounded(registrar: Registrar, hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that is never good, or for ever: said to the operator, not to the board that tries it."""
    with contextlib.suppress(SystemExit):  # argparse's own refusal
        assert main(["registrar", "token", "--dir", str(registrar.folder), "--hours", hours]) == 78
    said = capsys.readouterr()
    assert "--hours" in said.err and not said.out


def test_an_address_may_be_typed_in_capitals(registrar: Registrar, tmp_path: Path) -> None:
    """`token --address` and `revoke` mean the same node however its address is written."""
    me = Identity.from_seed(bytes(32))
    token = parse_token(registrar.make_token("device", "--address", me.address.hex().upper()))
    enroller = Enroller.open(registrar.folder, None)
    request = build_enrol_request(me, token, "device", build_csr(tmp_path, me))
    assert enroller.enrol(request, int(time.time()), "peer").certificate
    registrar.run("revoke", me.address.hex().upper())
    assert [node.address for node in enroller.register.list_nodes() if node.revoked_s] == [me.address.hex()]
    enroller.register.close()


def test_a_revoked_or_lesser_server_gets_a_new_certificate(registrar: Registrar, tmp_path: Path) -> None:
    """Files made again after `revoke HOST`, or with a bridge for the first time: no old certificate stays in use."""
    out = tmp_path / "out"

    def render(*arguments: str) -> x509.Certificate:
        registrar.render_broker("mosquitto", out, 8883, *arguments)
        return x509.load_pem_x509_certificate((out / "server.pem").read_bytes())

    first = render()
    assert render() == first
    registrar.run("revoke", HOST)
    second = render()
    assert second.serial_number != first.serial_number
    usage = render("--bridge", "b:8883").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usage


def test_a_request_with_a_strange_key_is_refused(registrar: Registrar, tmp_path: Path) -> None:
    """Another curve, RSA, an unknown algorithm, bytes at the end, two names: `bad-request`, whatever it is."""
    enroller = Enroller.open(registrar.folder, None)
    me = Identity.from_seed(bytes(32))
    token, good = enroller.make_token("device", "", "", 60, NOW_S), build_csr(tmp_path, me)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, me.address.hex())])
    twice = x509.Name([*name, *name])
    requests = [good[:-1], good + b"\x00", b"", b"\x30\x80", good.replace(P256, UNKNOWN_CURVE)]
    requests += [good.replace(ECDSA_SHA256, UNKNOWN_ALGORITHM), good.replace(EC_KEY, UNKNOWN_KEY)]
    for subject, key in (
        (name, ec.generate_private_key(ec.SECP384R1())),
        (name, rsa.generate_private_key(65537, 2048)),
        (name, ed25519.Ed25519PrivateKey.generate()),
        (twice, ec.generate_private_key(ec.SECP256R1())),
    ):
        algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        made = x509.CertificateSigningRequestBuilder(subject).sign(key, algorithm)
        requests.append(made.public_bytes(serialization.Encoding.DER))
    for csr in requests:
        with pytest.raises(RequestRefused, match="bad-request"):
            enroller.enrol(build_enrol_request(me, token, "device", csr), NOW_S, "peer")
    assert enroller.enrol(build_enrol_request(me, token, "device", good), NOW_S, "peer").certificate
    enroller.register.close()


def test_a_full_disk_is_told_as_the_registrars_fault(
    registrar: Registrar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written down is not given out; the node hears that it is the registrar's and tries again."""
    token = registrar.make_token()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serving(registrar):
        command = ["enroll", "--token", token, "--dir", str(tmp_path / "board")]
        with monkeypatch.context() as full:
            full.setattr("tools.registrar.register.os.write", fail)
            assert agent(command) == EXIT_TRY_AGAIN
        assert "registrar-fault" in capsys.readouterr().err
        assert not Enroller.open(registrar.folder, None).register.list_nodes()
        assert agent(command) == EXIT_TRY_AGAIN
        assert "genesis does not exist yet" in capsys.readouterr().err


def test_one_address_does_not_take_every_place(registrar: Registrar, tmp_path: Path) -> None:
    """A caller that opens connections and says nothing shuts out only itself; others are still served."""
    context = ssl.create_default_context(cafile=str(registrar.folder / "ca.pem"))

    def connect(source: str) -> ssl.SSLSocket:
        bare = socket.create_connection(("127.0.0.1", registrar.port), source_address=(source, 0))
        return context.wrap_socket(bare, server_hostname=HOST)

    with serving(registrar):
        silent = [connect("127.0.0.2") for _ in range(CONNECTIONS_MAX)]
        with connect("127.0.0.3") as other:
            other.sendall(b"GET /v1/ca HTTP/1.1\r\n\r\n")
            assert other.recv(15) == b"HTTP/1.1 200 OK"
        for connection in silent:
            connection.close()


def test_an_operators_full_disk_is_one_line(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token whose line the log cannot take is neither printed nor kept."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "audit.log")

    with monkeypatch.context() as full:
        full.setattr("tools.registrar.register.os.write", fail)
        assert main(["registrar", "token", "--dir", str(registrar.folder)]) == 74
    said = capsys.readouterr()
    assert said.err == "error: audit.log: No space left on device\n" and not said.out
    with contextlib.closing(sqlite3.connect(registrar.folder / "registrar.db")) as db:
        assert db.execute("SELECT count(*) FROM tokens").fetchone() == (0,)


def test_an_init_that_broke_off_says_what_to_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed between the authority and the settings: the next init overwrites no key, and names what is in its way."""
    command = ["registrar", "init", "--dir", str(tmp_path), "--host", HOST, "--broker", "b:1"]
    assert main(command) == 0
    (tmp_path / "registrar.toml").unlink()
    key = (tmp_path / "ca-key.pem").read_bytes()
    assert main(command) == 78
    assert "ca-key.pem" in capsys.readouterr().err and (tmp_path / "ca-key.pem").read_bytes() == key
