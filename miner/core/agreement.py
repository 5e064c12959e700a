"""The miner's way to a final block: when to begin a height, what to propose, how to vote, what follows a decision."""

from __future__ import annotations

from flchain.base.errors import InvalidMessage, UnknownSender
from flchain.base.frozen import ByAddress, replace
from flchain.base.types import Address, Hash, Height, Millis, View
from flchain.consensus import bft
from flchain.ledger.block import Block, hash_header
from flchain.ledger.certificate import build_certificate, verify_certificate
from flchain.ledger.state import ChainState, find_account
from flchain.rules.blocks import (
    apply_block,
    build_block,
    get_proposer,
    process_block,
    select_orders,
    select_transactions,
)
from flchain.rules.phases import get_expected, get_missing, get_present
from flchain.wire import messages
from flchain.wire.chunks import Assembly
from flchain.wire.envelope import (
    HEADER_BYTES_MAX,
    Known,
    Letter,
    Verified,
    decode_struct,
    know_nothing,
    seal_verified,
    verify_letter,
)
from flchain.wire.messages import Body, Header, Phase
from flchain.wire.packets import PacketType, encode_packet
from miner.core import announce, scoring
from miner.core.pools import mempool, order_pool
from miner.core.pools.height_log import HeightLog, read_vote
from miner.core.state import CheckedBlock, MinerState, Patience, RoundScores, Transition, Uploads, Waiting, is_paused
from miner.core.timeliness import get_pending, is_timely, process_equivocation
from miner.core.tip import LedgerSummary, add_block
from miner.core.values import Effect, MinerConfig, Note, Publish, Refuse, SaveBlock, SaveVote, StartTimer, Timer

GOSSIP_MS = 1_000
GOSSIP_DOUBLINGS_MAX = 3
"""Within a height each repeat waits twice as long, up to 8 s: repeats must not slow down a slow height further."""


def build_bft_config(config: MinerConfig, chain: ChainState) -> bft.BftConfig:
    """Return consensus at the height after `chain`: who votes, who leads, how long to wait."""
    params = chain.params
    return bft.BftConfig(
        me=config.identity.address,
        validators=bft.ValidatorSet(tuple((v.address, v.power) for v in chain.validators)),
        proposer_of=lambda view: get_proposer(chain, view),
        timeout_propose_ms=Millis(params.timeout_propose_ms),
        timeout_vote_ms=Millis(params.timeout_vote_ms),
        timeout_growth_ms=Millis(params.timeout_growth_ms),
    )


# --- when to begin ----------------------------------------------------------------------------------------------------


def advance_agreement(state: MinerState) -> Transition:
    """Begin agreement on the next block if it is worth one: the phase can close, or waiting has an end."""
    if is_paused(state):
        return state, ()
    if state.bft.is_started:
        view = state.waiting.proposing_view
        return _propose(state, view) if view is not None else (state, ())
    if _is_worth_a_block(state):
        return start(state)
    phase, patience = state.chain.round.phase, state.waiting.patience
    has_begun = bool(get_pending(state) or get_present(state.chain))
    if phase is Phase.COMMIT and has_begun and patience is not Patience.FOR_DEVICES:
        # Devices that train have their time from the first commitment on: orders or a lone peer must not use it up.
        return _start_patience(state, Patience.FOR_DEVICES, has_begun)
    if patience is not Patience.IDLE:
        return state, ()
    # The other phases go on by themselves and carry orders along; only in COMMIT can orders begin a wait.
    if phase is Phase.COMMIT and not has_begun and not select_orders(state.chain, state.orders.values()):
        return state, ()
    return _start_patience(state, Patience.RUNNING, has_begun)


