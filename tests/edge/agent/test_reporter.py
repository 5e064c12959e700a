"""The board's word on its topic: what is sent, what is tried again, what the system says of itself."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from agent.core.values import Report
from agent.edge.reporter import Reporter, read_facts
from agent.status.report import BoardFacts
from flchain.base.types import Hash, Round, UnixMillis
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain.wire.fleet import Status
from flchain.wire.packets import decode_packet
from flchain_edge.mqtt.seam import FakeLink
from tests.support.builders.status import build_status
from tests.vectors.make_messages import CHAIN

ME = CHAIN.devices[0]
TIME = UnixMillis(1_800_000_000_000)


class CutLink(FakeLink):
    """A link that can be down."""

    is_up = False

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> bool:
        return self.is_up and super().publish(topic, payload, retain=retain, qos=qos)


def read_word(payload: bytes) -> Status:
    envelope = open_envelope(decode_packet(payload).fields[0], CHAIN.id)
    message = verify_envelope(envelope, CHAIN.id, ME.public_key).message
    assert isinstance(message, Status)
    return message


def test_a_word_that_could_not_be_sent_is_told_anew() -> None:
    """Without a connection nothing is kept; with one the next look publishes what is true then, retained and signed."""
    link = CutLink()
    reporter = Reporter(BoardFacts(name="roof-1"), 900, CHAIN.id, ME, link)
    reporter.on_report(Report(Round(7), Hash(b"h" * 32), False, True, None))
    reporter.tell(build_status(), 0.0, TIME)
    assert not link.published
    link.is_up = True
    reporter.tell(build_status(), 5.0, TIME)
    reporter.tell(build_status(), 10.0, TIME)
    assert len(link.published) == 1
    sent = link.published[0]
    assert sent.retain and sent.topic == f"flchain/v1/{CHAIN.id[:8].hex()}/device/{ME.address.hex()}/status"
    word = read_word(sent.payload)
    assert (word.round, word.name, word.written_ms) == (7, "roof-1", TIME)


def test_the_software_of_a_board_is_read_from_its_system(tmp_path: Path) -> None:
    """The suite comes from os-release; without one, or with an agent that is not installed, it stays empty."""
    path = tmp_path / "os-release"
    path.write_text('NAME="Debian"\nVERSION_CODENAME="bookworm"\nbroken line\n')
    facts = read_facts("a", ("b",), "task", os_release=path, get_version=lambda _: "0.2.0")
    assert (facts.suite, facts.version, facts.name, facts.labels) == ("bookworm", "0.2.0", "a", ("b",))

    def fail(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    facts = read_facts("", (), "task", os_release=tmp_path / "none", get_version=fail)
    assert (facts.suite, facts.version) == ("", "")
