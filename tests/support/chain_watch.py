"""An observer of real processes: every header that a miner calls final, every message it signs, all contradictions.

It keeps what it hears and believes nobody: what is in the ledgers at the end is compared with it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial

from flchain.base.crypto import compute_address
from flchain.base.types import Address
from flchain.ledger.block import hash_header
from flchain.ledger.genesis import Genesis
from flchain.wire.chunks import Assembly, process_chunk
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct, open_envelope, verify_envelope
from flchain.wire.fields import Kind
from flchain.wire.messages import Header, Proposal, Vote
from flchain.wire.packets import Packet, PacketType, decode_packet
from flchain.wire.topics import Topics, read_topic_channel, read_topic_owner
from flchain_edge.mqtt.inbox import LinkEvent, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings

AGREEMENT_KINDS = frozenset({Kind.VOTE, Kind.PROPOSAL})


class SignedWords:
    """What each validator has signed at each height, view and step: one thing, or it contradicts itself."""

    def __init__(self, genesis: Genesis) -> None:
        self.count = 0
        self.views_max = 0
        self._chain = genesis.compute_id()
        self._keys = {compute_address(entry.public_key): entry.public_key for entry in genesis.validators}
        self._known: set[bytes] = set()
        self._said: dict[tuple[Address, int, int, int], set[object]] = defaultdict(set)

    def add(self, raw: bytes) -> Address | None:
        """Note a signed message from the wire or from a ledger; return its signer if it is a vote or a proposal."""
        envelope = open_envelope(raw, self._chain)
        if envelope.kind not in AGREEMENT_KINDS:
            return None
        if raw in self._known:
            return envelope.sender
        self._known.add(raw)
        message = verify_envelope(envelope, self._chain, self._keys[envelope.sender]).message
        assert isinstance(message, Vote | Proposal)
        step = message.step if isinstance(message, Vote) else 0
        what = message.block_hash if isinstance(message, Vote) else (message.block_hash, message.valid_view)
        self._said[envelope.sender, message.height, message.view, step].add(what)
        self.count += 1
        self.views_max = max(self.views_max, message.view)
        return envelope.sender

    def find_contradictions(self) -> list[str]:
        """Each validator, height, view and step (0 is a proposal) where two different things were signed."""
        return [
            f"{sender.hex()} at height {height}, view {view}, step {step}"
            for (sender, height, view, step), said in self._said.items()
            if len(said) > 1
        ]


class ChainWatch:
    """Listens at one broker or several. `height` is the newest header seen, `heights` the newest of each miner."""

    def __init__(self, genesis: Genesis) -> None:
        self.height = 0
        self.round = 0
        """The newest round that a header settles."""
        self.heights: Counter[Address] = Counter()
        """Of headers that came as news, not as what a broker had retained."""
        self.headers: dict[int, set[bytes]] = defaultdict(set)
        """height -> the hashes of all headers that any miner has called final."""
        self.words = SignedWords(genesis)
        self.heard = 0
        """Votes and proposals heard, repeats counted."""
        self.proposed = (0, Address(b""))
        """Height and sender of the newest first proposal of a height: a view's repeat changes nothing."""
        self.faults: list[str] = []
        """What must never be heard: a message that breaks a rule, or a second header of a height."""
        self._repeats: Counter[tuple[int, Address, bytes]] = Counter()
        self._assemblies: dict[tuple[int, Address], Assembly] = {}
        self._chain = genesis.compute_id()
        self._topics = Topics.of_chain(self._chain)
        self._links: list[MqttLink] = []

    @property
    def is_ready(self) -> bool:
        """True when every broker has taken its subscriptions."""
        return all(link.is_subscribed for link in self._links)

    async def start(self, host: str, port: int) -> None:
        """Listen at one more broker."""
        number = len(self._links)
        link = MqttLink(MqttSettings(host, port, client_id="watch"), partial(self._on_event, number))
        link.subscribe(self._topics.all_miners("head"), self._topics.all_miners("bft"), qos=0)
        self._links.append(link)
        await link.start()

    async def stop(self) -> None:
        """Leave the brokers."""
        for link in self._links:
            await link.stop()

    def forget_repeats(self) -> None:
        """Count repeats anew."""
        self._repeats.clear()

    def count_repeats(self, miner: Address) -> int:
        """How often a miner has said one and the same thing of its own again at one broker, since they were forgotten.

        A miner repeats itself in longer and longer intervals while a height does not become final, so that this is a
        measure of how long it has tried.
        """
        return max((count for (_, owner, _), count in self._repeats.items() if owner == miner), default=1) - 1

    def _on_event(self, number: int, event: LinkEvent) -> bool:
        if isinstance(event, Received):
            try:
                self._on_message(number, event)
            except Exception as error:  # the link would log it and go on
                self.faults.append(f"{event.topic}: {type(error).__name__}: {error}")
        return True

    def _on_message(self, number: int, event: Received) -> None:
        owner = read_topic_owner(event.topic)
        packet: Packet | None = decode_packet(event.payload)
        if packet is not None and packet.type is PacketType.CHUNK:
            assembly = self._assemblies.get((number, owner), Assembly())
            self._assemblies[number, owner], packet = process_chunk(assembly, packet)
        if packet is None:
            return
        if read_topic_channel(event.topic) == "head":
            self._on_header(owner, packet.fields[0], is_news=not event.retained)
        elif self.words.add(packet.fields[0]) == owner:
            self.heard += 1
            self._repeats[number, owner, packet.fields[0]] += 1
            height = open_envelope(packet.fields[0], self._chain).number
            if packet.type is PacketType.PROPOSAL and height > self.proposed[0]:
                self.proposed = (height, owner)

    def _on_header(self, owner: Address, header_bytes: bytes, *, is_news: bool) -> None:
        header = decode_struct(header_bytes, Header, HEADER_BYTES_MAX)
        hashes = self.headers[header.height]
        hashes.add(hash_header(header_bytes))
        if len(hashes) > 1:
            self.faults.append(f"fork: {len(hashes)} headers of height {header.height}")
        self.height = max(self.height, header.height)
        if header.next_round > header.round:
            self.round = max(self.round, header.round)
        if is_news:
            self.heights[owner] = max(self.heights[owner], header.height)
