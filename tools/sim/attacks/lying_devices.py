"""Byzantine devices that mine: their scores are false, copied, too many, or never opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flchain.wire.envelope import Envelope, open_envelope, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import Commit, ScoreCommit, ScoreReveal
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from tools.sim.attacks.byzantine import Behaviour
from tools.sim.world import Node, Out

if TYPE_CHECKING:
    from tools.sim.network import Network

FLOOD = 12
"""Messages that a flooding device sends instead of one."""


class DeviceScoreFalsely(Behaviour):
    """Scores models as perfect and as worthless in turn."""

    kind = "device-score"
    turns = 0

    def score(self, honest: int) -> int:
        self.turns += 1
        return 10_000 * (self.turns % 2)


class LyingDevice(Behaviour):
    """A device that changes its score messages; its updates are honest."""

    def route(self, topic: str, packet: bytes) -> Out:
        if not topic.endswith("/up"):
            return [(packet, self.others)]
        envelope = open_envelope(decode_packet(packet).fields[0], self.network.chain.id)
        return [(lie, self.others) for lie in self.say(packet, envelope)]

    def say(self, packet: bytes, envelope: Envelope) -> list[bytes]:
        """Return what is sent instead of one of its messages."""
        return [packet]

    def sign(self, message: Commit | ScoreCommit | ScoreReveal) -> bytes:
        """Return a packet with a message signed by its key."""
        return encode_packet(PacketType.MESSAGE, seal(message, self.network.chain.id, self.node.identity))


class DeviceCopy(LyingDevice):
    """Tests nothing: copies the commitment of another device, and opens it with that one's scores."""

    kind = "device-copy"

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__(network, node)
        network.checker.copying.add(bytes(node.identity.address))
        self.heard: dict[tuple[Kind, int], bytes] = {}
        network.broker.on_publish.append(self.listen)

    def listen(self, sender: Node, topic: str, packet: bytes) -> None:
        """Overhear the scores of other devices and of miners."""
        decoded = decode_packet(packet)
        if decoded.type is PacketType.MESSAGE and topic.endswith(("/up", "/bft")):
            envelope = open_envelope(decoded.fields[0], self.network.chain.id)
            if envelope.kind in (Kind.SCORE_COMMIT, Kind.SCORE_REVEAL):
                self.heard.setdefault((envelope.kind, envelope.number), envelope.raw)

    def say(self, packet: bytes, envelope: Envelope) -> list[bytes]:
        raw = self.heard.get((envelope.kind, envelope.number))
        if raw is None:
            return [] if envelope.kind in (Kind.SCORE_COMMIT, Kind.SCORE_REVEAL) else [packet]
        number, *fields = open_envelope(raw, self.network.chain.id).fields
        if envelope.kind is Kind.SCORE_COMMIT:
            return [self.sign(ScoreCommit(number, fields[0]))]
        salt, base, scores, aggregates = fields
        listed = [tuple((address, score) for address, score in part) for part in (scores, aggregates)]
        return [self.sign(ScoreReveal(number, salt, base, *listed))]


class DeviceFlood(LyingDevice):
    """Sends many messages instead of one: other commitments and made-up scores, for this, the next and the last
    round."""

    kind = "device-flood"

    def say(self, packet: bytes, envelope: Envelope) -> list[bytes]:
        said = [packet]
        for _ in range(FLOOD):
            number = max(0, envelope.number + self.rng.choice((-1, 0, 0, 1)))
            lie = self.rng.choice((self.commit, self.score_commit, self.score_reveal))
            said.append(self.sign(lie(number)))
        self.rng.shuffle(said)
        return said

    def commit(self, number: int) -> Commit:
        """Return a commitment to no update, with a pledge."""
        return Commit(number, self.rng.randbytes(32), True)

    def score_commit(self, number: int) -> ScoreCommit:
        """Return a commitment to no scores."""
        return ScoreCommit(number, self.rng.randbytes(32))

    def score_reveal(self, number: int) -> ScoreReveal:
        """Return scores of updates that do not exist."""
        return ScoreReveal(number, self.rng.randbytes(16), 0, ((self.rng.randbytes(20), 0),), ())


class DeviceNeverOpens(LyingDevice):
    """Pledges and commits in every round, and never opens its scores."""

    kind = "device-silent"

    def say(self, packet: bytes, envelope: Envelope) -> list[bytes]:
        return [] if envelope.kind is Kind.SCORE_REVEAL else [packet]


DEVICE_BEHAVIOURS: dict[str, type[Behaviour]] = {
    kind.kind: kind for kind in (DeviceScoreFalsely, DeviceCopy, DeviceFlood, DeviceNeverOpens)
}
