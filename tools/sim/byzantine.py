"""Byzantine validators, as wrappers around the production machine: what it says is changed, dropped or multiplied.

`equivocate` is the method of Bano et al., "Twins: BFT Systems Made Robust" (arXiv 2004.10617): two copies with one key.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING
from unittest.mock import patch

import msgspec

from flchain import chain
from flchain.certificate import PRECOMMIT, build_certificate
from flchain.chain import build_block, decode_block, get_proposer, hash_header
from flchain.messages import Kind, Proposal, Settlement, Vote
from flchain.packets import Packet, PacketType, decode_packet, encode_packet
from flchain.types import Address, View
from flchain.wire import Envelope, encode_struct, get_signature, open_envelope, seal

if TYPE_CHECKING:
    from tools.sim.network import Network
    from tools.sim.world import Node

Out = list[tuple[bytes, set[str] | None]]
"""Packets, each with the names of who gets it (None for all)."""


LEAK_SHARE = 0.1
"""How often a conspirator is overheard by the other side."""
TWIN_SLOW_MS = 900
TRICKS_END_MS = 6_000


class Behaviour:
    """One Byzantine miner. This one is honest; it draws from a generator of its own, so that it changes no other's."""

    kind = "honest"

    def __init__(self, network: Network, node: Node) -> None:
        self.network, self.node = network, node
        self.rng = random.Random(f"{network.seed} {node.name} {self.kind}")
        network.checker.byzantine.add(node.name)
        network.checker.guilty.add(bytes(node.identity.address))
        node.behaviour = self

    @property
    def others(self) -> set[str]:
        """Everybody else."""
        return set(self.network.nodes) - {self.node.name}

    def draw_some(self, share: float = 0.5) -> set[str]:
        """A random part of the others."""
        return {name for name in sorted(self.others) if self.rng.random() < share}

    def score(self, honest: int) -> int:
        """What it says an update is worth, in basis points."""
        return honest

    def route(self, topic: str, packet: bytes) -> Out:
        """What is sent in place of a packet, and to whom."""
        if not topic.endswith("/bft"):
            return [(packet, self.others)]
        decoded = decode_packet(packet)
        envelope = open_envelope(decoded.fields[0], self.network.chain.id)
        if envelope.sender == self.node.identity.address and envelope.kind in (Kind.VOTE, Kind.PROPOSAL):
            return self.lie(packet, decoded, envelope)
        return [(packet, self.others)]

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        """In place of a vote or a proposal of its own."""
        return [(packet, self.others)]

    def sign_vote(self, height: int, view: int, step: int, block_hash: bytes | None) -> bytes:
        """A packet with a vote of its key."""
        raw = seal(Vote(height, view, step, block_hash), self.network.chain.id, self.node.identity)
        return encode_packet(PacketType.MESSAGE, raw)

    def sign_proposal(self, height: int, view: int, valid_view: int, header: bytes, body: bytes) -> bytes:
        """A packet with a proposal of its key."""
        proposal = Proposal(height, view, valid_view, hash_header(header))
        raw = seal(proposal, self.network.chain.id, self.node.identity)
        return encode_packet(PacketType.PROPOSAL, raw, header, body)


class Equivocate(Behaviour):
    """Two copies of one key, each heard by a part of the others that changes. The second is slow."""

    kind = "equivocate"
    side: set[str] | None = None
    """Who this copy works on, if it is one of a conspiracy."""

    def route(self, topic: str, packet: bytes) -> Out:
        if self.side is not None and self.rng.random() > LEAK_SHARE:
            return [(packet, self.side)]
        return super().route(topic, packet)

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        return [(packet, self.draw_some(0.7))]


class Withhold(Behaviour):
    """Says things to some, or to nobody."""

    kind = "withhold"

    def route(self, topic: str, packet: bytes) -> Out:
        return [(packet, self.draw_some(self.rng.choice((0.0, 0.3, 0.8))))]


class Replay(Behaviour):
    """Repeats what anyone has said long ago."""

    kind = "replay"

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__(network, node)
        self.heard: deque[tuple[str, bytes]] = deque(maxlen=400)
        network.on_publish.append(lambda sender, topic, packet: self.heard.append((topic, packet)))

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        for _ in range(3 if self.heard else 0):
            topic, old = self.heard[self.rng.randrange(len(self.heard))]
            self.network.inject(topic, old, self.draw_some(), self.node.name)
        return [(packet, self.others)]


class VoteAtRandom(Behaviour):
    """Another vote for each listener: nil, the block, an older one, or nothing that exists."""

    kind = "random"

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__(network, node)
        self.known: deque[bytes] = deque(maxlen=4)

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        if envelope.kind is Kind.PROPOSAL:
            return [(packet, self.others)]
        height, view, step, block_hash = envelope.fields
        if block_hash is not None:
            self.known.append(block_hash)
        choices = [None, block_hash, self.rng.randbytes(32), *self.known]
        lies = [self.sign_vote(height, view, step, self.rng.choice(choices)) for _ in range(2)]
        return [(lie, self.draw_some()) for lie in lies]


