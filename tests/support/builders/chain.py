"""A small chain for tests: real keys and signatures, a model of 200 parameters, and helpers that drive rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from flchain.base.crypto import Identity
from flchain.base.fixedpoint import to_fixed
from flchain.base.types import Round, UnixMillis, View
from flchain.codecs import CODECS, compute_codec_seed
from flchain.ledger.block import Block
from flchain.ledger.certificate import PRECOMMIT, build_certificate
from flchain.ledger.state import ChainState, find_account
from flchain.ledger.state_tree import compute_state_root
from flchain.light.trust import CertifiedHeader, encode_sets
from flchain.rules.blocks import apply_block, build_block
from flchain.rules.score_words import build_score_commit
from flchain.rules.scores import get_homes
from flchain.wire.envelope import Envelope, encode_struct, get_signature, open_envelope, seal
from flchain.wire.messages import Body, Commit, Header, Phase, Reveal, ScoreReveal, Vote, compute_update_commitment
from tools.sim.chain import CODEC_LEVEL, PARAMETERS_COUNT, BuiltChain, build_chain, build_identity

__all__ = ["CODEC_LEVEL", "PARAMETERS_COUNT", "BuiltChain", "build_chain", "build_identity"]

BASE_SCORE = 7_000
NO_CLOCK = UnixMillis(0)
"""A clock that never runs: the time in blocks is then just after the block before."""
SALT = b"salt of 16 bytes"


def make_update(chain: BuiltChain, number: int, round_: int, size: float = 0.1) -> bytes:
    """A codec payload that depends on device and round alone."""
    noise = np.random.default_rng((number, round_)).normal(0, size, PARAMETERS_COUNT)
    codec, params = CODECS[chain.genesis.params.codec], chain.genesis.params
    residual = np.zeros(PARAMETERS_COUNT, np.int32)
    seed = compute_codec_seed(chain.id, Round(round_), chain.devices[number].address)
    return codec.encode(to_fixed(noise.astype(np.float32)), residual, params.codec_level, seed).payload


def make_reveal(
    chain: BuiltChain, number: int, round_: int = 1, samples: int = 100, update: bytes | None = None
) -> Reveal:
    """What device `number` trained in a round."""
    return Reveal(round_, SALT, samples, make_update(chain, number, round_) if update is None else update)


def seal_commit(chain: BuiltChain, number: int, reveal: Reveal, will_score: bool = False) -> bytes:
    """Device `number`'s signed commitment to `reveal`."""
    sender = chain.devices[number]
    commitment = compute_update_commitment(chain.id, sender.address, reveal)
    return seal(Commit(reveal.round, commitment, will_score), chain.id, sender)


def seal_reveal(chain: BuiltChain, number: int, reveal: Reveal) -> bytes:
    """Device `number`'s signed update."""
    return seal(reveal, chain.id, chain.devices[number])


def make_scores(state: ChainState, base: int = BASE_SCORE, scores: Mapping[bytes, int] | None = None) -> ScoreReveal:
    """Return scores for every revealed update and aggregate: `scores` by device or miner, or the base model's."""
    said = scores or {}
    listed = tuple((update.sender, said.get(update.sender, base)) for update in state.round.reveals)
    aggregates = tuple((home, said.get(home, base)) for home in get_homes(state))
    return ScoreReveal(state.round.number, SALT, base, listed, aggregates)


def seal_score_commit(chain: BuiltChain, number: int, scores: ScoreReveal) -> bytes:
    """Miner `number`'s signed commitment to `scores`."""
    return seal_score_commit_of(chain, chain.miners[number], scores)


def seal_score_commit_of(chain: BuiltChain, sender: Identity, scores: ScoreReveal) -> bytes:
    """Any scorer's signed commitment to `scores`."""
    return seal(build_score_commit(chain.id, sender.address, scores), chain.id, sender)


def seal_score_reveal(chain: BuiltChain, number: int, scores: ScoreReveal) -> bytes:
    """Miner `number`'s signed scores."""
    return seal_score_reveal_of(chain, chain.miners[number], scores)


def seal_score_reveal_of(chain: BuiltChain, sender: Identity, scores: ScoreReveal) -> bytes:
    """Any scorer's signed scores."""
    return seal(scores, chain.id, sender)


def certify(
    chain: BuiltChain, state: ChainState, block: Block, signers: Iterable[int] | None = None, view: int = 0
) -> bytes:
    """A certificate for the block after `state`, signed by the miners `signers` (all if None)."""
    vote = Vote(block.header.height, view, PRECOMMIT, block.hash)
    chosen = [chain.miners[i] for i in (range(len(chain.miners)) if signers is None else signers)]
    signatures = [(miner.address, get_signature(seal(vote, chain.id, miner))) for miner in chosen]
    return build_certificate(state.validators, View(view), signatures)


