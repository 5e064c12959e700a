"""Byzantine validators as wrappers around the production machine: its messages are changed, dropped or multiplied.

`equivocate` is the method of Bano et al., "Twins: BFT Systems Made Robust" (arXiv 2004.10617): two copies with one key.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

import msgspec

from flchain.base.types import Address, View
from flchain.ledger.block import decode_block, hash_header
from flchain.ledger.certificate import PRECOMMIT, build_certificate
from flchain.light.body import LightBody
from flchain.rules import blocks
from flchain.rules.blocks import build_block, get_proposer
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    Envelope,
    decode_struct,
    encode_struct,
    get_signature,
    open_envelope,
    open_known,
    seal,
)
from flchain.wire.fields import Kind
from flchain.wire.messages import Proposal, Settlement, Vote
from flchain.wire.packets import Packet, PacketType, decode_packet, encode_packet
from tools.sim.world import Node, Out

if TYPE_CHECKING:
    from tools.sim.network import Network

LEAK_SHARE = 0.1
"""How often a message of a conspirator also reaches the other side."""
TWIN_SLOW_MS = 900
TRICKS_END_MS = 6_000


class Behaviour:
    """A Byzantine miner; this base is honest. It has its own generator, so that no other node's chance changes."""

    kind = "honest"

    def __init__(self, network: Network, node: Node) -> None:
        self.network, self.node = network, node
        self.rng = random.Random(f"{network.seed} {node.name} {self.kind}")
        network.checker.byzantine.add(node.name)
        network.checker.guilty.add(bytes(node.identity.address))
        node.behaviour = self

    @property
    def others(self) -> set[str]:
        """The names of all other nodes."""
        return set(self.network.nodes) - {self.node.name}

    def draw_some(self, share: float = 0.5) -> set[str]:
        """Return a random part of the others."""
        return {name for name in sorted(self.others) if self.rng.random() < share}

    def score(self, honest: int) -> int:
        """Return the score that it gives an update, in basis points."""
        return honest

    def route(self, topic: str, packet: bytes) -> Out:
        """Return what is sent instead of a packet, and to whom."""
        if not topic.endswith("/bft"):
            return [(packet, self.others)]
        decoded = decode_packet(packet)
        envelope = open_envelope(decoded.fields[0], self.network.chain.id)
        if envelope.sender == self.node.identity.address and envelope.kind in (Kind.VOTE, Kind.PROPOSAL):
            return self.lie(packet, decoded, envelope)
        return [(packet, self.others)]

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        """Return what is sent instead of its own vote or proposal."""
        return [(packet, self.others)]

    def sign_vote(self, height: int, view: int, step: int, block_hash: bytes | None) -> bytes:
        """Return a packet with a vote signed by its key."""
        raw = seal(Vote(height, view, step, block_hash), self.network.chain.id, self.node.identity)
        return encode_packet(PacketType.MESSAGE, raw)

    def sign_proposal(self, height: int, view: int, valid_view: int, header: bytes, body: bytes) -> bytes:
        """Return a packet with a proposal signed by its key."""
        proposal = Proposal(height, view, valid_view, hash_header(header))
        raw = seal(proposal, self.network.chain.id, self.node.identity)
        return encode_packet(PacketType.PROPOSAL, raw, header, body)

    def build_bad_root(self, header: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Return the block with a state root that is not the one it leads to."""
        block, _ = decode_block(header, body)
        return encode_struct(msgspec.structs.replace(block.header, state_root=self.rng.randbytes(32))), body


class Equivocate(Behaviour):
    """Runs two copies with one key, each heard by a changing part of the others. The second copy is slow."""

    kind = "equivocate"
    side: set[str] | None = None
    """The nodes that this copy talks to, if it is part of a conspiracy."""

    def route(self, topic: str, packet: bytes) -> Out:
        if self.side is not None and self.rng.random() > LEAK_SHARE:
            return [(packet, self.side)]
        return super().route(topic, packet)

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        return [(packet, self.draw_some(0.7))]


class Withhold(Behaviour):
    """Sends its messages to some nodes, or to none."""

    kind = "withhold"

    def route(self, topic: str, packet: bytes) -> Out:
        return [(packet, self.draw_some(self.rng.choice((0.0, 0.3, 0.8))))]


class Replay(Behaviour):
    """Repeats old messages of any node."""

    kind = "replay"

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__(network, node)
        self.heard: deque[tuple[str, bytes]] = deque(maxlen=400)
        network.broker.on_publish.append(lambda sender, topic, packet: self.heard.append((topic, packet)))

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        for _ in range(3 if self.heard else 0):
            topic, old = self.heard[self.rng.randrange(len(self.heard))]
            self.network.broker.inject(topic, old, self.draw_some(), self.node.name)
        return [(packet, self.others)]


class VoteAtRandom(Behaviour):
    """Sends each listener another vote: for nil, the block, an older one, or one that does not exist."""

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
    """Proposes blocks that break a rule, blocks out of turn, and blocks with a false proof of lock."""

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

    def build_bad_settlement(self, header: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Return a block that accepts no update and is otherwise consistent."""
        block, read = decode_block(header, body)
        with patch.object(blocks, "compute_settlement", lambda after: Settlement(())):
            state = self.node.state
            letters = [open_known(raw, state.chain.chain, state.find_known) for raw in read.transactions]
            lie, _ = build_block(state.chain, Address(block.header.proposer), letters)
        if lie.header == block.header:
            return self.build_bad_root(header, body)
        return lie.header_bytes, lie.body_bytes

    def propose_out_of_turn(self, height: int, view: int) -> bytes:
        """Return a valid block for this view if it is another's turn, and otherwise one with a false proof."""
        state, me = self.node.state.chain, self.node.identity.address
        block, _ = build_block(state, me, ())
        if get_proposer(state, View(view)) != me:
            return self.sign_proposal(height, view, -1, block.header_bytes, block.body_bytes)
        return self.sign_proposal(height, view, view - 1 if view else -1, block.header_bytes, block.body_bytes)


class FalseProof(Behaviour):
    """Proposes a new block as if a quorum had prevoted it in an earlier view."""

    kind = "false-proof"

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        height, view = envelope.fields[:2]
        if envelope.kind is Kind.VOTE or not view or self.node.state.chain.height + 1 != height:
            return [(packet, self.others)]
        block, _ = build_block(self.node.state.chain, self.node.identity.address, ())
        return [(self.sign_proposal(height, view, view - 1, block.header_bytes, block.body_bytes), self.others)]


class Forge(Behaviour):
    """Sends its own blocks as final: signed by itself alone, or with made-up signatures of others."""

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
                    self.network.broker.inject(topic, answer, {other.name}, self.node.name)
        return [(packet, self.others)]


@dataclass(frozen=True)
class Plot:
    """How a LockOne divides a view of its own: which miner locks, which get the block, and what the rest get."""

    one: str
    told: frozenset[str]
    spoiled: bytes


class LockOne(Behaviour):
    """Lets only one miner see a quorum of prevotes, so that it locks, while that miner's messages are lost: the lock
    must hold against what the others decide without it. It starts no more of this after TRICKS_END_MS.

    In a view of its own it sends its block to a quorum less itself, an invalid block to the rest, and its prevote to
    the one. In another's first view it votes for the block towards the one and nil towards the others, and may be too
    late. Once one is locked it gives a second one a newer lock, on the next new block, and leaves the two to resolve
    it.
    """

    kind = "lock-one"

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__(network, node)
        self.plots: dict[tuple[int, int], Plot] = {}
        self.ones: dict[tuple[int, int], str] = {}
        """By height and view: the miner that is to lock, so that a repeated vote goes to the same one."""

    def lie(self, packet: bytes, decoded: Packet, envelope: Envelope) -> Out:
        height, view = envelope.fields[:2]
        if self.network.now > TRICKS_END_MS and height not in {height for height, _ in self.ones}:
            return [(packet, self.others)]
        if envelope.kind is Kind.PROPOSAL:
            plot = self.plots.get((height, view)) or self.plan(height, view, decoded, envelope)
            if plot is None:
                return [(packet, self.others)]
            return [(packet, set(plot.told)), (plot.spoiled, self.others - plot.told)]
        step = envelope.fields[2]
        nil = self.sign_vote(height, view, step, None)
        if step == PRECOMMIT or self.node.state.chain.height + 1 != height:
            return [(nil, self.others)]
        proposed = [p.block_hash for p, _ in self.node.state.bft.proposals.get(view, ()) if p.valid_view == -1]
        one = self.pick_one(height, view)
        if not proposed or one is None:
            return [(nil, self.others)]
        return [(self.sign_vote(height, view, step, proposed[0]), {one}), (nil, self.others - {one})]

    def plan(self, height: int, view: int, decoded: Packet, envelope: Envelope) -> Plot | None:
        """Return the plot for a new block in this view; None if too few honest miners are up."""
        blocks, honest = self.node.state.chain, self.list_honest()
        quorum = 2 * len(blocks.validators) // 3 + 1
        if envelope.fields[2] >= 0 or blocks.height + 1 != height or len(honest) < quorum - 1:
            return None
        leaders = {get_proposer(blocks, View(view + ahead)) for ahead in (1, 2)}
        quiet = [name for name in honest if self.network.nodes[name].identity.address not in leaders] or honest
        one = self.rng.choice(quiet)
        rest = [name for name in honest if name != one]
        told = frozenset({one, *self.rng.sample(rest, quorum - 2)})
        spoiled = self.sign_proposal(height, view, -1, *self.build_bad_root(decoded.fields[1], decoded.fields[2]))
        plot = self.plots[height, view] = Plot(one, told, spoiled)
        return plot

    def pick_one(self, height: int, view: int) -> str | None:
        """Return the miner that is to lock in this view, and mute it: two different ones, in two views."""
        if (height, view) not in self.ones:
            earlier = [one for (at, _), one in self.ones.items() if at == height]
            plot, honest = self.plots.get((height, view)), [name for name in self.list_honest() if name not in earlier]
            if len(earlier) > 1 or not honest or not (plot or earlier or not view):
                return None
            self.ones[height, view] = plot.one if plot and not earlier else honest[height % len(honest)]
            self.mute(self.ones[height, view], view)  # once: no network fails for one miner for ever
        return self.ones[height, view]

    def list_honest(self) -> list[str]:
        """Return the honest miners that are up."""
        return sorted(node.name for node in self.network.miners() if node.behaviour is None)

    def mute(self, one: str, view: int) -> None:
        """Lose the messages of one miner until the others, whose votes come to nothing, are in the next view."""
        pairs = {(one, node.name) for node in self.network.miners() if node.name != one}
        self.network.broker.cut(pairs)
        self.network.at(1_300 + 1_000 * view, self.network.broker.uncut, pairs)


class ScoreFalsely(Behaviour):
    """Scores every model as perfect or worthless, at random."""

    kind = "score"

    def score(self, honest: int) -> int:
        return self.rng.choice((0, 10_000))


class OtherPayload(Behaviour):
    """Sends light devices the payload of an earlier round, and the payloads of several rounds in reverse order."""

    kind = "payload"

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__(network, node)
        self.earlier = b"none yet"

    def route(self, topic: str, packet: bytes) -> Out:
        decoded = decode_packet(packet) if topic.endswith("/light") or "/to/" in topic else None
        if decoded is None or decoded.type not in (PacketType.LIGHT_BODY, PacketType.PAYLOADS):
            return super().route(topic, packet)
        *fields, said = decoded.fields
        if decoded.type is PacketType.PAYLOADS:
            return [(encode_packet(decoded.type, *fields, said[::-1]), self.others)]
        body = decode_struct(said, LightBody, BODY_BYTES_MAX)
        lie = encode_struct(msgspec.structs.replace(body, payload=self.earlier))
        self.earlier = body.payload
        return [(encode_packet(decoded.type, *fields, lie), self.others)]


BEHAVIOURS: dict[str, type[Behaviour]] = {
    kind.kind: kind
    for kind in (
        Equivocate,
        Withhold,
        Replay,
        VoteAtRandom,
        Invalid,
        FalseProof,
        Forge,
        LockOne,
        ScoreFalsely,
        OtherPayload,
    )
}


def make_byzantine(network: Network, name: str, kind: type[Behaviour]) -> None:
    """Make a node a liar before it starts; `equivocate` gets a second copy that starts with it."""
    node = network.nodes[name]
    kind(network, node)
    network.gone.add(name)
    if kind is Equivocate:
        twin = network.add_twin(name)
        Equivocate(network, twin)
        twin.slow_ms = TWIN_SLOW_MS
        network.gone.add(twin.name)
