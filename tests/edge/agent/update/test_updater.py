"""The agent's own part of an update: what it keeps, fetches, lays down for root, and takes back."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.core.machine import step
from agent.core.state import AgentState
from agent.core.values import Event, LeavePlanned, PacketReceived, SaveRelease
from agent.edge.update.fetch import DamagedPackage, finish, name_package
from agent.edge.update.inbox import REQUEST, SPOKEN, TRUST
from agent.edge.update.trust import Trust, decode_trust
from agent.edge.update.updater import Places, Updater, find_places
from agent.scheduling.updates import UpdateSettings
from agent.status.report import BoardFacts
from agent.status.values import AgentStatus
from flchain.base.errors import TryAgain
from flchain.base.types import Millis
from flchain.wire.fleet import UpdateState
from flchain.wire.release import Package, Release, ReleaseState
from flchain_edge.enrolment.operators import keep_operators, load_operators
from tests.support.bad_fields.nodes import CHAIN, NOW, OPERATOR, TOPICS, build_agent, say
from tests.support.builders.chain import NO_CLOCK
from tests.support.builders.status import NOW as STATUS

CONTENT = b"the package's bytes" * 100
PACKAGE = Package("trixie", "arm64", hashlib.sha256(CONTENT).digest(), len(CONTENT))
RELEASE = Release(7, "0.2.0", (PACKAGE,), 10_000, ReleaseState.ROLLING, 900, 0)
FACTS = BoardFacts(version="0.1.0", suite="trixie", architecture="arm64")
ON_MAINS = {**STATUS["board"], "is_on_battery": False}
QUIET: dict[str, Any] = STATUS | {"board": ON_MAINS, "receipt_age_s": None}


@dataclass
class Scene:
    """An updater, its folders, and a clock that is moved by hand."""

    folder: Path
    now_ms: int = 0
    posted: list[Event] = field(default_factory=list)
    fetch: Callable[[Package, Path], None] = lambda package, folder: None
    free_bytes: int = 10**12

    def __post_init__(self) -> None:
        self.places = Places(self.folder / "agent", self.folder / "root")
        self.places.root_folder.mkdir()
        self.updater = self.build()
        self.state: AgentState = build_agent()

    def build(self, facts: BoardFacts = FACTS) -> Updater:
        updater = Updater(
            UpdateSettings(),
            self.places,
            Trust(CHAIN.id, (OPERATOR.public_key,)),
            facts,
            fetch=self._fetch,
            post=self.posted.append,
            get_now_ms=lambda: self.now_ms,
            get_free=lambda _: self.free_bytes,
        )
        updater.start()
        return updater

    def _fetch(self, package: Package, folder: Path) -> None:
        self.fetch(package, folder)

    def hear(self, release: Release = RELEASE) -> None:
        """Let the machine hear a release, and the updater keep it."""
        heard = PacketReceived(TOPICS.operator_release(OPERATOR.address), say(release, OPERATOR))
        self.state, effects = step(self.state, heard, NOW, NO_CLOCK)
        for effect in effects:
            if isinstance(effect, SaveRelease):
                self.updater.save(effect.raw)

    def look(self, **changes: Any) -> UpdateState:
        """One look, five seconds later; events it posts reach the machine."""
        self.now_ms += 5_000
        self.updater.look(self.state, msgspec.convert(QUIET | changes, AgentStatus), None)
        while self.posted:
            self.state, _ = step(self.state, self.posted.pop(0), Millis(self.now_ms), NO_CLOCK)
        return self.updater.describe().state

    def root_says(self, state: str, detail: str = "", bad: tuple[str, ...] = ()) -> None:
        word = {"state": state, "version": "0.2.0", "sequence": 7, "detail": detail, "bad_versions": bad}
        (self.places.root_folder / "state.json").write_text(json.dumps(word))

    @property
    def request(self) -> Path:
        return self.places.folder / REQUEST

    def bring(self) -> None:
        (self.places.folder / name_package(PACKAGE)).write_bytes(CONTENT)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_it_fetches_ends_its_round_and_asks_root(scene: Scene) -> None:
    """A release for this board: the package first, then no new round, then the request with the very bytes heard."""

    async def scenario() -> None:
        scene.fetch = lambda package, folder: scene.bring()
        assert scene.look() is UpdateState.NONE
        scene.hear()
        assert scene.look() is UpdateState.FETCHING
        assert scene.updater._task is not None
        await scene.updater._task
        assert scene.look() is UpdateState.READY and not scene.request.exists()
        assert scene.state.is_leaving
        scene.look()
        raw = say(RELEASE, OPERATOR)
        assert scene.request.read_bytes() in raw and len(scene.request.read_bytes()) > 100
        assert scene.look() is UpdateState.INSTALLING and scene.state.is_leaving

    asyncio.run(scenario())


def test_what_root_refuses_is_taken_back(scene: Scene) -> None:
    """The request is gone, rounds go on, the reason is told, and it is not asked again for an hour."""
    scene.bring()
    scene.hear()
    scene.look()
    scene.look()
    scene.root_says("refused", "the disk is full")
    assert scene.look() is UpdateState.REFUSED
    assert scene.updater.describe().detail == "the disk is full"
    assert not scene.request.exists() and not scene.state.is_leaving
    assert scene.look() is UpdateState.REFUSED and not scene.request.exists()
    scene.now_ms += 3_600_000
    scene.look()
    scene.look()
    assert scene.request.exists()


def test_root_that_does_not_run_is_not_waited_for(scene: Scene) -> None:
    """Ten minutes without an answer: the request is taken back, and the word names the unit."""
    scene.bring()
    scene.hear()
    scene.look()
    scene.look()
    scene.now_ms += 600_000
    assert scene.look() is UpdateState.REFUSED
    assert "flchain-update.path" in scene.updater.describe().detail and not scene.request.exists()


def test_a_start_says_whose_word_counts_and_forgets_an_old_request(scene: Scene) -> None:
    """Chain and operator for root to pin; what an earlier process asked for is judged anew."""
    assert decode_trust((scene.places.folder / TRUST).read_bytes(), "trust").operators == (OPERATOR.public_key,)
    scene.bring()
    scene.hear()
    scene.look()
    scene.look()
    assert scene.request.exists()
    again = scene.build()
    assert not scene.request.exists() and again.load_release() == RELEASE
    (scene.places.folder / "release.cbor").write_bytes(b"garbage")
    assert again.load_release() is None


def test_a_version_leaves_word_once_a_miner_has_answered(scene: Scene) -> None:
    """Not before; and what it writes is the three numbers of what runs."""
    scene.updater = scene.build(with_changes(FACTS, version="0.2.0+deb13"))
    spoken = scene.places.folder / SPOKEN
    scene.look()
    assert not spoken.exists()
    scene.look(receipt_age_s=1.0)
    assert spoken.read_text() == "0.2.0"


def test_what_went_back_here_is_not_fetched_again(scene: Scene) -> None:
    """Root's list of bad versions counts, under any number of release."""
    scene.root_says("rolled_back", "no word in a round", ("0.2.0",))
    scene.hear()
    assert scene.look() is UpdateState.ROLLED_BACK
    assert scene.updater.describe().detail == "no word in a round" and scene.updater._task is None