def _start_patience(state: MinerState, patience: Patience, has_begun: bool) -> Transition:
    """Start the time that the others have; after it a block without them is good enough."""
    params, phase = state.chain.params, state.chain.round.phase
    # Training takes its time, and so may the first scores on a slow server; the rest is quick. A device that is not in
    # the first block of commitments gets little more time.
    is_first = state.chain.round.heights == 0
    is_slow = is_first if phase is Phase.COMMIT else phase is Phase.SCORE and not has_begun
    patience_ms = params.commit_patience_ms if is_slow else params.patience_ms
    state = replace(state, waiting=replace(state.waiting, patience=patience))
    return state, (StartTimer(Timer.PATIENCE, patience_ms),)


def end_patience(state: MinerState) -> Transition:
    """Leave out those whose messages are still missing."""
    return advance_agreement(replace(state, waiting=replace(state.waiting, patience=Patience.OVER)))


def _is_worth_a_block(state: MinerState) -> bool:
    """True if a block would close the phase, or waiting for one that does has lasted long enough."""
    chain = state.chain
    if chain.round.phase is Phase.OPEN or state.waiting.patience is Patience.OVER:
        return True
    # The pool holds nothing of this phase that the rules would refuse.
    pending, missing = get_pending(state), get_missing(chain)
    is_whole = len(missing) <= len(pending) and all(address in pending for address in missing)
    return is_whole and bool(get_expected(chain))


def start(state: MinerState) -> Transition:
    """Begin agreement at this height, if it has not begun."""
    if state.bft.is_started or is_paused(state):
        return state, ()
    untimely = frozenset(h for h, checked in state.proposed.items() if not is_timely(state, checked))
    return run_effects(state, *bft.on_start(state.bft, untimely), extra=(StartTimer(Timer.GOSSIP, GOSSIP_MS),))


def join_height(state: MinerState, effects: tuple[Effect, ...], height: Height) -> Transition:
    """Begin the height that peers have begun, if more than a third of the power has: then one of them is honest.

    A single peer may lie, to use up the height before slow devices are in, or it may be the only one to know of a
    message: then this node begins after its own patience. If the peer's message has just decided the height, nothing
    is left to do.
    """
    if state.bft.height != height or state.bft.is_started or is_paused(state):
        return state, effects
    if bft.is_begun_by_one_honest(state.bft):
        state, more = start(state)
    elif state.waiting.patience is Patience.IDLE:
        state, more = _start_patience(state, Patience.RUNNING, True)
    else:
        more = ()
    return state, effects + more


# --- what consensus wants ---------------------------------------------------------------------------------------------


def run_effects(
    state: MinerState, after: bft.BftState, effects: tuple[bft.Effect, ...], extra: tuple[Effect, ...] = ()
) -> Transition:
    """Turn what consensus wants into the miner's own effects, in order."""
    state = replace(state, bft=after)
    done: tuple[Effect, ...] = extra
    for effect in effects:
        match effect:
            case bft.Propose(view):
                state, more = _propose(state, view)
            case bft.SendProposal(proposal):
                state, more = _send_proposal(state, proposal)
            case bft.CastVote(vote):
                state, more = _cast_vote(state, vote)
            case bft.ScheduleTimeout(timeout, timeout_ms):
                more = (StartTimer(timeout, timeout_ms),)
            case bft.Equivocation(first, second):
                state, more = process_equivocation(state, first, second)
            case bft.Decide(view, block_hash):
                state, more = _decide(state, view, block_hash)
        done += more
    return state, done


