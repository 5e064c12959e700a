"""Why a board could not enrol, from the registrar's real answers to the word on the board's console."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import main as agent
from agent.firstboot.places import Places
from agent.firstboot.programs import NoPrograms
from agent.firstboot.provision import boot, settle
from agent.provisioning.announcement import BoardState, decide_state
from agent.provisioning.refusals import explain
from flchain_edge.enrolment.messages import Token, format_token, parse_token
from flchain_edge.process.command_line import EXIT_CONFIG, EXIT_IO, EXIT_TRY_AGAIN
from tests.support.networks.registrar import Registrar, started_registrar


@pytest.fixture
def registrar(tmp_path: Path) -> Iterator[Registrar]:
    with started_registrar(tmp_path / "registrar") as started:
        yield started


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "board/boot/firmware").mkdir(parents=True)
    return Places(tmp_path / "board")


def enrol(places: Places, token: str) -> int:
    """What the two units do, one after the other."""
    (places.root / "boot/firmware/flchain.toml").write_text(f'name = "north-3"\n[registrar]\ntoken = "{token}"\n')
    boot(places, NoPrograms())
    places.report.parent.mkdir(parents=True, exist_ok=True)
    handed_on = str(places.token_credentials[0])
    code = agent(["enroll", "--token-file", handed_on, "--dir", str(places.agent), "--report", str(places.report)])
    settle(places, NoPrograms())
    return code


def read_word(places: Places) -> tuple[BoardState, str, str]:
    """The state, the reason, and the console."""
    _, facts = settle(places, NoPrograms())
    assert facts.attempt is not None
    return decide_state(facts), explain(facts.attempt).reason, " ".join(places.issue.read_text().split())


def find_unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def test_an_expired_token(registrar: Registrar, places: Places) -> None:
    """Refused for good, with the way to a new one; the old one stays until then, so nothing is lost."""
    token = registrar.make_token("device", "--hours", "1")
    registrar.clock_offset_s = 3 * 3_600
    assert enrol(places, token) == EXIT_CONFIG
    state, reason, shown = read_word(places)
    assert (state, reason) == (BoardState.REFUSED, "The token has expired")
    assert "flchain registrar token" in shown and places.token.read_text() == token


def test_a_used_token(registrar: Registrar, places: Places, tmp_path: Path) -> None:
    """Another board was quicker, or somebody has copied the card."""
    token = registrar.make_token()
    agent(["enroll", "--token", token, "--dir", str(tmp_path / "other")])
    assert enrol(places, token) == EXIT_CONFIG
    assert read_word(places)[:2] == (BoardState.REFUSED, "The token was used by another board")


def test_a_new_file_takes_a_refused_boards_word_back(registrar: Registrar, places: Places) -> None:
    """After a correction the board enrols as if nothing had been: the same key, waiting for the genesis."""
    token = registrar.make_token()
    registrar.clock_offset_s = 10 * 86_400
    enrol(places, token)
    registrar.clock_offset_s = 0
    key = (places.agent / "key.pem").read_bytes()
    assert enrol(places, registrar.make_token()) == EXIT_TRY_AGAIN
    state, reason, shown = read_word(places)
    assert (state, reason) == (BoardState.ENROLLING, "The network is not complete")
    assert "nothing to do here" in shown and (places.agent / "key.pem").read_bytes() == key


def test_a_token_of_another_registrar(registrar: Registrar, places: Places) -> None:
    """Its fingerprint is not that of the authority that answers: nothing secret was sent."""
    token = parse_token(registrar.make_token())
    forged = format_token(Token(token.host, token.port, bytes(32), token.secret))
    assert enrol(places, forged) == EXIT_CONFIG
    assert read_word(places)[:2] == (BoardState.REFUSED, "Another registrar answers at this address")


def test_no_registrar_and_no_network(registrar: Registrar, places: Places) -> None:
    """Asked again until it works: nobody listens there, or the name is not found."""
    token = parse_token(registrar.make_token())
    assert (
        enrol(places, format_token(Token(token.host, find_unused_port(), *[token.fingerprint, token.secret])))
        == EXIT_TRY_AGAIN
    )
    assert read_word(places)[:2] == (BoardState.ENROLLING, "No registrar answers at this address")
    assert (
        enrol(places, format_token(Token("registrar.invalid", 8443, token.fingerprint, token.secret))) == EXIT_TRY_AGAIN
    )
    assert read_word(places)[:2] == (BoardState.ENROLLING, "The registrar's name is not found")


def test_a_clock_that_was_never_set(registrar: Registrar, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board believes that it is 1970: the registrar is not valid yet, and the console blames the clock."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 9, "certificate is not yet valid"

    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("http.client.HTTPSConnection.request", refuse)
    assert enrol(places, registrar.make_token()) == EXIT_TRY_AGAIN
    assert read_word(places)[:2] == (BoardState.ENROLLING, "The clock is wrong")


def test_a_full_data_partition(registrar: Registrar, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board says that its disk is full, keeps what it has, and goes on as soon as there is room."""
    token = registrar.make_token()
    real = os.open

    def is_data(path: object) -> bool:
        return str(path).startswith((str(places.agent), str(places.state)))

    def open_on_a_full_disk(path: object, flags: int, *arguments: object, **options: object) -> int:
        if flags & os.O_CREAT and is_data(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, flags, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as full:
        full.setattr(os, "open", open_on_a_full_disk)
        (places.root / "boot/firmware/flchain.toml").write_text(f'name = "n"\n[registrar]\ntoken = "{token}"\n')
        outcome, _ = boot(places, NoPrograms())
        assert outcome.is_full and "No space left" in outcome.problems[0]
        assert (places.root / "etc/hostname").read_text() == "n\n", "it is still named"
        assert "No space left" in places.issue.read_text()
    boot(places, NoPrograms())
    with monkeypatch.context() as full:
        full.setattr(os, "open", open_on_a_full_disk)
        assert enrol(places, token) == EXIT_IO
        assert read_word(places)[:2] == (BoardState.ENROLLING, "The disk is full")
    assert enrol(places, token) == EXIT_TRY_AGAIN, "enrolled; the genesis is not there yet"
