"""Tell the operator how this board does: the retained message on the status topic."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from agent.core.values import Report
from agent.status.health import judge_health
from agent.status.report import (
    BoardFacts,
    RoundDone,
    Settled,
    Spoken,
    build_facts,
    build_report,
    is_due,
    note_spoken,
    settle,
)
from agent.status.values import AgentStatus
from flchain.base.crypto import Identity
from flchain.base.types import UnixMillis
from flchain.wire.envelope import seal
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.mqtt.seam import Link

OS_RELEASE = Path("/etc/os-release")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}
"""The kernel's names, and Debian's."""


class Reporter:
    """One process's words to its operator. What cannot be sent now is told anew once there is a connection."""

    def __init__(self, facts: BoardFacts, every_s: int, chain: bytes, identity: Identity, link: Link) -> None:
        self._facts = facts
        self._every_s = every_s
        self._chain = chain
        self._identity = identity
        self._link = link
        self._topic = Topics.of_chain(chain).device_status(identity.address)
        self._done: RoundDone | None = None
        self._has_news = False
        self._spoken = Spoken()
        self._settled: Settled | None = None

    def on_report(self, report: Report) -> None:
        """Take note of a round's end."""
        self._done, self._has_news = RoundDone(report), True

    def tell(self, status: AgentStatus, now_s: float, time_ms: UnixMillis | None) -> None:
        """Publish how the board does, if that is due; `now_s` by the monotonic clock."""
        has_spoken = self._spoken.regular_s is not None
        self._settled = settle(self._settled if has_spoken else None, judge_health(status), now_s)
        word = build_report(
            status, self._settled.shown, self._facts, self._done, written_ms=time_ms, report_s=self._every_s
        )
        if not is_due(self._spoken, word, every_s=self._every_s, now_s=now_s, has_news=self._has_news):
            return
        packet = encode_packet(PacketType.MESSAGE, seal(word, self._chain, self._identity))
        if self._link.publish(self._topic, packet, retain=True):
            self._spoken = note_spoken(self._spoken, word, every_s=self._every_s, now_s=now_s, has_news=self._has_news)
            self._has_news = False


def read_facts(
    name: str,
    labels: tuple[str, ...],
    task: str,
    *,
    os_release: Path = OS_RELEASE,
    get_version: Callable[[str], str] = metadata.version,
) -> BoardFacts:
    """Return what this board is: its name and labels as configured, and the software that runs here."""
    try:
        version = get_version("flchain")
    except metadata.PackageNotFoundError:
        version = ""
    machine = platform.machine()
    return build_facts(
        name,
        labels,
        task,
        version=version,
        suite=_read_suite(os_release),
        architecture=ARCHITECTURES.get(machine, machine),
    )


def _read_suite(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_CODENAME", "").strip('"')
