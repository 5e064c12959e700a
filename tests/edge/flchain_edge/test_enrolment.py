"""Enrolment: a board with nothing but a token, a registrar over real TLS, and everything that may go wrong between."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

import flchain_edge.enrolment.enrol as enrolment_module
import tools.registrar.authority as authority_module
from agent.cli import main as agent
from flchain.base.types import UnixMillis
from flchain_edge.enrolment.messages import (
    REQUEST_BYTES_MAX,
    Refusal,
    Token,
    build_enrol_request,
    format_token,
    parse_token,
)
from flchain_edge.enrolment.renewal import RenewalKeeper
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.keys.tls_key import build_request, load_or_create_tls_key, read_validity
from flchain_edge.mqtt.settings import build_tls_context
from flchain_edge.process.command_line import EXIT_CONFIG, EXIT_TRY_AGAIN
from flchain_edge.settings.config import load_config
from miner.cli import main as miner
from miner.settings import MinerSettings
from tests.support.networks.registrar import HOST, Registrar, run_command, started_registrar
from tools.registrar.server import CONNECTIONS_MAX, REFUSALS_MAX

MODEL = Path(__file__).parents[3] / "tools" / "models" / "mlp.tflite"
DAY_S = 86_400


@pytest.fixture
def registrar(tmp_path: Path) -> Iterator[Registrar]:
    with started_registrar(tmp_path / "registrar") as started:
        yield started


def enrol(registrar: Registrar, folder: Path, role: str = "device", token: str = "") -> int:
    program = agent if role == "device" else miner
    return program(["enroll", "--token", token or registrar.make_token(role), "--dir", str(folder)])


def make_chain(registrar: Registrar, folder: Path) -> None:
    """What the operator does between two enrolments: network file, genesis, files into the registrar's folder."""
    shutil.copyfile(MODEL, folder / "model.tflite")
    network = folder / "network.toml"
    network.write_text('name = "field"\nmodel = "model.tflite"\npreset = "minimal"\n' + registrar.run("network"))
    genesis = registrar.folder / "genesis.cbor"
    genesis.unlink(missing_ok=True)
    run_command("genesis", "make", "--network", str(network), "--out", str(genesis))
    shutil.copyfile(MODEL, registrar.folder / "model.tflite")


def read_address(folder: Path) -> str:
    return load_or_create_identity(folder / "key.pem", None).address.hex()