def _propose(state: MinerState, view: View, is_due: bool = False) -> Transition:
    """Build a block. One that cannot close the phase first waits half a proposal's timeout for what may arrive."""
    if not is_due and not _is_worth_a_block(state):
        is_waiting = state.waiting.proposing_view == view
        timer = StartTimer(Timer.PROPOSE, state.chain.params.timeout_propose_ms // 2)
        state = replace(state, waiting=replace(state.waiting, proposing_view=view))
        return state, (() if is_waiting else (timer,))
    transactions = select_transactions(state.chain, get_pending(state).values())
    orders = select_orders(state.chain, state.orders.values())
    block, after = build_block(state.chain, state.config.identity.address, transactions, orders, state.clock_ms)
    said = {one.raw: one for one in (*transactions, *orders)}
    proposed = {**state.proposed, block.hash: CheckedBlock(block, after, said)}
    state = replace(state, proposed=proposed, waiting=replace(state.waiting, proposing_view=None))
    return run_effects(state, *bft.on_value(state.bft, view, block.hash))


def propose_now(state: MinerState) -> Transition:
    """Propose what has arrived: the wait for more is over."""
    view = state.waiting.proposing_view
    return _propose(state, view, is_due=True) if view is not None else (state, ())


def _send_proposal(state: MinerState, proposal: bft.Proposal) -> Transition:
    message = messages.Proposal(proposal.height, proposal.view, proposal.valid_view, proposal.block_hash)
    state, said = _sign(state, proposal, message)
    block = state.proposed[proposal.block_hash].block
    return state, (SaveVote(proposal.height, said.raw, block), _publish_proposal(state, proposal))


def _sign(
    state: MinerState, value: bft.Vote | bft.Proposal, message: messages.AnyMessage
) -> tuple[MinerState, Verified]:
    """Sign an own vote or proposal and log it; one that is logged already is not signed again."""
    log = state.height_log
    said = log.by_value.get(value) or seal_verified(message, state.chain.chain, state.config.identity)
    return replace(state, height_log=log.with_message(value, said)), said


def _publish_proposal(state: MinerState, proposal: bft.Proposal) -> Publish:
    block = state.proposed[proposal.block_hash].block
    raw = state.height_log.by_value[proposal].raw
    packet = encode_packet(PacketType.PROPOSAL, raw, block.header_bytes, block.body_bytes)
    return Publish(state.topics.miner_bft(state.config.identity.address), packet)


def _cast_vote(state: MinerState, vote: bft.Vote) -> Transition:
    message = messages.Vote(vote.height, vote.view, int(vote.type), vote.block_hash)
    state, said = _sign(state, vote, message)
    checked = state.proposed.get(vote.block_hash) if vote.block_hash is not None else None
    save = SaveVote(vote.height, said.raw, checked.block if checked else None)
    return state, (save, state.build_gossip(said.raw))


def _decide(state: MinerState, view: View, block_hash: Hash) -> Transition:
    votes = bft.get_certificate_votes(state.bft, view, block_hash)
    signatures = ((vote.validator, state.height_log.by_value[vote].envelope.signature) for vote in votes)
    certificate = build_certificate(state.chain.validators, view, signatures)
    checked = state.proposed[block_hash]
    assert checked.after is not None, "consensus decides valid blocks only"
    return append_block(state, checked.block, checked.after, certificate)


def on_gossip_timer(state: MinerState) -> Transition:
    """Nothing is final yet: repeat what the others may lack, their own messages and this node's."""
    if not state.bft.is_started:
        return state, ()
    effects: list[Effect] = []
    for said in bft.get_gossip(state.bft):
        if isinstance(said, bft.Proposal):
            effects.append(_publish_proposal(state, said))
        else:
            effects.append(state.build_gossip(state.height_log.by_value[said].raw))
    waiting = replace(state.waiting, gossips=state.waiting.gossips + 1)
    doublings = min(waiting.gossips, GOSSIP_DOUBLINGS_MAX)
    return replace(state, waiting=waiting), (*effects, StartTimer(Timer.GOSSIP, GOSSIP_MS << doublings))


# --- what follows a decision ------------------------------------------------------------------------------------------


def append_block(state: MinerState, block: Block, after: ChainState, certificate: bytes) -> Transition:
    """Go to the next height: store the final block, publish it to devices and peers, score what is new."""
    note = Note("final", {"height": after.height, "round": block.header.round, "phase": block.header.phase.name})
    ledger = add_block(state.ledger, block, certificate, state.chain, after)
    return enter_state(state, after, ledger, SaveBlock(block, certificate), note)


def enter_state(state: MinerState, after: ChainState, ledger: LedgerSummary, save: Effect, note: Note) -> Transition:
    """Take over a new final state and drop what was about earlier heights."""
    is_new_round = after.round.number != state.chain.round.number
    pool = mempool.prune(state.mempool, after.round.number)
    refused: tuple[InvalidMessage, ...] = ()
    if is_new_round or after.round.phase is not state.chain.round.phase:
        pool, refused = mempool.drop_refused(pool, after)
    state = replace(
        state,
        chain=after,
        bft=bft.BftState(build_bft_config(state.config, after), Height(after.height + 1)),
        ledger=ledger,
        mempool=pool,
        orders=order_pool.prune(state.orders, after) if state.orders else state.orders,
        proposed={},
        height_log=HeightLog(),
        waiting=Waiting(),
        catch_up=replace(state.catch_up, trust=None),
        scoring=RoundScores() if is_new_round else state.scoring,
        uploads=_forget_whole(state.uploads) if is_new_round else state.uploads,
        answers=replace(state.answers, tip_ms=state.now_ms),
    )
    effects: tuple[Effect, ...] = (save, *announce.publish_tip(state), note)
    effects += tuple(Refuse(error.code, str(error)) for error in refused)
    state, more = scoring.process_phase(state)
    state, begun = advance_agreement(state)
    return state, effects + more + begun


def _forget_whole(uploads: Uploads) -> Uploads:
    """In a new round only the packets that are not whole yet may still matter."""
    partial = {owner: Assembly(known.partial) for owner, known in uploads.assemblies.items() if known.partial}
    return replace(uploads, assemblies=ByAddress(partial))


def on_final_block(state: MinerState, header: bytes, certificate: bytes, body: bytes) -> Transition:
    """Take a block that the others have made final without this node. Raises InvalidMessage's subclasses."""
    # First, as it is cheap: a block takes long, and any peer can send one that is not final.
    height = Height(decode_struct(header, Header, HEADER_BYTES_MAX).height)
    verify_certificate_here(state, height, hash_header(header), certificate)
    block, after = apply_block(state.chain, header, body, state.find_known)
    return append_block(state, block, after, certificate)


# --- checks -----------------------------------------------------------------------------------------------------------


def verify_known(chain: ChainState, letter: Letter) -> Verified:
    """Verify a message of anybody with an account. Raises UnknownSender, BadSignature or MalformedMessage."""
    account = find_account(chain, letter.sender)
    if account is None:
        raise UnknownSender(f"{letter.sender.hex()} has no account")
    return verify_letter(letter, chain.chain, account.public_key)


def verify_certificate_here(state: MinerState, height: Height, block_hash: Hash, certificate: bytes) -> None:
    """Check a certificate of the present validators; votes that were verified already are not checked again.

    Raises BadCertificate.
    """

    def is_heard(vote: messages.Vote, sender: Address, signature: bytes) -> bool:
        said = state.height_log.by_value.get(read_vote(vote, sender))
        return said is not None and said.envelope.signature == signature

    chain = state.chain
    verify_certificate(chain.chain, chain.validators, height, block_hash, certificate, known=is_heard)


def check_block(chain: ChainState, block: Block, body: Body, known: Known = know_nothing) -> CheckedBlock:
    """Return the block with the state after it, or without one if it breaks a rule of the chain."""
    try:
        after, said = process_block(chain, block, body, known)
    except InvalidMessage:
        return CheckedBlock(block, None)
    return CheckedBlock(block, after, {one.raw: one for one in said})


def restore_block(chain: ChainState, block: Block) -> CheckedBlock:
    """Return the same for a block from this node's own disk."""
    try:
        return CheckedBlock(*apply_block(chain, block.header_bytes, block.body_bytes))
    except InvalidMessage:
        return CheckedBlock(block, None)
