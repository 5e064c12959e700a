"""Why a board could not enrol, in a word for its console and with what to do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

TEXT_CHARACTERS_MAX = 300


@dataclass(frozen=True)
class Attempt:
    """An attempt to enrol that failed. `is_final`: asking again does not help."""

    text: str
    is_final: bool


@dataclass(frozen=True)
class Word:
    """A reason, and what to do about it."""

    reason: str
    advice: str


NEW_TOKEN = "make a new one on the operator's machine (flchain registrar token) and put it into flchain.toml"
RULES: tuple[tuple[str, Word], ...] = (
    (r"\(token-expired\)", Word("The token has expired", NEW_TOKEN)),
    (r"\(token-used\)", Word("The token was used by another board", f"tell the operator; {NEW_TOKEN}")),
    (r"\(token-unknown\)", Word("The registrar does not know the token", NEW_TOKEN)),
    (r"\(wrong-role\)", Word("The token is for a miner", f"{NEW_TOKEN}, with --role device")),
    (r"\(wrong-address\)", Word("The token is for another board", NEW_TOKEN)),
    (r"\(revoked\)", Word("The operator has revoked this board", "reset it (a file flchain-reset), and a new token")),
    (
        r"its authority's fingerprint",
        Word("Another registrar answers at this address", f"is the token old? {NEW_TOKEN}"),
    ),
    (
        r"not yet valid",
        Word("The clock is wrong", "the board has no time yet: does it reach a time server? timedatectl"),
    ),
    (
        r"certificate has expired",
        Word("The registrar's certificate has expired", "or this clock is ahead: timedatectl"),
    ),
    (
        r"does not exist yet|does not include this device|not-yet",
        Word("The network is not complete", "nothing to do here: the operator makes its genesis, then this goes on"),
    ),
    (
        r"Name or service not known|name resolution|No address associated|nodename nor servname",
        Word("The registrar's name is not found", "no network or no name server: cable? [network.wifi]? the name?"),
    ),
    (
        r"unreachable|No route to host|timed out|Network is down",
        Word("The registrar cannot be reached", "no network, or a firewall: check cable or [network.wifi]"),
    ),
    (
        r"Connection refused|is not a registrar|not a registrar's answer",
        Word("No registrar answers at this address", "does it run? (systemctl status flchain-registrar, over there)"),
    ),
    (
        r"No space left|disk is full|quota",
        Word("The disk is full", "free some space; nothing was lost, it goes on by itself"),
    ),
    (
        r"Read-only file system",
        Word("The data partition cannot be written", "it is damaged, or not mounted: dmesg, then fsck"),
    ),
    (r"passphrase|is encrypted", Word("The passphrase does not open the key", "correct [registrar] passphrase")),
    (r"^token", Word("The token is incomplete", "copy all of it, from flchain1/ to its end, on one line")),
)
"""By what the text of the error contains; the first that fits counts."""
OTHER = Word("The registrar said no", "read the reason")
OTHER_AGAIN = Word("It did not work", "it is tried again every minute; read the reason")


def explain(attempt: Attempt) -> Word:
    """Return the word for an attempt."""
    found = next((word for pattern, word in RULES if re.search(pattern, attempt.text)), None)
    return found or (OTHER if attempt.is_final else OTHER_AGAIN)


def read_attempt(raw: bytes) -> Attempt | None:
    """Return what `enroll --report` has written, or None. Another user writes it: it is believed to be text only."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        return None
    return Attempt(found["text"][:TEXT_CHARACTERS_MAX], found.get("is_final") is True)
