"""A miner under proof of work, as a pure machine: step(state, event, now_ms) -> (state, effects).

It runs the rounds of the real chain: the same messages, mempool, scoring, `build_block` and `apply_block` as
`miner/core/machine.py`; only agreement differs. The search happens outside: `Mine` asks for it and `SealFound` ends it.
A search has no memory, so the block may change meanwhile: it is built when the seal is found.

A block travels as a BLOCK packet with the seal in place of the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from flchain.base.crypto import Identity
from flchain.base.errors import DuplicateMessage, InvalidMessage, MalformedMessage, UnknownSender, WrongRound
from flchain.base.frozen import replace
from flchain.base.types import NO_HASH, Address, Hash, Millis, Round, UnixMillis
from flchain.consensus.block_tree import (
    BlockTree,
    Change,
    SealedHeader,
    build_tree,
    get_branch,
    get_next_target,
    insert,
    iterate_ancestors,
    pop_orphans,
)
from flchain.consensus.pow import PowParams, SealRule, verify_seal
from flchain.ledger.block import Block, decode_block
from flchain.ledger.state import ChainState, find_validator
from flchain.rules.blocks import apply_block, build_block, select_transactions
from flchain.rules.phases import PHASE_KINDS
from flchain.rules.transactions import DEVICE_KINDS, SCORE_KINDS, get_key_for
from flchain.wire.envelope import Letter, open_envelope, open_known, seal, verify_envelope, verify_letter
from flchain.wire.fields import Kind
from flchain.wire.messages import Ask, Phase, Want
from flchain.wire.packets import Packet, PacketType, decode_packet, encode_packet
from flchain.wire.topics import read_topic_channel, read_topic_owner
from miner.core import scoring
from miner.core.machine import build_miner_state
from miner.core.pools import mempool
from miner.core.state import MinerState, RoundScores
from miner.core.tip import Standing
from miner.core.values import Connected, MinerConfig, PacketReceived, Publish, Refuse, ScoreComputed
from miner.core.values import Effect as MinerEffect

FUTURE_MS_MAX = 2_000
"""A block whose time is further ahead of this miner's clock than this is refused."""
ANSWER_BLOCKS_MAX = 32
ASK_MS = 500
"""A miner that lacks a parent waits this long between two questions."""


@dataclass(frozen=True)
class SealFound:
    """The search that `Mine` began has found a seal for the block that this miner would build now."""

    nonce: bytes


@dataclass(frozen=True)
class Mine:
    """Search under this target, and end the search before."""

    target: int


@dataclass(frozen=True)
class Adopt:
    """The tip has moved. The blocks in `finals_undone` had been final."""

    undone: tuple[Hash, ...]
    redone: tuple[Hash, ...]
    finals_undone: tuple[Hash, ...]


@dataclass(frozen=True)
class Finalise:
    """These blocks are deep enough now, lowest first."""

    blocks: tuple[SealedBlock, ...]


Event: TypeAlias = PacketReceived | ScoreComputed | Connected | SealFound
Effect: TypeAlias = MinerEffect | Mine | Adopt | Finalise


@dataclass(frozen=True)
class SealedBlock:
    """A block with its seal."""

    block: Block
    seal: bytes

    def get_header(self) -> SealedHeader:
        """Return what the tree needs to know of it."""
        header = self.block.header
        return SealedHeader(self.block.hash, Hash(header.previous), header.height, header.time_ms, self.seal)


@dataclass(frozen=True)
class PowState:
    """`miner` is at the tip, and its consensus is never started. `states` has the state after each block of the
    tree."""

    miner: MinerState
    tree: BlockTree
    states: dict[Hash, ChainState]
    verify: SealRule
    blocks: dict[Hash, SealedBlock] = field(default_factory=dict)
    """The blocks of the tree and its orphans."""
    told: Hash = NO_HASH
    """The newest block that `Finalise` has announced."""
    asked_ms: Millis | None = None

    @property
    def chain(self) -> ChainState:
        """The state at the tip."""
        return self.miner.chain

    @property
    def final(self) -> ChainState:
        """The state at the newest final block."""
        return self.states[self.tree.final]


Transition: TypeAlias = tuple[PowState, tuple[Effect, ...]]


def build_pow_state(
    identity: Identity, chain: ChainState, params: PowParams, verify: SealRule = verify_seal
) -> PowState:
    """Return a miner that knows only the genesis."""
    miner = build_miner_state(MinerConfig(identity), Standing(chain))
    return PowState(miner, build_tree(params, chain.head), {chain.head: chain}, verify, told=chain.head)


def step(state: PowState, event: Event, now_ms: Millis) -> Transition:
    """Return the state after an event, and the effects. A peer's fault becomes a Refuse and changes nothing.

    All simulated miners share one clock: `now_ms`, and the times in blocks.
    """
    try:
        match event:
            case SealFound(nonce):
                return _on_seal(state, nonce, now_ms)
            case PacketReceived():
                return _on_packet(state, event, now_ms)
            case ScoreComputed():
                return _on_score(state, event)
            case Connected():
                return _score(state, (Mine(get_next_target(state.tree, state.tree.tip)),))
    except InvalidMessage as error:
        return state, (Refuse(error.code, str(error)),)