def open_all(raws: Iterable[bytes], chain: bytes) -> list[Envelope]:
    """Messages opened, nothing of them verified: what `build_block` takes."""
    return [open_envelope(raw, chain) for raw in raws]


@dataclass
class Driver:
    """Makes blocks on a chain one after another; every block made is also checked as a peer checks it."""

    chain: BuiltChain
    states: list[ChainState] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    certificates: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = self.states or [self.chain.state]

    @property
    def state(self) -> ChainState:
        """The newest state."""
        return self.states[-1]

    def extend(self, transactions: Iterable[bytes] = (), orders: Iterable[bytes] = (), clock_ms: int = 0) -> Block:
        """Make, check and append a block."""
        proposer = self.chain.miners[len(self.blocks) % len(self.chain.miners)]
        letters = open_all(transactions, self.chain.id), open_all(orders, self.chain.id)
        block, built = build_block(self.state, proposer.address, *letters, UnixMillis(clock_ms))
        checked, after = apply_block(self.state, block.header_bytes, block.body_bytes)
        assert checked == block
        assert compute_state_root(after) == compute_state_root(built) == block.header.state_root
        self.certificates.append(certify(self.chain, self.state, block))
        self.states.append(after)
        self.blocks.append(block)
        return block

    def get_head(self, height: int) -> CertifiedHeader:
        """A block's header as it travels, with its validators."""
        sets = encode_sets(self.states[height - 1].validators, self.states[height].validators)
        return CertifiedHeader(self.blocks[height - 1].header_bytes, self.certificates[height - 1], sets)

    def open(self) -> None:
        """Make the first block if it is not there yet."""
        if self.state.round.phase is Phase.OPEN:
            self.extend()

    def commit(self, reveals: Mapping[int, Reveal], pledged: Iterable[int] = ()) -> Block:
        """A block with the commitments of these devices, of which those in `pledged` will score."""
        return self.extend([seal_commit(self.chain, i, reveal, i in pledged) for i, reveal in reveals.items()])

    def reveal(self, reveals: Mapping[int, Reveal]) -> Block:
        """A block with the updates of these devices."""
        return self.extend([seal_reveal(self.chain, i, reveal) for i, reveal in reveals.items()])

    def score_commit(self, scores: Mapping[int, ScoreReveal]) -> Block:
        """A block with the score commitments of these miners."""
        return self.extend([seal_score_commit(self.chain, i, word) for i, word in scores.items()])

    def score_reveal(self, scores: Mapping[int, ScoreReveal]) -> Block:
        """A block with the scores of these miners."""
        return self.extend([seal_score_reveal(self.chain, i, word) for i, word in scores.items()])

    def go_to(
        self, phase: Phase, devices: Iterable[int] | None = None, pledged: Iterable[int] = ()
    ) -> dict[int, Reveal]:
        """Drive the open round, in which `devices` (all if None) take part, up to `phase`. Gives their updates.

        Those in `pledged` say that they will score, and do not.
        """
        self.open()
        numbers = range(len(self.chain.devices)) if devices is None else devices
        reveals = {i: make_reveal(self.chain, i, self.state.round.number) for i in numbers}
        miners = range(len(self.chain.miners))
        steps: tuple[tuple[Phase, Callable[[], Block]], ...] = (
            (Phase.COMMIT, lambda: self.commit(reveals, pledged)),
            (Phase.REVEAL, lambda: self.reveal(reveals)),
            (
                Phase.SCORE,
                lambda: self.score_commit(dict.fromkeys(miners, make_scores(self.state))),
            ),
        )
        for here, step in steps:
            if phase > here:
                step()
                while self.state.round.phase is here:
                    self.extend()
        assert self.state.round.phase is phase
        return reveals

    def run_round(self, devices: Iterable[int] | None = None, scores: Mapping[bytes, int] | None = None) -> Round:
        """Drive the open round to its settlement: the round that was settled."""
        number = self.state.round.number
        self.go_to(Phase.SCORE, devices)
        words = {i: make_scores(self.state, scores=scores) for i in range(len(self.chain.miners))}
        self.score_commit(words)
        self.score_reveal(words)
        assert self.state.round.number == number + 1
        return number


def get_balances(state: ChainState, identities: Iterable[Identity]) -> list[int]:
    """What these accounts own."""
    return [account.balance for i in identities if (account := find_account(state, i.address)) is not None]


def seal_body(transactions: Iterable[bytes]) -> bytes:
    """A body without a settlement."""
    return encode_struct(Body(tuple(transactions), (), None))


def replace_header(block: Block, **changes: object) -> bytes:
    """The bytes of the block's header with some fields changed."""
    header: Header = msgspec.structs.replace(block.header, **changes)
    return encode_struct(header)
