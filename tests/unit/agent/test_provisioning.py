"""First boot, the pure part: tokens in bytes, Wi-Fi as files, what a board says of itself."""

from __future__ import annotations

import configparser
import doctest
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

from agent.provisioning import tokens
from agent.provisioning.announcement import (
    LINE_CHARACTERS_MAX,
    BoardFacts,
    BoardState,
    decide_state,
    describe,
    render_issue,
    render_service,
)
from agent.provisioning.network_files import COUNTRY_FILE, WRITERS, build_network_files
from agent.provisioning.refusals import Attempt, explain, read_attempt
from agent.provisioning.settings import WifiSettings
from agent.provisioning.tokens import blank_tokens, find_patches, is_spent

ROOT = Path(__file__).parents[3]
SECRET = b"abcdefghijklmnopqrstuv"
TOKEN = b"flchain1/registrar.lan:8443/" + b"F" * 43 + b"/" + SECRET
FACTS = BoardFacts(name="north-3", folder="/boot/firmware", is_enrolled=False, has_token=False)


def test_the_examples_in_docstrings() -> None:
    """They print what stands below them."""
    found = doctest.testmod(tokens)
    assert found.attempted and not found.failed


def test_a_destroyed_token_leaves_the_rest_of_the_file_as_it_was() -> None:
    """Same length, same other bytes, nothing of the secret, and what is there reads as no token."""
    before = b'# note\r\n[registrar]\r\ntoken = "' + TOKEN + b'" # mine\r\nname = "x"\r\n'
    after = blank_tokens(before)
    assert len(after) == len(before)
    start = before.index(TOKEN)
    assert (after[:start], after[start + len(TOKEN) :]) == (before[:start], before[start + len(TOKEN) :])
    assert not set(after[start:].split(b'"')[0].removeprefix(b"destroyed")) - set(b"#")
    assert is_spent(after[start : start + len(TOKEN)].decode())
    assert blank_tokens(after) == after


def test_a_torn_step_is_found_again() -> None:
    """Whichever sectors of a step a power cut leaves, the next pass destroys what is left of every token."""
    chooser = random.Random(1)
    for _ in range(300):
        sector = chooser.choice((16, 64, 512))
        content = bytearray(b"x" * chooser.randrange(600) + b'\ntoken = "' + TOKEN + b'"\n# ' + TOKEN + b"\n")
        for step in find_patches(bytes(content)):
            written = bytearray(content)
            for patch in step:
                written[patch.offset : patch.offset + len(patch.data)] = patch.data
            for at in range(0, len(content), sector):
                if chooser.random() < 0.5:
                    content[at : at + sector] = written[at : at + sector]
            if chooser.random() < 0.5:
                break  # the power is gone: the next step is not begun
            content = written
        healed = blank_tokens(bytes(content))
        assert SECRET not in healed and b"flchain1/" not in healed
        assert b"F" not in healed and b"uv" not in healed


def test_wifi_for_network_manager() -> None:
    """The key file has the network's bytes, and a password as GLib reads it back."""
    wifi = WifiSettings("Käfer; 2", " back\\slash;", "DE", hidden=True)
    (file,) = [f for name, f in build_network_files(wifi, "NetworkManager", "wlan0").items() if name != COUNTRY_FILE]
    assert file.mode == 0o600
    read = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    read.read_string(file.text)
    assert bytes(int(n) for n in read["wifi"]["ssid"].split(";") if n).decode() == "Käfer; 2"
    assert read["wifi-security"]["psk"] == "\\sback\\\\slash;"
    assert read["wifi"]["hidden"] == "true"


