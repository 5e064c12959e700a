"""A fleet of simulated boards on a real broker, with a real registrar and an operator's folder made by the commands.

Each board has a real certificate, hears the operator's releases, decides by the real rules, and fetches real packages.
What an update does to it is the test's choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from flchain.base.errors import FlchainError
from flchain.ledger.genesis import decode_genesis
from flchain.rules.releases import Installed, compute_place, find_obstacle, find_package, is_in_tranche, read_release
from flchain.wire.envelope import seal
from flchain.wire.fleet import Health, Status, UpdateState
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.release import Release
from flchain.wire.topics import Channel, Topics
from flchain_edge.enrolment.client import RegistrarClient
from flchain_edge.enrolment.messages import build_package_request
from flchain_edge.mqtt.inbox import LinkUp, Received
from tests.support.builders.wire import build_word
from tests.support.networks.mqtt_link import InboxLink
from tests.support.networks.registrar import HOST, Member, Registrar, enrol_member, make_registrar, run_command, serving
from tools.network.broker import Broker, BrokerKind

MODEL = Path(__file__).parents[3] / "tools" / "models" / "cnn1d.tflite"
OLD = "0.1.0"
BEGIN = "0.2.0"
"""The version by which boards are put in the order of their places."""


@dataclass
class SimBoard:
    """One board. `takes` is asked for each version that it is to install."""

    member: Member
    index: int
    takes: Callable[[SimBoard, str], UpdateState] = lambda board, version: UpdateState.DONE
    word: Status = field(default_factory=build_word)
    fetched: list[str] = field(default_factory=list)
    """Versions whose package it has fetched."""
    place_bp: int = 0

    def change(self, **changes: Any) -> None:
        """Set what it says next."""
        self.word = msgspec.structs.replace(self.word, **changes)


class SimFleet:
    """All boards, in a thread with a loop of its own."""

    def __init__(self, registrar: Registrar, broker: Broker, boards: list[SimBoard], operator: Path) -> None:
        self.registrar = registrar
        self.broker = broker
        self.boards = boards
        self.operator = operator
        genesis = decode_genesis((registrar.folder / "genesis.cbor").read_bytes())
        self.chain = genesis.compute_id()
        self._topics = Topics.of_chain(self.chain)
        self._fingerprint = bytes.fromhex(_read_setting(operator / "fleet.toml", "fingerprint"))
        self.operator_key = bytes.fromhex((operator / "operator.pub").read_text())
        self._links: dict[int, InboxLink] = {}
        self._loop = asyncio.new_event_loop()
        for board in boards:
            board.place_bp = compute_place(self.chain, BEGIN, board.member.identity.address)
        boards.sort(key=lambda board: board.place_bp)

    def run(self, *arguments: str) -> tuple[str, ...]:
        """The arguments of `flchain fleet ACTION` in the operator's folder."""
        return ("fleet", arguments[0], "--dir", str(self.operator), *arguments[1:])

    @contextlib.contextmanager
    def running(self) -> Iterator[SimFleet]:
        """Let all boards live for the block."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        tasks = [self._submit(self._live(board)) for board in self.boards]
        try:
            self._submit(self._until_up()).result(60)
            yield self
        finally:
            for task in tasks:
                task.cancel()
            self._submit(self._stop()).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def tell(self, board: SimBoard, **changes: Any) -> None:
        """Let a board say something else now."""
        board.change(**changes)
        self._submit(self._say(board)).result(30)

    def _submit(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _until_up(self) -> None:
        while len(self._links) < len(self.boards) or not all(link.is_subscribed for link in self._links.values()):
            await asyncio.sleep(0.02)

    async def _stop(self) -> None:
        for link in self._links.values():
            await link.stop()

    async def _live(self, board: SimBoard) -> None:
        link = InboxLink(board.member.connect_to(self.broker))
        link.subscribe(f"{self._topics.prefix}/operator/+/{Channel.RELEASE}")
        self._links[board.index] = link
        await link.start()
        while True:
            event = await link.events.get()
            if isinstance(event, LinkUp):
                await self._say(board)
            elif isinstance(event, Received):
                release = read_release(decode_packet(event.payload).fields[0], self.chain, self.operator_key)
                await self._consider(board, release)

    async def _consider(self, board: SimBoard, release: Release) -> None:
        status, address = board.word, board.member.identity.address
        installed = Installed(status.version, status.suite, status.architecture)
        if find_obstacle(release, installed) is not None or not is_in_tranche(release, self.chain, address):
            return
        if status.release >= release.sequence or (status.update.is_failed and release.version in board.fetched):
            return
        package = find_package(release, status.suite, status.architecture)
        assert package is not None
        board.change(release=release.sequence, update=UpdateState.FETCHING, health=Health.OK, reason="")
        await self._say(board)
        data = await asyncio.to_thread(self._fetch, board, package.sha256.hex())
        assert hashlib.sha256(data).digest() == package.sha256
        board.fetched.append(release.version)
        for state in (UpdateState.READY, UpdateState.INSTALLING, UpdateState.CHECKING):
            board.change(update=state)
            await self._say(board)
        end = board.takes(board, release.version)
        board.change(update=end)
        if end is UpdateState.DONE:
            board.change(version=release.version)
        else:
            board.change(health=Health.UPDATE_FAILED, reason="no word in a round within 15 min")
        await self._say(board)

    def _fetch(self, board: SimBoard, sha256: str) -> bytes:
        client = RegistrarClient(HOST, self.registrar.port, (board.member.folder / "ca.pem").read_text())
        sink = io.BytesIO()
        request = build_package_request(board.member.identity, self._fingerprint, sha256, 0)
        client.fetch_package(request, sink, 10_000_000)
        return sink.getvalue()

    async def _say(self, board: SimBoard) -> None:
        board.change(written_ms=time.time_ns() // 1_000_000)
        raw = seal(board.word, self.chain, board.member.identity)
        topic = self._topics.device_status(board.member.identity.address)
        while not self._links[board.index].publish(topic, encode_packet(PacketType.MESSAGE, raw), retain=True):
            await asyncio.sleep(0.02)


def _read_setting(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name} = "):
            return line.partition(" = ")[2].strip('"')
    raise FlchainError(f"{path} names no {name}")


@contextlib.contextmanager
def simulated_fleet(kind: BrokerKind, folder: Path, count: int) -> Iterator[SimFleet]:
    """A registrar that serves, a broker under its rules, `count` boards and an operator."""
    registrar = make_registrar(folder / "registrar")
    enrol_member(registrar, folder / "miner", "miner")
    boards = [SimBoard(enrol_member(registrar, folder / f"board-{n}", "device"), n) for n in range(count)]
    (registrar.folder / "model.tflite").write_bytes(MODEL.read_bytes())
    head = 'name = "field"\nmodel = "registrar/model.tflite"\npreset = "minimal"\n'
    (folder / "network.toml").write_text(head + registrar.run("network"))
    genesis = str(registrar.folder / "genesis.cbor")
    run_command("genesis", "make", "--network", str(folder / "network.toml"), "--out", genesis)
    for board in boards:
        board.word = build_word(
            name=f"board-{board.index}",
            labels=("roof",),
            suite="bookworm",
            architecture="arm64",
            version=OLD,
            task="field",
        )
    with registrar.start_broker(kind, folder / "broker") as broker:
        settings = registrar.folder / "registrar.toml"
        settings.write_text(settings.read_text().replace(":8883", f":{broker.port}"))
        with serving(registrar):
            operator = folder / "operator"
            run_command("fleet", "key", "--dir", str(operator), "--token", registrar.make_token("operator"))
            registrar.render_broker(kind, folder / "broker", broker.port)
            broker.reload()
            yield SimFleet(registrar, broker, boards, operator)
