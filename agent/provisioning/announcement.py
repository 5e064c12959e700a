"""What a board says of itself before anybody can log in: on its console, and by mDNS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from xml.sax.saxutils import escape

import msgspec

from agent.provisioning.refusals import Attempt, explain
from agent.provisioning.settings import FILE

SERVICE_TYPE = "_flchain._tcp"
PORT = 9
"""Nothing listens: `discard`, as in a service that is only a name. What counts is the record's text."""
LINE_CHARACTERS_MAX = 76
PROBLEMS_SHOWN = 8
RULE = "-" * LINE_CHARACTERS_MAX


class BoardState(Enum):
    """How far a board has come."""

    WAITING = "waiting"
    """For a provisioning file."""
    ENROLLING = "enrolling"
    """It has a token, and asks the registrar again and again."""
    REFUSED = "refused"
    """The file is wrong, or the registrar does not want this board: a person has to do something."""
    TRAINING = "training"
    """Enrolled: the agent's service does the rest."""


@dataclass(frozen=True)
class BoardFacts:
    """What is known of the board."""

    name: str
    folder: str
    """Where a person has to put the file."""
    is_enrolled: bool
    has_token: bool
    problems: tuple[str, ...] = ()
    """Of the provisioning file, or of applying it."""
    attempt: Attempt | None = None
    """The last attempt to enrol, if it failed."""
    address: str = ""
    """Of the device, in hexadecimal, once it is enrolled."""


def decide_state(facts: BoardFacts) -> BoardState:
    """Return the state; what keeps a board from training comes first."""
    if facts.is_enrolled:
        return BoardState.TRAINING
    if facts.has_token:
        return BoardState.REFUSED if facts.attempt is not None and facts.attempt.is_final else BoardState.ENROLLING
    return BoardState.REFUSED if facts.problems else BoardState.WAITING


def describe(facts: BoardFacts) -> list[str]:
    """Return what a person should know and do, a line each."""
    state = decide_state(facts)
    path = f"{facts.folder}/{FILE}"
    lines = {
        BoardState.WAITING: [
            f"waits for its settings: no {FILE} with a token.",
            f"1. On the operator's machine: flchain registrar token. 2. Write it into {path}",
            f"   (on the card's boot partition; example: flchain-agent provision --example > {FILE}).",
            "3. Power on again, or here as root: flchain-agent provision",
        ],
        BoardState.ENROLLING: ["enrols with its registrar; asks again every minute."],
        BoardState.REFUSED: ["cannot enrol. It changes nothing until a person has corrected this:"],
        BoardState.TRAINING: [f"is enrolled as {facts.address}. See: flchain-agent status"],
    }[state]
    if facts.problems:
        lines += [f"{path}:" if not facts.is_enrolled else "Of its settings was left out:"]
        lines += [f"- {problem}" for problem in facts.problems[:PROBLEMS_SHOWN]]
        if len(facts.problems) > PROBLEMS_SHOWN:
            lines.append(f"- and {len(facts.problems) - PROBLEMS_SHOWN} more: flchain-agent provision --check {path}")
    if facts.attempt is not None and not facts.is_enrolled:
        word = explain(facts.attempt)
        lines += [f"{word.reason}: {word.advice}", f"({facts.attempt.text})"]
    return lines


class BoardWord(msgspec.Struct, frozen=True):
    """How a board stands, for programs and for people."""

    state: str
    name: str
    address: str
    lines: tuple[str, ...]


def build_word(facts: BoardFacts) -> BoardWord:
    """Return it."""
    return BoardWord(decide_state(facts).value, facts.name, facts.address, tuple(describe(facts)))


def render_issue(facts: BoardFacts) -> str:
    r"""Return agetty's issue file. agetty puts in the addresses (\4, \6), and prints it again when they change."""
    lines = [RULE, f"FLchain board {facts.name} ({decide_state(facts).value})", "Addresses: \\4 \\6"]
    for line in describe(facts):
        # A backslash would start one of agetty's escapes, a control character one of the terminal's.
        plain = "".join(char if char.isprintable() else "?" for char in line).replace("\\", "\\\\")
        lines += _wrap(plain)
    return "\n".join([*lines, "Help: docs/firstboot.md, here /usr/share/doc/flchain-agent/", RULE]) + "\n"


def _wrap(line: str) -> list[str]:
    parts: list[str] = []
    while len(line) > LINE_CHARACTERS_MAX:
        cut = line.rfind(" ", 1, LINE_CHARACTERS_MAX)
        cut = cut if cut > LINE_CHARACTERS_MAX // 2 else LINE_CHARACTERS_MAX
        parts.append(line[:cut])
        line = "  " + line[cut:].strip()
    return [*parts, line]


def render_service(facts: BoardFacts) -> str:
    """Return Avahi's service file (avahi.service(5)): _flchain._tcp, with the state in its text record."""
    records = [f"state={decide_state(facts).value}", f"name={facts.name}"]
    if facts.address:
        records.append(f"address={facts.address}")
    texts = "".join(f"    <txt-record>{escape(record)}</txt-record>\n" for record in records)
    return (
        '<?xml version="1.0" standalone="no"?>\n<!DOCTYPE service-group SYSTEM "avahi-service.dtd">\n'
        '<service-group>\n  <name replace-wildcards="yes">FLchain board %h</name>\n'
        f"  <service>\n    <type>{SERVICE_TYPE}</type>\n    <port>{PORT}</port>\n{texts}  </service>\n"
        "</service-group>\n"
    )