def test_from_a_token_to_a_node_that_checks(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Miner and board enrol, the operator makes the genesis from that, they enrol on, and the result checks."""
    tokens = {role: registrar.make_token(role) for role in ("miner", "device")}
    for role in ("miner", "device"):
        assert enrol(registrar, tmp_path / role, role, tokens[role]) == EXIT_TRY_AGAIN
        assert "does not exist yet" in capsys.readouterr().err
    make_chain(registrar, tmp_path)
    for role in ("miner", "device"):
        assert enrol(registrar, tmp_path / role, role, tokens[role]) == 0, capsys.readouterr().err
    board = tmp_path / "device"
    np.savez(board / "examples.npz", x=np.zeros((20, 784), np.float32), y=np.zeros(20, np.int32))
    assert agent(["check", "--config", str(board / "agent.toml")]) == 0, capsys.readouterr().err
    assert "no problem" in capsys.readouterr().out
    files = sorted(path.name for path in board.iterdir())
    names = [
        "agent.toml",
        "ca.pem",
        "examples.npz",
        "genesis.cbor",
        "key.pem",
        "model.tflite",
        "tls-key.pem",
        "tls.pem",
    ]
    assert files == names
    for name in set(names) - {"examples.npz"}:
        assert stat.S_IMODE((board / name).stat().st_mode) == 0o600, name
    assert enrol(registrar, board, token=tokens["device"]) == 0, "again is no fault"
    assert "already enrolled" in capsys.readouterr().out
    assert read_address(board) in registrar.run("list") and "enrol" in (registrar.folder / "audit.log").read_text()


def test_a_certificate_is_for_a_client_and_short(registrar: Registrar, tmp_path: Path) -> None:
    """Common name the address, nothing but TLS client, 30 days, begun a day ago; of a key that never left the board."""
    enrol(registrar, tmp_path / "board")
    made = x509.load_pem_x509_certificate((tmp_path / "board" / "tls.pem").read_bytes())
    assert made.subject.rfc4514_string() == f"CN={read_address(tmp_path / 'board')}"
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    validity = read_validity((tmp_path / "board" / "tls.pem").read_text())
    assert validity.not_before_s == int(made.not_valid_before_utc.timestamp())
    assert validity.not_after_s == int(made.not_valid_after_utc.timestamp())
    now = time.time()
    assert 29 * DAY_S < validity.not_after_s - now <= 30 * DAY_S and now - validity.not_before_s > 0.9 * DAY_S
    key = (tmp_path / "board" / "tls-key.pem").read_text().splitlines()[1]
    assert key not in b"".join(p.read_bytes() for p in registrar.folder.iterdir()).decode(errors="replace")


def test_only_hashes_of_tokens_are_kept(registrar: Registrar) -> None:
    """Reading the registrar's database or log does not allow anybody to enrol a node."""
    token = parse_token(registrar.make_token())
    everything = b"".join(path.read_bytes() for path in registrar.folder.iterdir())
    assert token.secret not in everything and token.secret.hex().encode() not in everything
    assert stat.S_IMODE((registrar.folder / "registrar.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["replace_private", "create_private", "_check_files"])
def test_a_crash_at_any_step_is_survived(
    registrar: Registrar, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the token was used up but before the certificate, a file or the configuration was written: again."""
    enrol(registrar, tmp_path / "miner", "miner")
    token, board = registrar.make_token(), tmp_path / "board"
    enrol(registrar, board, token=token)
    make_chain(registrar, tmp_path)
    shutil.copytree(board, tmp_path / "before")
    for calls in range(4):
        shutil.rmtree(board)
        shutil.copytree(tmp_path / "before", board)
        _crash_after(monkeypatch, step, calls)
        with pytest.raises(Killed):
            enrol(registrar, board, token=token)
        monkeypatch.undo()
        assert not (board / "agent.toml").exists()
        assert enrol(registrar, board, token=token) == 0
        if step != "replace_private":
            break
    assert len(list((board).glob(".*"))) == 0, "nothing is left lying about"


class Killed(BaseException):
    """Nothing catches it: no step after it is taken."""


def _crash_after(monkeypatch: pytest.MonkeyPatch, step: str, calls: int) -> None:
    act, left = getattr(enrolment_module, step), [calls]

    def crash(*arguments: object) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        act(*arguments)

    monkeypatch.setattr(enrolment_module, step, crash)


def test_refusals_say_what_to_do(registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A used, unknown, expired, foreign or torn token, a wrong role, another board's: each by its name, none enrols."""
    used = registrar.make_token()
    enrol(registrar, tmp_path / "first", token=used)
    capsys.readouterr()
    unknown = format_token(Token(HOST, registrar.port, parse_token(used).fingerprint, bytes(16)))
    bound = registrar.make_token("device", "--address", "ab" * 20)
    for token, role, word in (
        (used, "device", "token-used"),
        (unknown, "device", "token-unknown"),
        (registrar.make_token("miner"), "device", "wrong-role"),
        (bound, "device", "wrong-address"),
        (used[:-3], "device", "is incomplete"),
    ):
        assert enrol(registrar, tmp_path / "second", role, token) == EXIT_CONFIG
        said = capsys.readouterr().err
        assert word in said and token not in said
    late = registrar.make_token("device", "--hours", "1")
    registrar.clock_offset_s = 3_700.0
    assert enrol(registrar, tmp_path / "second", token=late) == EXIT_CONFIG
    assert "token-expired" in capsys.readouterr().err
    assert "token-used" in (registrar.folder / "audit.log").read_text()
    assert not (tmp_path / "second" / "tls.pem").exists()


def test_a_registrar_that_is_not_the_tokens_hears_nothing(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interceptor has another authority: it is refused by the fingerprint before the secret is sent."""
    with started_registrar(tmp_path / "impostor") as impostor:
        genuine = parse_token(registrar.make_token())
        led_astray = Token(HOST, impostor.port, genuine.fingerprint, genuine.secret)
        assert enrol(registrar, tmp_path / "board", token=format_token(led_astray)) == EXIT_CONFIG
        assert "somebody intercepts" in capsys.readouterr().err
        assert "token-unknown" not in (impostor.folder / "audit.log").read_text(), "no secret reached it"


def test_no_network_and_a_wrong_clock_say_so(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer: try again, with the usual causes. A certificate that begins in the future: look at the clock."""
    token = parse_token(registrar.make_token())
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = Token(HOST, nobody.getsockname()[1], token.fingerprint, token.secret)
        assert enrol(registrar, tmp_path / "board", token=format_token(gone)) == EXIT_TRY_AGAIN
    assert "is there a network" in capsys.readouterr().err
    monkeypatch.setattr(authority_module, "BACKDATED_SERVER", timedelta(days=-30))
    with started_registrar(tmp_path / "future") as future:
        assert enrol(future, tmp_path / "board") == EXIT_TRY_AGAIN
    said = capsys.readouterr().err
    assert "not yet valid" in said and "clock says 20" in said


def test_a_foreign_key_cannot_be_certified(registrar: Registrar, tmp_path: Path) -> None:
    """Proof of both keys: a request signed by another Ed25519 key, naming another address, or altered, is refused."""
    token = parse_token(registrar.make_token())
    mine = load_or_create_identity(tmp_path / "mine.pem", None)
    other = load_or_create_identity(tmp_path / "other.pem", None)
    tls = load_or_create_tls_key(tmp_path / "tls.pem")
    honest = build_enrol_request(mine, token, "device", build_request(tls, mine.address.hex()))
    named = build_enrol_request(mine, token, "device", build_request(tls, other.address.hex()))
    forged = msgspec.structs.replace(honest, public_key=other.public_key.hex())
    csr = bytearray(build_request(tls, mine.address.hex()))
    csr[-1] ^= 1
    altered = build_enrol_request(mine, token, "device", bytes(csr))
    for request, code in ((forged, "bad-signature"), (named, "bad-request"), (altered, "bad-request")):
        assert post(registrar, "/v1/enroll", msgspec.json.encode(request)) == (403, code)
    assert post(registrar, "/v1/enroll", msgspec.json.encode(honest))[0] == 200


def connect(registrar: Registrar) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(registrar.folder / "ca.pem"))
    return http.client.HTTPSConnection(HOST, registrar.port, timeout=20, context=context)


def post(registrar: Registrar, path: str, body: bytes) -> tuple[int, str]:
    connection = connect(registrar)
    connection.request("POST", path, body)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, "" if response.status == 200 else msgspec.json.decode(data, type=Refusal).code


def test_garbage_floods_and_guesses_are_bounded(registrar: Registrar, tmp_path: Path) -> None:
    """Large, broken and deep bodies are refused, guesses make an address wait, idle connections block nobody."""
    for body in (b"", b"{}", b"[" * 5_000, b'"\xff"', b'{"role": 3}'):
        assert post(registrar, "/v1/enroll", body) == (400, "bad-request")
    assert post(registrar, "/v1/renew", b"x" * (REQUEST_BYTES_MAX + 1)) == (413, "too-large")
    assert post(registrar, "/etc/passwd", b"") == (404, "unknown-path")
    idle = [socket.create_connection(("127.0.0.1", registrar.port)) for _ in range(2 * CONNECTIONS_MAX)]
    token = parse_token(registrar.make_token())
    me = load_or_create_identity(tmp_path / "key.pem", None)
    tls = load_or_create_tls_key(tmp_path / "tls.pem")
    guess = Token(HOST, registrar.port, token.fingerprint, bytes(16))
    wrong = msgspec.json.encode(build_enrol_request(me, guess, "device", build_request(tls, me.address.hex())))
    codes = [post(registrar, "/v1/enroll", wrong)[1] for _ in range(REFUSALS_MAX + 1)]
    assert codes == ["token-unknown"] * REFUSALS_MAX + ["too-many"]
    for connection in idle:
        connection.close()


def test_renewal_before_the_end_after_it_and_never_when_revoked(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same key gets a new certificate in the last third of the old one's life and after it; revoked: none."""
    folder = tmp_path / "miner"
    token = registrar.make_token("miner")
    enrol(registrar, folder, "miner", token)
    make_chain(registrar, tmp_path)
    assert enrol(registrar, folder, "miner", token) == 0
    settings = load_config(folder / "miner.toml", MinerSettings)
    identity = load_or_create_identity(folder / "key.pem", None)
    first = (folder / "tls.pem").read_text()

    def check(time_s: float | None) -> bool:
        import asyncio

        keeper = RenewalKeeper(settings, identity, lambda: None if time_s is None else UnixMillis(int(time_s * 1000)))
        return asyncio.run(keeper.check())

    now = time.time()
    assert not check(None), "nobody knows what time it is"
    assert not check(now) and (folder / "tls.pem").read_text() == first
    for days in (21, 400):
        registrar.clock_offset_s = days * DAY_S
        before = read_validity((folder / "tls.pem").read_text())
        assert check(now + days * DAY_S)
        after = read_validity((folder / "tls.pem").read_text())
        assert after.not_after_s > before.not_after_s + 10 * DAY_S
    assert build_tls_context(settings.mqtt) is not None, "certificate and key still fit"
    registrar.run("revoke", identity.address.hex())
    assert not check(now + 2_000 * DAY_S)
    assert miner(["renew", "--config", str(folder / "miner.toml")]) == EXIT_CONFIG
    assert "revoked" in capsys.readouterr().err
    assert enrol(registrar, tmp_path / "again", "miner", token) == EXIT_CONFIG, "its token is used up"


def test_a_device_the_genesis_does_not_know_waits(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that enrols after the genesis was made learns why it waits; with the next genesis it finishes."""
    enrol(registrar, tmp_path / "miner", "miner")
    enrol(registrar, tmp_path / "early")
    make_chain(registrar, tmp_path)
    token = registrar.make_token()
    assert enrol(registrar, tmp_path / "late", token=token) == EXIT_TRY_AGAIN
    assert "does not include this device" in capsys.readouterr().err
    make_chain(registrar, tmp_path)
    assert enrol(registrar, tmp_path / "late", token=token) == 0


def test_by_hand_where_the_registrar_cannot_be_reached(
    registrar: Registrar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Request and answer travel as files, genesis and model by hand; the answer of another authority is refused."""
    enrol(registrar, tmp_path / "miner", "miner")
    board, token = tmp_path / "board", registrar.make_token()
    command = ["enroll", "--token", token, "--dir", str(board)]
    assert agent([*command, "--request", str(tmp_path / "request")]) == 0
    registrar.run("sign", "--request", str(tmp_path / "request"), "--out", str(tmp_path / "early"))
    make_chain(registrar, tmp_path)
    registrar.run("sign", "--request", str(tmp_path / "request"), "--out", str(tmp_path / "answer"))
    assert agent([*command, "--answer", str(tmp_path / "answer")]) == EXIT_CONFIG
    assert "copy the network's genesis" in capsys.readouterr().err
    for name in ("genesis.cbor", "model.tflite"):
        shutil.copyfile(registrar.folder / name, board / name)
    assert agent([*command, "--answer", str(tmp_path / "answer")]) == 0
    with started_registrar(tmp_path / "other") as other:
        foreign = ["enroll", "--token", other.make_token(), "--dir", str(tmp_path / "new")]
        assert agent([*foreign, "--answer", str(tmp_path / "answer")]) == EXIT_CONFIG


def test_an_authority_that_brings_a_second_certificate_brings_nothing(registrar: Registrar, tmp_path: Path) -> None:
    """Behind the pinned certificate another one may follow in the same text: it must not be believed."""
    from flchain_edge.enrolment.client import check_authority

    genuine = (registrar.folder / "ca.pem").read_text()
    with started_registrar(tmp_path / "other") as other:
        both = genuine + (other.folder / "ca.pem").read_text()
    token = parse_token(registrar.make_token())
    der = ssl.PEM_cert_to_DER_cert(genuine)
    assert hashlib.sha256(der).digest() == token.fingerprint
    try:
        believed = check_authority(both, token)
    except Exception:
        return  # refused as a whole: as good
    context = ssl.create_default_context(cadata=believed)
    assert len(context.get_ca_certs()) == 1
