"""Say how the board stands: on its consoles by agetty's issue file, and by mDNS where Avahi runs."""

from __future__ import annotations

import os

import msgspec

from agent.firstboot.disk import remove_file, write_file
from agent.firstboot.places import Places
from agent.firstboot.programs import Programs
from agent.provisioning.announcement import BoardFacts, BoardWord, build_word, render_issue, render_service
from agent.provisioning.refusals import Attempt, read_attempt
from flchain.base.errors import ConfigError
from flchain_edge.enrolment.enrol import KEY_FILE
from flchain_edge.keys.keystore import load_or_create_identity

REPORT_BYTES_MAX = 4096


def announce(places: Places, programs: Programs, problems: tuple[str, ...]) -> BoardFacts:
    """Write the files, and return what they say. What cannot be written is left out: it is only a word."""
    facts = gather_facts(places, problems)
    try:
        write_file(places.word, msgspec.json.encode(build_word(facts)), 0o644)
        if write_file(places.issue, render_issue(facts).encode(), 0o644):
            programs.run("agetty", "--reload")
        if places.service.parent.is_dir():  # Avahi is installed, and sees the new file by itself
            write_file(places.service, render_service(facts).encode(), 0o644)
    except OSError:
        pass
    return facts


def gather_facts(places: Places, problems: tuple[str, ...] = ()) -> BoardFacts:
    """Return what is known of the board. Read only."""
    hostname = places.root / "etc/hostname"
    name = hostname.read_text(errors="replace").strip() if hostname.is_file() else ""
    return BoardFacts(
        name=name or "(no name)",
        folder=f"/{places.get_boot_folder().relative_to(places.root)}",
        is_enrolled=places.is_enrolled,
        has_token=any(path.is_file() for path in (places.token, *places.token_credentials)),
        problems=problems,
        attempt=_read_attempt(places),
        address=_read_address(places) if places.is_enrolled else "",
    )


def read_word(places: Places) -> BoardWord:
    """Return how the board stands. Raise OSError."""
    if os.access(places.state, os.R_OK) or not places.word.exists():
        return build_word(gather_facts(places))
    return msgspec.json.decode(places.word.read_bytes(), type=BoardWord)


def clear(places: Places) -> None:
    """Take all of them back."""
    for path in (places.word, places.issue, places.service):
        remove_file(path)


def _read_attempt(places: Places) -> Attempt | None:
    try:
        with places.report.open("rb") as stream:
            return read_attempt(stream.read(REPORT_BYTES_MAX))
    except OSError:
        return None


def _read_address(places: Places) -> str:
    key = places.agent / KEY_FILE
    try:
        passphrase = places.passphrase.read_text() if places.passphrase.is_file() else None
        return load_or_create_identity(key, passphrase).address.hex() if key.is_file() else ""
    except (ConfigError, OSError, UnicodeDecodeError):
        return ""
