"""Listen to all boards, and say the operator's word: one connection at a time for each operator's folder.

A broker keeps one connection for each certificate, so a second command would throw the first one out. The command that
is connected therefore leaves what it hears in a file, which others read meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from flchain.base.crypto import compute_address
from flchain.base.errors import InvalidMessage, TryAgain
from flchain.base.types import Address
from flchain.rules.releases import process_release, read_release
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.release import Release
from flchain.wire.topics import Channel, Topics, read_topic_channel, read_topic_owner
from flchain_edge.mqtt.inbox import Inbox, LinkDown, LinkUp, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import with_client_id
from flchain_edge.newer_python import timeout
from tools.fleet.folder import FleetFolder
from tools.fleet.roster import Board, Heard, build_roster, read_word, take_word

LOCK_FILE, SEEN_FILE = "link.lock", "seen.json"
SEEN_BYTES_MAX = 16_000_000
SEEN_OLD_S = 15.0
"""A file of what another command hears is written every SHARE_S: an older one is of a command that hangs."""
SHARE_S = 2.0
QUIET_S = 1.0
"""Retained messages come at once: when nothing has come for so long, all that the broker keeps is here."""
SETTLE_S = 5.0
CONNECT_S = 15.0
REPEAT_S = 5.0
CONFIRM_S = 30.0
POLL_S = 0.2


class SeenWord(msgspec.Struct, frozen=True):
    """A board's word in the file, as it was signed."""

    address: str
    raw: bytes
    heard_s: float
    is_retained: bool


class Seen(msgspec.Struct, frozen=True):
    """All that one command has heard."""

    written_s: float
    words: list[SeenWord]
    release: bytes | None = None