class Invalid(Behaviour):
    """Proposes blocks that break a rule, blocks out of its turn, and old blocks with a proof of lock that is none."""

    kind = "invalid"

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        out: Out = [(packet, self.others)]
        height, view = envelope.fields[:2]
        if self.node.state.chain.height + 1 != height:
            return out
        if envelope.kind is Kind.PROPOSAL:
            valid_view = envelope.fields[2]
            lie = self.rng.choice((self.build_bad_root, self.build_bad_settlement))
            changed = lie(decoded.fields[1], decoded.fields[2])
            return [(self.sign_proposal(height, view, valid_view, *changed), self.others)]
        if self.rng.random() < 0.3:
            out.append((self.propose_out_of_turn(height, view), self.others))
        return out

    def build_bad_root(self, header: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Another state than the block leads to."""
        block, _ = decode_block(header, body)
        return encode_struct(msgspec.structs.replace(block.header, state_root=self.rng.randbytes(32))), body

    def build_bad_settlement(self, header: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Nobody's update is accepted, and everything else in the block agrees with that."""
        block, read = decode_block(header, body)
        with patch.object(chain, "compute_settlement", lambda after: Settlement(())):
            lie, _ = build_block(self.node.state.chain, Address(block.header.proposer), read.transactions)
        if lie.header == block.header:
            return self.build_bad_root(header, body)
        return lie.header_bytes, lie.body_bytes

    def propose_out_of_turn(self, height: int, view: int) -> bytes:
        """A valid block for this view if it is another's turn, else for the next view, with a false proof."""
        state, me = self.node.state.chain, self.node.identity.address
        block, _ = build_block(state, me, ())
        if get_proposer(state, View(view)) != me:
            return self.sign_proposal(height, view, -1, block.header_bytes, block.body_bytes)
        return self.sign_proposal(height, view, view - 1 if view else -1, block.header_bytes, block.body_bytes)


class FalseProof(Behaviour):
    """Proposes a fresh block as if a quorum had prevoted it in an earlier view."""

    kind = "false-proof"

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        height, view = envelope.fields[:2]
        if envelope.kind is Kind.VOTE or not view or self.node.state.chain.height + 1 != height:
            return [(packet, self.others)]
        block, _ = build_block(self.node.state.chain, self.node.identity.address, ())
        return [(self.sign_proposal(height, view, view - 1, block.header_bytes, block.body_bytes), self.others)]


class Forge(Behaviour):
    """Sends blocks of its own as final: signed by itself alone, or by others whose signatures are made up."""

    kind = "forge"

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        state, me = self.node.state.chain, self.node.identity
        if envelope.kind is Kind.VOTE and self.rng.random() < 0.3:
            block, _ = build_block(state, me.address, ())
            vote = Vote(state.height + 1, 0, PRECOMMIT, block.hash)
            own = get_signature(seal(vote, state.chain, me))
            signatures = [(me.address, own)]
            if self.rng.random() < 0.5:
                signatures = [(v.address, own) for v in state.validators]
            forged = build_certificate(state.validators, View(0), signatures)
            answer = encode_packet(PacketType.BLOCK, block.header_bytes, forged, block.body_bytes)
            for other in self.network.miners():
                if other.name in self.others:
                    topic = self.network.topics.miner_to(me.address, other.identity.address)
                    self.network.inject(topic, answer, {other.name}, self.node.name)
        return [(packet, self.others)]


class LockOne(Behaviour):
    """Lets one miner alone see a quorum of prevotes, and so lock: tells it yes and the others nil, while what the one
    says gets lost. Tries it in the first view of a height, for as long as TRICKS_END_MS."""

    kind = "lock-one"

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        if envelope.kind is Kind.PROPOSAL or self.network.now > TRICKS_END_MS:
            return [(packet, self.others)]
        height, view, step, block_hash = envelope.fields
        miners = sorted(node.name for node in self.network.miners() if node is not self.node)
        if step == PRECOMMIT or view or block_hash is None or not miners:
            return [(self.sign_vote(height, view, step, None), self.others)]
        one = miners[height % len(miners)]  # the same when it repeats itself
        pairs = {(one, name) for name in miners if name != one}
        self.network.cut(pairs)
        self.network.at(2_500, self.network.uncut, pairs)
        return [(packet, {one}), (self.sign_vote(height, view, step, None), self.others - {one})]


class ScoreFalsely(Behaviour):
    """Says of every model that it is perfect or worthless, as it comes."""

    kind = "score"

    def score(self, honest: int) -> int:
        return self.rng.choice((0, 10_000))


BEHAVIOURS: dict[str, type[Behaviour]] = {
    kind.kind: kind
    for kind in (Equivocate, Withhold, Replay, VoteAtRandom, Invalid, FalseProof, Forge, LockOne, ScoreFalsely)
}


def make_byzantine(network: Network, name: str, kind: str) -> None:
    """Turn miner `name` into a liar before it starts; `equivocate` gets a second copy that starts with it."""
    node = network.nodes[name]
    BEHAVIOURS[kind](network, node)
    network.gone.add(name)
    if kind == Equivocate.kind:
        twin = network.add_twin(name)
        Equivocate(network, twin)
        twin.slow_ms = TWIN_SLOW_MS
        network.gone.add(twin.name)


def conspire(network: Network, names: list[str]) -> None:
    """The worst that these miners can do together: half of the honest ones, cut off from the others, each see one copy
    of every key, and the other half the other."""
    for name in names:
        make_byzantine(network, name, Equivocate.kind)
    honest = sorted(name for name, node in network.nodes.items() if node.is_miner and node.behaviour is None)
    devices = {name for name, node in network.nodes.items() if not node.is_miner}
    sides = set(honest[::2]), set(honest[1::2])
    network.cut({(a, b) for one, other in (sides, sides[::-1]) for a in one for b in other})
    for node in network.nodes.values():
        if isinstance(node.behaviour, Equivocate):
            is_twin = node.name.endswith("-twin")
            fellows = {n for n in network.nodes if network.nodes[n].behaviour and n.endswith("-twin") == is_twin}
            node.slow_ms = 0  # both copies do their best
            node.behaviour.side = (sides[is_twin] | fellows | devices) - {node.name}