def _on_packet(state: PowState, event: PacketReceived, now_ms: Millis) -> Transition:
    owner, channel = read_topic_owner(event.topic), read_topic_channel(event.topic)
    packet = decode_packet(event.payload)
    if packet.type is PacketType.BLOCK and channel in ("bft", "to"):
        return _on_block(state, owner, packet, now_ms)
    if packet.type is not PacketType.MESSAGE:
        raise MalformedMessage(f"a {packet.type.name} on channel {channel[:16]!r}")
    letter = open_known(packet.fields[0], state.chain.chain, state.miner.find_known)
    if letter.kind is Kind.ASK:
        return _on_ask(state, letter)
    if letter.kind not in (DEVICE_KINDS if channel == "up" else SCORE_KINDS):
        raise MalformedMessage(f"a {letter.kind.name} on channel {channel[:16]!r}")
    return _add_to_pool(state, letter)


# --- messages of rounds -----------------------------------------------------------------------------------------------


def _add_to_pool(state: PowState, letter: Letter) -> Transition:
    """Keep messages that any branch may still need: from the final round to the one after the tip's."""
    if not state.final.round.number <= letter.number <= state.chain.round.number + 1:
        raise WrongRound(f"a {letter.kind.name} of round {letter.number}")
    public_key = get_key_for(state.chain, letter.kind, letter.sender)
    miner = state.miner
    try:
        if mempool.is_known(miner.mempool, letter):
            return state, ()
    except DuplicateMessage:
        if letter.kind not in SCORE_KINDS:
            raise
        # The scorer was on a branch with other updates: its new message is for the branch that it has moved to.
        place = Round(letter.number), letter.kind, letter.sender
        miner = replace(miner, mempool=mempool.remove(miner.mempool, frozenset({place})))
    pool, _ = mempool.insert(miner.mempool, state.chain, verify_letter(letter, state.chain.chain, public_key))
    return _score(replace(state, miner=replace(miner, mempool=pool)))


def _on_score(state: PowState, event: ScoreComputed) -> Transition:
    miner = state.miner
    if event.round != miner.chain.round.number:
        return state, ()
    computed = miner.scoring.computed.with_item(event.subject, event.score)
    return _score(replace(state, miner=replace(miner, scoring=replace(miner.scoring, computed=computed))))


def _score(state: PowState, before: tuple[Effect, ...] = ()) -> Transition:
    miner, effects = scoring.process_phase(state.miner)
    return replace(state, miner=miner), (*before, *effects)


# --- blocks -----------------------------------------------------------------------------------------------------------


def _on_seal(state: PowState, nonce: bytes, now_ms: Millis) -> Transition:
    """Build the block, publish it, and move to it."""
    kind = PHASE_KINDS.get(state.chain.round.phase)
    pending = mempool.get_pending(state.miner.mempool, state.chain.round.number, kind)
    transactions = select_transactions(state.chain, pending.values())
    me = state.miner.config.identity.address
    block, after = build_block(state.chain, me, transactions, clock_ms=UnixMillis(now_ms))
    sealed = SealedBlock(block, nonce)
    tree, change = insert(state.tree, sealed.get_header(), lambda *_: 0)
    state = _keep(replace(state, tree=tree), sealed, after)
    told = Publish(state.miner.topics.miner_bft(me), encode_block(sealed), qos=0)
    return _adopt(state, change, (told,))


def encode_block(sealed: SealedBlock) -> bytes:
    """Return the packet that carries a block."""
    return encode_packet(PacketType.BLOCK, sealed.block.header_bytes, sealed.seal, sealed.block.body_bytes)


def _keep(state: PowState, sealed: SealedBlock, after: ChainState | None) -> PowState:
    block_hash = sealed.block.hash
    states = state.states if after is None else {**state.states, block_hash: after}
    return replace(state, blocks={**state.blocks, block_hash: sealed}, states=states)


def _on_block(state: PowState, owner: Address, packet: Packet, now_ms: Millis) -> Transition:
    header_bytes, seal_bytes, body_bytes = packet.fields
    block, _ = decode_block(header_bytes, body_bytes)
    sealed = SealedBlock(block, seal_bytes)
    if block.hash in state.tree.blocks or block.hash in state.tree.orphans:
        return state, ()  # answers overlap
    if block.header.time_ms > now_ms + FUTURE_MS_MAX:
        raise WrongRound(f"a block from {block.header.time_ms - now_ms} ms ahead")
    if Hash(block.header.previous) in state.tree.blocks:
        return _connect(state, sealed)
    tree, change = insert(state.tree, sealed.get_header(), state.verify)
    state = _keep(replace(state, tree=tree), sealed, None)
    state = replace(state, blocks={h: kept for h, kept in state.blocks.items() if h not in change.dropped})
    return _ask(state, owner, now_ms)


