"""What must never happen in a simulated network, judged by a chain and records of the checker's own."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from flchain.base.errors import InvalidMessage
from flchain.base.types import SHARE_ALL, Address, Hash, Height, View
from flchain.ledger.block import Block
from flchain.ledger.certificate import PRECOMMIT, verify_certificate
from flchain.ledger.state import ChainState, get_owned, hash_carried, hash_model
from flchain.ledger.state_tree import compute_state_root
from flchain.light.follow import LightState
from flchain.rules.blocks import apply_block, get_proposer
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    HEADER_BYTES_MAX,
    Envelope,
    decode_struct,
    open_envelope,
)
from flchain.wire.fields import Kind
from flchain.wire.messages import Body, Certificate, Header, Phase, Vote
from flchain.wire.packets import PacketType, decode_packet
from tools.sim.world import Disk, OwnMessage

PREVOTE = 1
Place = tuple[int, int, int, bytes]
"""Height, view, step, block hash."""


@dataclass
class Checker:
    """Watches every stored block and every message of honest nodes; nodes in `byzantine` may send anything.

    `genesis` is the state before block 1. Each block is applied once more here, by rules that no node has touched.
    """

    genesis: ChainState
    violations: list[str] = field(default_factory=list)
    final: dict[int, bytes] = field(default_factory=dict)
    said: dict[tuple[object, ...], object] = field(default_factory=dict)
    byzantine: set[str] = field(default_factory=set)
    """Names of nodes that break the rules."""
    guilty: set[bytes] = field(default_factory=set)
    """Addresses that may be accused."""
    copying: set[bytes] = field(default_factory=set)
    """Addresses that copy commitments of others."""
    accused: set[bytes] = field(default_factory=set)
    """Addresses that an honest miner has evidence against."""
    forks: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    """For each: the height and the two certificates."""

    def __post_init__(self) -> None:
        self.views_max = 0
        self.elections = 0
        self._states = [self.genesis]
        self._held: list[tuple[str, int, bytes, bytes | None]] = []
        """Models and carried vectors that devices hold after rounds that are not known here yet."""
        self._models = {0: (self.genesis.model_hash, self.genesis.carried_hash)}
        self._certificates: dict[int, bytes] = {}
        self._voted: dict[Place, set[bytes]] = defaultdict(set)
        self._proposed: dict[tuple[int, int, bytes, bytes], set[int]] = defaultdict(set)
        self._locks: dict[str, tuple[int, int, bytes]] = {}
        self._heard: set[bytes] = set()
        self._opened: dict[bytes, Envelope] = {}
        self._precommits: set[tuple[Height, Hash, int, Address, bytes]] = set()
        """Height, block hash, view, sender and signature of those that were right in a certificate."""

    # --- blocks ------------------------------------------------------------------------------------------------------

    def check_block(self, name: str, stored: int, block: Block, certificate: bytes) -> None:
        """Check a block that a miner with `stored` blocks stores next: all miners store the same one at a height."""
        height = block.header.height
        if height != stored + 1:
            self.violations.append(f"{name} stores height {height} after {stored}")
        first = self.final.setdefault(height, block.hash)
        if first != block.hash:
            self.forks.append((height, self._certificates[height], certificate))
            names = ", ".join(sorted(address.hex()[:8] for address in self.get_double_signers()))
            self.violations.append(f"two final blocks at height {height}, both signed by {names or 'nobody'}")
            return
        self._certificates.setdefault(height, certificate)
        if height > len(self._states):
            return  # a gap, which is reported above
        parent = self._states[height - 1]
        try:
            self._verify_certificate(parent, block, certificate)
            if height == len(self._states):
                state = apply_block(parent, block.header_bytes, block.body_bytes)[1]
                self._states.append(state)
                self._models.setdefault(state.round.number - 1, (state.model_hash, state.carried_hash))
                self._check_held()
                self._check_validators(block.header)
                self._check_copies(block)
        except InvalidMessage as error:
            self.violations.append(f"{name} stores a bad block at height {height}: {error}")

    def _verify_certificate(self, parent: ChainState, block: Block, certificate: bytes) -> None:
        """Check each signature once, however many miners store it in certificates of their own."""
        place = Height(block.header.height), block.hash
        validators = parent.validators

        def is_known(vote: Vote, sender: Address, signature: bytes) -> bool:
            return (*place, vote.view, sender, signature) in self._precommits

        checked = verify_certificate(parent.chain, validators, *place, certificate, known=is_known)
        signed = ((validators[index].address, signature) for index, signature in checked.signatures)
        self._precommits.update((*place, checked.view, *one) for one in signed)

    def _check_validators(self, header: Header) -> None:
        """Check that validators have power, none more than the cap, and that only the guilty are in jail."""
        state = self._states[-1]
        self.elections += header.validators_hash != header.next_validators_hash
        powers, cap_bp = [v.power for v in state.validators], state.params.power_cap_bp
        if not powers or (len(powers) * cap_bp > SHARE_ALL and max(powers) * SHARE_ALL > sum(powers) * cap_bp):
            self.violations.append(f"powers {powers} after height {header.height}")
        for candidate in state.candidates:
            if candidate.is_jailed and candidate.address not in self.guilty:
                self.violations.append(f"an honest miner is in jail at height {header.height}")

    def _check_copies(self, block: Block) -> None:
        """Check that a copied commitment is never opened, and so never paid for."""
        if not self.copying or block.header.phase is not Phase.SETTLE:
            return
        body = decode_struct(block.body_bytes, Body, BODY_BYTES_MAX)
        if {bytes(open_envelope(raw, self.genesis.chain).sender) for raw in body.transactions} & self.copying:
            self.violations.append(f"copied scores are opened at height {block.header.height}")

    def get_double_signers(self) -> set[bytes]:
        """Return the addresses that signed both blocks of a fork.

        They have more than a third of the power, unless another rule is broken as well.
        """
        guilty: set[bytes] = set()
        for height, *certificates in self.forks:
            validators = self._states[min(height, len(self._states)) - 1].validators
            read = (decode_struct(raw, Certificate, CERTIFICATE_BYTES_MAX) for raw in certificates)
            first, second = ({index for index, _ in certificate.signatures} for certificate in read)
            guilty |= {bytes(validators[index].address) for index in first & second}
        return guilty

    def check_chain(self, name: str, before: ChainState, after: ChainState, disk: Disk) -> None:
        """Check a miner after a step that ended a height: nothing is lost, the state is the header's, money adds up."""
        if after.height < before.height or after.height != disk.height:
            self.violations.append(f"{name} has lost a final block")
        if not disk.blocks:
            if disk.base is not None and self.final.get(disk.base_height) != after.head:
                self.violations.append(f"{name} has taken a state of another chain")
            return
        header = decode_struct(disk.blocks[-1][0].header_bytes, Header, HEADER_BYTES_MAX)
        if compute_state_root(after) != header.state_root:
            self.violations.append(f"{name} has another state than its header says")
        if after.minted - after.burned != get_owned(after):
            self.violations.append("the money owned is not the money minted less the money burned")

    def check_model(self, name: str, light: LightState) -> None:
        """Check that a device holds the chain's model of its round, and carries over what the chain does, if it
        does."""
        carried_hash = None if light.carried is None else hash_carried(light.carried)
        self._held.append((name, light.model_round, hash_model(light.model), carried_hash))
        self._check_held()

    def _check_held(self) -> None:
        """Judge what devices hold, as soon as an honest miner has the round: a liar may have sent it earlier."""
        for name, number, model_hash, carried_hash in self._held:
            real = self._models.get(number)
            if real is not None and real[0] != model_hash:
                self.violations.append(f"{name} holds another model than that of round {number}")
            if real is not None and carried_hash not in (None, real[1]):
                self.violations.append(f"{name} does not carry over what the chain does after round {number}")
        self._held = [held for held in self._held if held[1] not in self._models]

    def check_report(self, name: str, is_mismatch: bool) -> None:
        """Check that no honest device computes another model than the chain's."""
        if is_mismatch and name not in self.byzantine:
            self.violations.append(f"{name} computes another model than the chain's")

    def check_note(self, name: str, text: str, fields: dict[str, object]) -> None:
        """Check that evidence is only against the guilty."""
        if text != "a validator has signed twice":
            return
        address = bytes.fromhex(str(fields["validator"]))
        self.accused.add(address)
        if address not in self.guilty:
            self.violations.append(f"{name} accuses an honest miner of signing twice")

    def check_scores(self, name: str, packet: bytes, disk: Disk) -> None:
        """Check that an honest device's scores are on its disk before they are sent, are the same throughout a round,
        and are for exactly the updates of the round."""
        envelope = open_envelope(decode_packet(packet).fields[0], self.genesis.chain)
        if envelope.kind not in (Kind.SCORE_COMMIT, Kind.SCORE_REVEAL):
            return
        number = envelope.number
        if disk.scores is None or envelope.raw not in (disk.scores.commit, disk.scores.reveal):
            self.violations.append(f"{name} sends a {envelope.kind.name} that is not on its disk")
        if self.said.setdefault((name, envelope.kind, number), envelope.raw) != envelope.raw:
            self.violations.append(f"{name} contradicts itself: {envelope.kind.name} of round {number}")
        if envelope.kind is Kind.SCORE_REVEAL:
            rounds = (state.round for state in reversed(self._states) if state.round.number == number)
            senders = next(([u.sender for u in r.reveals] for r in rounds if r.phase is Phase.SETTLE), None)
            if senders is not None and senders != [address for address, _ in envelope.fields[3]]:
                self.violations.append(f"{name} scores other updates than those of round {number}")

    # --- messages ----------------------------------------------------------------------------------------------------

    def hear(self, packet: bytes) -> None:
        """Remember votes and proposals that any node, honest or not, has sent to any other."""
        if packet in self._heard:
            return
        self._heard.add(packet)
        try:
            decoded = decode_packet(packet)
            if decoded.type in (PacketType.MESSAGE, PacketType.PROPOSAL):
                self._remember(decoded.fields[0])
        except InvalidMessage:
            return

    def _remember(self, raw: bytes) -> None:
        envelope = self._open(raw)
        if envelope.kind is Kind.VOTE:
            height, view, step, block_hash = envelope.fields
            self._voted[height, view, step, block_hash or b""].add(envelope.sender)
        elif envelope.kind is Kind.PROPOSAL:
            height, view, valid_view, block_hash = envelope.fields
            self._proposed[height, view, block_hash, envelope.sender].add(valid_view)

    def _open(self, raw: bytes) -> Envelope:
        """Open a message, once for all the checks that it goes through. Raises InvalidMessage's subclasses."""
        envelope = self._opened.get(raw)
        if envelope is None:
            envelope = self._opened[raw] = open_envelope(raw, self.genesis.chain)
        return envelope

    def check_word(self, name: str, address: bytes, packet: bytes, own: list[OwnMessage]) -> None:
        """Check that a vote or proposal of this node is on its disk before it is sent."""
        envelope = self._open(decode_packet(packet).fields[0])
        if envelope.sender != address or envelope.kind not in (Kind.VOTE, Kind.PROPOSAL):
            return
        if not any(raw == envelope.raw for _, raw, _ in own[-64:]):
            self.violations.append(f"{name} sends a {envelope.kind.name} that is not on its disk")

    def check_own_word(self, name: str, raw: bytes) -> None:
        """Check that an honest miner signs one message per slot, and votes only as the algorithm allows."""
        envelope = self._open(raw)
        place = envelope.fields[:3] if envelope.kind is Kind.VOTE else envelope.fields[:2]
        self.views_max = max(self.views_max, envelope.fields[1])
        slot = (name, envelope.kind, *place)
        earlier = self.said.get(slot)
        if name not in self.byzantine and self.said.setdefault(slot, envelope.fields) != envelope.fields:
            self.violations.append(f"{name} contradicts itself: {slot}")
        self._remember(raw)
        is_new_vote = envelope.kind is Kind.VOTE and earlier is None and envelope.fields[3] is not None
        if is_new_vote and envelope.fields[0] <= len(self._states):
            height, view, step, block_hash = envelope.fields
            if step == PREVOTE:
                self._check_prevote(name, height, view, block_hash)
            elif step == PRECOMMIT:
                if not self._has_quorum(height, view, block_hash):
                    self.violations.append(f"{name} precommits at height {height} without a quorum of prevotes")
                self._locks[name] = (height, view, block_hash)

    def _check_prevote(self, name: str, height: int, view: int, block_hash: bytes) -> None:
        """Check lines 22 to 33 of the algorithm: the view's proposer proposed the block, with its proof of lock, and
        this miner's lock allows it."""
        proposer = get_proposer(self._states[height - 1], View(view))
        valid_views = self._proposed.get((height, view, block_hash, proposer), set())
        if not valid_views:
            self.violations.append(f"{name} prevotes at height {height} what the proposer did not propose")
        elif not any(v == -1 or self._has_quorum(height, v, block_hash) for v in valid_views):
            self.violations.append(f"{name} prevotes at height {height} on a proof of lock that does not exist")
        lock_height, lock_view, locked = self._locks.get(name, (0, 0, b""))
        if lock_height == height and locked != block_hash:
            proofs = [v for v in valid_views if v >= lock_view and self._has_quorum(height, v, block_hash)]
            if not proofs:
                self.violations.append(f"{name} prevotes at height {height} against its lock")

    def _has_quorum(self, height: int, view: int, block_hash: bytes) -> bool:
        validators = self._states[height - 1].validators
        voters = self._voted.get((height, view, PREVOTE, block_hash), set())
        return 3 * sum(v.power for v in validators if v.address in voters) > 2 * sum(v.power for v in validators)