def test_wifi_for_wpa_supplicant() -> None:
    """A passphrase is quoted, a key is not, an open network has none; the interface names the file."""
    texts = {}
    for password in ('it\'s a "word"', "ab" * 32, ""):
        files = build_network_files(WifiSettings("field", password, "DE"), "wpa_supplicant", "wlan1")
        file = files["etc/wpa_supplicant/wpa_supplicant-wlan1.conf"]
        assert file.mode == 0o600 and "ssid=6669656c64\n" in file.text and "country=DE\n" in file.text
        texts[password] = file.text
    assert '  psk="it\'s a "word""\n' in texts['it\'s a "word"']
    assert f"  psk={'ab' * 32}\n" in texts["ab" * 32] and "SAE" not in texts["ab" * 32]
    assert "key_mgmt=NONE" in texts[""] and "psk" not in texts[""]


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_the_country_holds_for_every_writer(writer: str) -> None:
    """The kernel's own setting is written beside each program's."""
    assert "ieee80211_regdom=DE" in build_network_files(WifiSettings("a", "", "DE"), writer, "wlan0")[COUNTRY_FILE].text
    assert COUNTRY_FILE not in build_network_files(WifiSettings("a"), writer, "wlan0")


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, BoardState.WAITING),
        ({"problems": ("flchain.toml: tokn: unknown key",)}, BoardState.REFUSED),
        ({"has_token": True}, BoardState.ENROLLING),
        ({"has_token": True, "attempt": Attempt("no route", False)}, BoardState.ENROLLING),
        ({"has_token": True, "attempt": Attempt("no (token-used)", True)}, BoardState.REFUSED),
        ({"is_enrolled": True, "problems": ("timezone: ...",)}, BoardState.TRAINING),
    ],
)
def test_states(facts: dict[str, object], state: BoardState) -> None:
    """A board waits for a file, asks the registrar, is refused, or trains."""
    assert decide_state(BoardFacts(**{**FACTS.__dict__, **facts})) is state


def test_the_console_says_how() -> None:
    """A waiting board names itself, its addresses, the file and where it goes; no line is too wide or an escape."""
    text = render_issue(FACTS)
    for word in ("north-3", "(waiting)", "\\4 \\6", "/boot/firmware/flchain.toml", "flchain registrar token"):
        assert word in text
    bad = BoardFacts(**{**FACTS.__dict__, "problems": ("flchain.toml: \\o \x1b[2J " + "long " * 60,)})
    shown = render_issue(bad)
    assert "\x1b" not in shown and "\\\\o" in shown
    assert max(map(len, shown.splitlines())) <= LINE_CHARACTERS_MAX + 4


def test_many_problems_are_cut_with_a_word() -> None:
    """The console holds the first ones and says how to see the rest."""
    lines = describe(BoardFacts(**{**FACTS.__dict__, "problems": tuple(f"problem {n}" for n in range(20))}))
    assert "and 12 more" in lines[-1] and len(lines) < 14


def test_mdns_carries_the_state() -> None:
    """Avahi's file is XML, whatever the board's name is."""
    facts = BoardFacts(**{**FACTS.__dict__, "name": "a<b&c", "is_enrolled": True, "address": "ab" * 20})
    service = ElementTree.fromstring(render_service(facts).split("\n", 2)[2]).find("service")
    assert service is not None and service.findtext("type") == "_flchain._tcp"
    records = [record.text for record in service.findall("txt-record")]
    assert records == ["state=training", "name=a<b&c", f"address={'ab' * 20}"]


def test_what_another_user_wrote_is_only_text() -> None:
    """A report is short text or nothing."""
    for raw in (b"", b"[1]", b"{", b'{"text": 3}', b"[" * 100_000, b"\xff"):
        assert read_attempt(raw) is None
    assert read_attempt(b'{"text": "x", "is_final": 1}') == Attempt("x", False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("registrar r:1: this token has expired: ask for a new one (token-expired)", "The token has expired"),
        (
            "registrar r:1: [Errno -2] Name or service not known; is there a network",
            "The registrar's name is not found",
        ),
        ("registrar r:1: [Errno 101] Network is unreachable; is there", "The registrar cannot be reached"),
        ("registrar r:1: [Errno 111] Connection refused; is there", "No registrar answers at this address"),
        ("registrar r:1: its certificate is not yet valid: this machine's clock says 1970", "The clock is wrong"),
        ("/var/lib/flchain-agent/key.pem: No space left on device", "The disk is full"),
        ("something new", "It did not work"),
    ],
)
def test_reasons(text: str, reason: str) -> None:
    """The common failures have a word of their own; any other one keeps its text."""
    assert explain(Attempt(text, False)).reason == reason


def test_the_page_shows_the_user_data_that_is_tested() -> None:
    """docs/firstboot.md has the lines of firmware_config/firstboot/user-data, which cloud-init's own check reads."""
    shown = (ROOT / "docs/firstboot.md").read_text()
    lines = (ROOT / "firmware_config/firstboot/user-data").read_text().splitlines()
    wanted = [line for line in lines if not line.lstrip().startswith("# ") and "token" not in line]
    assert len(wanted) > 8 and all(f"    {line}\n" in shown for line in wanted)