def _connect(state: PowState, sealed: SealedBlock) -> Transition:
    """Insert a block whose parent is known, and then the orphans that waited for it.

    Raises subclasses of InvalidMessage for the block itself; an invalid orphan is only refused.
    """
    state, effects = _insert(state, sealed)
    waiting = [sealed.block.hash]
    while waiting:
        tree, children = pop_orphans(state.tree, waiting.pop())
        bodies = [state.blocks[child.hash] for child in children]
        state = replace(state, tree=tree)
        for child in bodies:
            try:
                state, more = _insert(state, child)
                waiting.append(child.block.hash)
            except InvalidMessage as error:
                more = (Refuse(error.code, str(error)),)
            effects += more
    return state, effects


def _insert(state: PowState, sealed: SealedBlock) -> Transition:
    """Check the seal first, which costs one hash, and then the rules of the chain."""
    tree, change = insert(state.tree, sealed.get_header(), state.verify)
    before = state.states[Hash(sealed.block.header.previous)]
    _, after = apply_block(before, sealed.block.header_bytes, sealed.block.body_bytes, state.miner.find_known)
    return _adopt(_keep(replace(state, tree=tree), sealed, after), change)


def _adopt(state: PowState, change: Change, effects: tuple[Effect, ...] = ()) -> Transition:
    """Move to the tip: undone messages wait for a block again, scores are for the new branch, a new search begins."""
    if not change.redone:
        return state, effects
    tree, chain = state.tree, state.states[state.tree.tip]
    finals = _list_new_finals(state, change.redone)
    miner = replace(state.miner, chain=chain)
    if chain.round.number != state.chain.round.number:
        miner = replace(miner, scoring=RoundScores())
    pool = mempool.prune(miner.mempool, state.final.round.number)
    if any(state.blocks[block_hash].block.header.phase is Phase.REVEAL for block_hash in change.undone):
        # The list of updates may have changed: scores of the old list would open no commitment.
        pool = mempool.remove(pool, frozenset(key for key, _ in pool.iterate() if key[1] in SCORE_KINDS))
    for block_hash in change.undone:
        pool = _put_back(pool, chain, state.blocks[block_hash].block)
    kept = tree.blocks.keys() | tree.orphans.keys()
    state = replace(
        state,
        miner=replace(miner, mempool=pool),
        states={block_hash: after for block_hash, after in state.states.items() if block_hash in tree.blocks},
        blocks={block_hash: sealed for block_hash, sealed in state.blocks.items() if block_hash in kept},
        told=tree.final,
    )
    effects += (Adopt(change.undone, change.redone, change.finals_undone), Mine(get_next_target(tree, tree.tip)))
    if finals:
        effects += (Finalise(finals),)
    effects += scoring.repeat_scores(state.miner)
    return _score(state, effects)


def _list_new_finals(state: PowState, redone: tuple[Hash, ...]) -> tuple[SealedBlock, ...]:
    """Return the blocks that are newly final; if final ones were undone, those that replace them."""
    finals = [block.header.hash for block in reversed(tuple(iterate_ancestors(state.tree, state.tree.final)))]
    new = finals[finals.index(state.told) + 1 :] if state.told in finals else [h for h in finals if h in redone]
    return tuple(state.blocks[block_hash] for block_hash in new)


def _put_back(pool: mempool.Mempool, chain: ChainState, block: Block) -> mempool.Mempool:
    """Put messages of an undone block back into the pool, if they are not there."""
    if block.header.phase not in (Phase.COMMIT, Phase.REVEAL):
        return pool
    for raw in block.decode_body().transactions:
        if raw in pool.by_bytes:
            continue
        envelope = open_envelope(raw, chain.chain)
        if envelope.sender not in mempool.get_pending(pool, Round(envelope.number), envelope.kind):
            key = get_key_for(chain, envelope.kind, envelope.sender)
            pool, _ = mempool.insert(pool, chain, verify_envelope(envelope, chain.chain, key))
    return pool


# --- catching up ------------------------------------------------------------------------------------------------------


def _ask(state: PowState, owner: Address, now_ms: Millis) -> Transition:
    """Ask the sender of a child for blocks from well below the final one, where the branches are likely to meet."""
    if state.asked_ms is not None and now_ms < state.asked_ms + ASK_MS:
        return state, ()
    identity = state.miner.config.identity
    height = max(1, state.final.height + 1 - state.tree.params.final_depth)
    raw = seal(Ask(height, owner, Want.BLOCKS, state.chain.round.number - 1), state.chain.chain, identity)
    return replace(state, asked_ms=now_ms), (state.miner.build_gossip(raw),)


def _on_ask(state: PowState, letter: Letter) -> Transition:
    me = state.miner.config.identity.address
    sender = find_validator(state.chain, letter.sender)
    if sender is None:
        raise UnknownSender(f"{letter.sender.hex()} is not a miner")
    message = verify_letter(letter, state.chain.chain, sender.public_key).message
    if not isinstance(message, Ask) or message.to != me:
        return state, ()
    topic = state.miner.topics.miner_to(me, letter.sender)
    wanted = [block.header.hash for block in get_branch(state.tree)[1:] if block.header.height >= message.height]
    return state, tuple(Publish(topic, encode_block(state.blocks[h])) for h in wanted[:ANSWER_BLOCKS_MAX])
