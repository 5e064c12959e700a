"""The miner as a pure machine: step(state, event, now_ms) -> (state, effects). Nothing here waits, reads or sends."""

from __future__ import annotations

from flchain.base.errors import InvalidMessage, LedgerCorrupt
from flchain.base.frozen import replace
from flchain.base.types import Height, Millis, UnixMillis
from flchain.consensus import bft
from flchain.ledger.block import Block
from flchain.wire import messages
from flchain.wire.envelope import open_envelope, verify_envelope
from flchain.wire.topics import Topics
from miner.core import agreement, consensus_intake, transitions
from miner.core.pools.height_log import HeightLog, read_proposal, read_vote
from miner.core.state import MinerState, Transition
from miner.core.tip import Standing
from miner.core.values import Event, MinerConfig, Refuse


def build_miner_state(
    config: MinerConfig,
    standing: Standing,
    own_messages: tuple[bytes, ...] = (),
    own_blocks: tuple[Block, ...] = (),
) -> MinerState:
    """Return the state after a start or a crash: the ledger's chain, and what this node has signed at the next height.

    Raises LedgerCorrupt if the stored votes are damaged or contradict each other.
    """
    chain = standing.chain
    height = Height(chain.height + 1)
    log = HeightLog()
    for raw in own_messages:
        try:
            envelope = open_envelope(raw, chain.chain)
            own = verify_envelope(envelope, chain.chain, config.identity.public_key)
        except InvalidMessage as error:
            raise LedgerCorrupt(height, f"an own vote or proposal: {error}") from error
        if isinstance(own.message, messages.Vote):
            log = log.with_message(read_vote(own.message, own.sender), own)
        elif isinstance(own.message, messages.Proposal):
            log = log.with_message(read_proposal(own.message, own.sender), own)
    votes = tuple(said for said in log.by_value if isinstance(said, bft.Vote))
    proposals = tuple(said for said in log.by_value if isinstance(said, bft.Proposal))
    return MinerState(
        config=config,
        topics=Topics.of_chain(chain.chain),
        chain=chain,
        bft=bft.restore(agreement.build_bft_config(config, chain), height, votes, proposals),
        ledger=standing.ledger,
        proposed={block.hash: agreement.restore_block(chain, block) for block in own_blocks},
        height_log=log,
    )


def step(state: MinerState, event: Event, now_ms: Millis, clock_ms: UnixMillis) -> Transition:
    """Take one event; return the next state and what is wanted. A peer's fault becomes a Refuse and changes nothing.

    `now_ms` is of a monotonic clock and times what waits; `clock_ms` is the world's, for the time in blocks.
    """
    try:
        is_same = (state.now_ms, state.clock_ms) == (now_ms, clock_ms)
        timed = state if is_same else replace(state, now_ms=now_ms, clock_ms=clock_ms)
        after, effects = transitions.process_event(timed, event)
    except InvalidMessage as error:
        return state, (Refuse(error.code, str(error)),)
    return consensus_intake.process_early(after, effects, state.chain.height)