@dataclass
class Fleet:
    """What is known of all boards, and the operator's newest release on the broker."""

    folder: FleetFolder
    revoked: frozenset[Address] = frozenset()
    """Left out: they can neither speak nor update any more."""
    heard: dict[Address, Heard] = field(default_factory=dict)
    release: Release | None = None
    refused: int = 0
    """Words that did not check: of strangers, or of a version that this tool does not know."""
    strange: set[Address] = field(default_factory=set)
    """Boards whose word this tool cannot read."""

    def __post_init__(self) -> None:
        genesis = self.folder.genesis
        keys = {compute_address(entry.public_key): entry.public_key for entry in genesis.devices}
        self.keys = {address: key for address, key in keys.items() if address not in self.revoked}
        self.chain = self.folder.chain
        self.topics = Topics.of_chain(self.chain)
        self._raw: dict[Address, bytes] = {}
        self._raw_release: bytes | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether every board has been heard."""
        return len(self.heard) + len(self.strange) >= len(self.keys)

    def list_boards(self, now_s: float) -> tuple[Board, ...]:
        """Return all boards, the worst first."""
        return build_roster(self.keys, self.heard, now_s)

    def take(self, event: Received, now_s: float) -> None:
        """Take a message in. What does not check is counted."""
        try:
            owner, channel = read_topic_owner(event.topic), read_topic_channel(event.topic)
            packet = decode_packet(event.payload)
            if packet.type is not PacketType.MESSAGE:
                return
            if channel == Channel.STATUS and owner in self.keys:
                self.take_status(owner, packet.fields[0], now_s, is_retained=event.retained)
            elif channel == Channel.RELEASE and owner == self.folder.address:
                self.take_release(packet.fields[0])
        except InvalidMessage:
            self.refused += 1

    def take_status(self, owner: Address, raw: bytes, heard_s: float, *, is_retained: bool) -> None:
        """Take a board's word. Raise InvalidMessage's subclasses."""
        try:
            fresh = Heard(read_word(raw, self.chain, owner, self.keys[owner]), heard_s, is_retained)
        except InvalidMessage:
            self.strange.add(owner)
            raise
        self.strange.discard(owner)
        kept = take_word(self.heard.get(owner), fresh)
        if kept is fresh:
            self.heard[owner], self._raw[owner] = fresh, raw

    def take_release(self, raw: bytes) -> None:
        """Take the operator's own release. Raise InvalidMessage's subclasses."""
        self.release = process_release(self.release, read_release(raw, self.chain, self.folder.public_key))
        self._raw_release = raw

    def write(self, path: Path, now_s: float) -> None:
        """Leave what is known for other commands."""
        words = [
            SeenWord(address.hex(), self._raw[address], heard.heard_s, heard.is_retained)
            for address, heard in self.heard.items()
        ]
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(Seen(now_s, words, self._raw_release)))
        fresh.replace(path)

    def read(self, path: Path, now_s: float) -> bool:
        """Take in what another command has left; return False if there is nothing fresh."""
        try:
            with path.open("rb") as stream:
                seen = msgspec.json.decode(stream.read(SEEN_BYTES_MAX), type=Seen)
        except (OSError, ValueError):
            return False
        if now_s - seen.written_s > SEEN_OLD_S:
            return False
        for word in seen.words:
            with contextlib.suppress(InvalidMessage, ValueError, KeyError):
                owner = Address(bytes.fromhex(word.address))
                self.take_status(owner, word.raw, word.heard_s, is_retained=word.is_retained)
        if seen.release is not None:
            with contextlib.suppress(InvalidMessage):
                self.take_release(seen.release)
        return True


class FleetLink:
    """The connection of one command."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        folder = fleet.folder
        self._inbox = Inbox()
        settings = with_client_id(folder.settings.mqtt, f"{folder.address.hex()}-fleet")
        self._link = MqttLink(settings, self._inbox.put)
        self._link.subscribe(
            fleet.topics.all_devices(Channel.STATUS), fleet.topics.operator_release(folder.address), qos=1
        )
        self._heard_s = time.monotonic()
        self._up_s = 0.0
        self._has_gathered = False
        """On this connection."""
        self.is_up = False
        self.trouble = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FleetLink]:
        """Be connected for the block."""
        await self._link.start()
        tasks = [asyncio.create_task(work, name="fleet") for work in (self._read(), self._share())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._link.stop()

    async def _read(self) -> None:
        while True:
            event = await self._inbox.get()
            if isinstance(event, Received):
                self.fleet.take(event, time.time())
                self._heard_s = time.monotonic()
            elif isinstance(event, LinkUp):
                self.is_up, self.trouble, self._heard_s = True, "", time.monotonic()
                self._up_s = time.monotonic()
            elif isinstance(event, LinkDown):
                self.is_up, self.trouble, self._has_gathered = False, event.reason, False

    @property
    def is_settled(self) -> bool:
        """Return whether all that the broker keeps has come on this connection: without it boards would seem silent."""
        is_old = self._has_gathered or time.monotonic() - self._up_s >= SETTLE_S
        return self.is_up and self._link.is_subscribed and is_old

    async def gather(self) -> None:
        """Wait until all that the broker keeps is here. Raise TryAgain without a connection."""
        until = time.monotonic() + CONNECT_S
        while not (self.is_up and self._link.is_subscribed):
            if time.monotonic() > until:
                where = ", ".join(map(str, self.fleet.folder.settings.mqtt.endpoints))
                cause = f": {self.trouble}" if self.trouble else ""
                raise TryAgain(f"no connection to the broker at {where} in {CONNECT_S:.0f} s{cause}")
            await asyncio.sleep(POLL_S)
        while time.monotonic() - self._heard_s < QUIET_S:
            if self.fleet.is_whole and self.fleet.release is not None:
                break
            await asyncio.sleep(POLL_S)
        self._has_gathered = self.is_up

    async def announce(self, raw: bytes, release: Release) -> None:
        """Publish a release, retained, until the broker gives it back: a PUBACK is no receipt. Raise TryAgain."""
        topic = self.fleet.topics.operator_release(self.fleet.folder.address)
        packet = encode_packet(PacketType.MESSAGE, raw)
        try:
            async with timeout(CONFIRM_S):
                repeat_s = 0.0
                while self.fleet.release != release:
                    if time.monotonic() >= repeat_s and self._link.publish(topic, packet, retain=True):
                        repeat_s = time.monotonic() + REPEAT_S
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise TryAgain(
                "the broker does not give the release back: has it the rules for this operator? Make its files again "
                "(flchain registrar broker) and reload it; then repeat this command"
            ) from error

    async def _share(self) -> None:
        """Leave what is known for other commands, now and then."""
        while True:
            await asyncio.sleep(SHARE_S)
            with contextlib.suppress(OSError):
                self.fleet.write(self.fleet.folder.path / SEEN_FILE, time.time())


@contextlib.contextmanager
def holding_link(folder: FleetFolder) -> Iterator[bool]:
    """Take the folder's one connection for the block; yields False while another command has it."""
    descriptor = os.open(folder.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        (folder.path / SEEN_FILE).unlink(missing_ok=True)
        yield True
    finally:
        os.close(descriptor)