@pytest.mark.parametrize("garbage", [b"", b"[]", b"{}", b'{"state": "flying"}', b"\xff"])
def test_a_word_of_root_that_cannot_be_read_is_none(scene: Scene, garbage: bytes) -> None:
    """It goes on as if root had said nothing."""
    (scene.places.root_folder / "state.json").write_bytes(garbage)
    scene.hear()
    scene.free_bytes = 0
    assert scene.look() is UpdateState.WAITING


def test_a_folder_that_cannot_be_written_stops_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """One warning, however often it looks."""
    scene.bring()
    scene.hear()
    (scene.places.folder / "release.cbor").unlink()
    for _ in range(4):
        scene.look()
    assert caplog.text.count("the update cannot go on") == 1


def test_a_package_is_fetched_on_from_where_it_broke(tmp_path: Path) -> None:
    """Only what is missing is asked for; the whole is checked; what is too long or damaged is asked for anew."""
    part, asked = tmp_path / f"{PACKAGE.sha256.hex()}.part", []

    def resume(offset: int, path: Path) -> None:
        asked.append(offset)
        with path.open("ab") as sink:
            sink.write(CONTENT[offset : offset + 700])
        if offset + 700 < len(CONTENT):
            raise TryAgain("the line broke")

    for _ in range(2):
        with pytest.raises(TryAgain):
            finish(PACKAGE, tmp_path, resume)
    finish(PACKAGE, tmp_path, resume)
    assert asked == [0, 700, 1_400] and not part.exists()
    assert (tmp_path / name_package(PACKAGE)).read_bytes() == CONTENT
    part.write_bytes(b"x" * len(CONTENT))
    with pytest.raises(DamagedPackage):
        finish(PACKAGE, tmp_path, resume)
    assert not part.exists()
    part.write_bytes(CONTENT + b"more")
    with pytest.raises(TryAgain):
        finish(PACKAGE, tmp_path, resume)
    assert asked[-1] == 0


def test_updates_need_the_package_and_its_unit(tmp_path: Path) -> None:
    """A wheel, or an agent that a person starts, is left to that person."""
    listed = tmp_path / "flchain-agent.list"
    unit = {"STATE_DIRECTORY": "/var/lib/flchain-agent"}
    assert find_places(unit, listed) is None
    listed.touch()
    assert find_places({}, listed) is None
    places = find_places(unit, listed)
    assert places is not None and places.folder == Path("/var/lib/flchain-agent/update")


def test_the_keys_of_operators_are_kept_once(tmp_path: Path) -> None:
    """What enrolment has brought stays, whatever a registrar says later."""
    path = tmp_path / "operators.txt"
    assert load_operators(path) == () == load_operators(None)
    keep_operators(path, [])
    assert not path.exists()
    keep_operators(path, [OPERATOR.public_key.hex()])
    keep_operators(path, ["00" * 32])
    assert load_operators(path) == (OPERATOR.public_key,)
    with pytest.raises(ValueError, match="no public key"):
        keep_operators(tmp_path / "other", ["xy"])


def test_leaving_is_said_to_the_machine_once(scene: Scene) -> None:
    """Not at every look."""
    scene.bring()
    scene.hear()
    scene.look()
    assert scene.state.is_leaving
    scene.posted.clear()
    scene.now_ms += 5_000
    scene.updater.look(scene.state, msgspec.convert(QUIET, AgentStatus), None)
    assert not any(isinstance(event, LeavePlanned) for event in scene.posted)
