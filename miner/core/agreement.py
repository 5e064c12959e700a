"""The miner's way to a final block: when to start a height, what to propose, how to vote, what follows the decision."""

from __future__ import annotations

from flchain.base.errors import InvalidMessage, MalformedMessage, UnknownSender, WrongRound
from flchain.base.frozen import Growing, replace
from flchain.base.types import Address, Hash, Height, Millis, View
from flchain.consensus import bft
from flchain.ledger.certificate import build_certificate, verify_certificate
from flchain.ledger.state import ChainState, find_account, find_validator
from flchain.rules.blocks import (
    Block,
    apply_block,
    build_block,
    decode_block,
    get_proposer,
    process_block,
    select_orders,
    select_transactions,
)
from flchain.rules.phases import get_expected, get_missing, get_present
from flchain.wire import messages
from flchain.wire.chunks import Assembly
from flchain.wire.envelope import Known, Letter, Verified, know_nothing, seal_verified, verify_letter
from flchain.wire.messages import Body, Phase
from flchain.wire.packets import PacketType, encode_packet
from miner.core import announce, mempool, order_pool, scoring
from miner.core.timeliness import accuse, get_pending, is_timely
from miner.core.tip import Tip, add_change, add_delta, build_tip
from miner.core.values import (
    Candidate,
    Effect,
    MinerConfig,
    MinerState,
    Note,
    Publish,
    Refuse,
    SaveBlock,
    SaveVote,
    StartTimer,
    Timer,
)
from miner.core.words import Words

GOSSIP_MS = 1_000
GOSSIP_DOUBLINGS_MAX = 3
"""Within a height each repeat waits twice as long, up to 8 s: repeats must not slow down further what is only slow."""
Transition = tuple[MinerState, tuple[Effect, ...]]


def build_bft_config(config: MinerConfig, chain: ChainState) -> bft.BftConfig:
    """Consensus at the height after `chain`: who votes, who leads, how long to wait."""
    params = chain.params
    return bft.BftConfig(
        me=config.identity.address,
        validators=bft.ValidatorSet(tuple((v.address, v.power) for v in chain.validators)),
        proposer_of=lambda view: get_proposer(chain, view),
        timeout_propose_ms=Millis(params.timeout_propose_ms),
        timeout_vote_ms=Millis(params.timeout_vote_ms),
        timeout_growth_ms=Millis(params.timeout_growth_ms),
    )


def is_paused(state: MinerState) -> bool:
    """True once the rounds that the operator asked for are settled."""
    return 0 < state.config.until_round < state.chain.round.number


def consider(state: MinerState) -> Transition:
    """Start agreement on the next block if it is worth one: the phase can close, or waiting has an end."""
    if is_paused(state):
        return state, ()
    if state.bft.is_started:
        return _propose(state, state.proposing_view) if state.proposing_view is not None else (state, ())
    phase = state.chain.round.phase
    if _is_worth_a_block(state):
        return start(state)
    has_begun = bool(get_pending(state) or get_present(state.chain))
    if phase is Phase.COMMIT and has_begun and not state.is_patience_for_devices:
        # Devices that train have their time from the first commitment on: orders or a lone peer must not use it up.
        state = replace(state, is_patience_running=False, is_patience_for_devices=True)
    if state.is_patience_running:
        return state, ()
    # The other phases go on by themselves, and orders ride along: there they hurry nobody.
    if phase is Phase.COMMIT and not has_begun and not select_orders(state.chain, state.orders.values()):
        return state, ()
    return _be_patient(state, has_begun)


def _be_patient(state: MinerState, has_begun: bool) -> Transition:
    """From now on the others have so long; then a block without them will do."""
    if state.is_patience_running:
        return state, ()
    params, phase = state.chain.params, state.chain.round.phase
    # Training takes as long as it takes, and so may the first scores on a slow server; the rest is quick. Who is not in
    # after a first block of commitments has little more time.
    is_first = state.chain.round.heights == 0
    is_slow = is_first if phase is Phase.COMMIT else phase is Phase.SCORE and not has_begun
    patience_ms = params.commit_patience_ms if is_slow else params.patience_ms
    return replace(state, is_patience_running=True), (StartTimer(Timer.PATIENCE, patience_ms),)


def _is_worth_a_block(state: MinerState) -> bool:
    """True if a block would close the phase, or waiting for one that does has lasted long enough."""
    chain = state.chain
    if chain.round.phase is Phase.OPEN or state.is_patience_over:
        return True
    # The pool holds nothing of this phase that the rules would refuse.
    pending, missing = get_pending(state), get_missing(chain)
    is_whole = len(missing) <= len(pending) and all(address in pending for address in missing)
    return is_whole and bool(get_expected(chain))


def verify_known(chain: ChainState, letter: Letter) -> Verified:
    """A message of anybody known. Raises UnknownSender, BadSignature or MalformedMessage."""
    account = find_account(chain, letter.sender)
    if account is None:
        raise UnknownSender(f"{letter.sender.hex()} has no account")
    return verify_letter(letter, chain.chain, account.public_key)


def start(state: MinerState) -> Transition:
    """Begin agreement at this height, if it has not begun."""
    if state.bft.is_started or is_paused(state):
        return state, ()
    untimely = frozenset(h for h, candidate in state.candidates.items() if not is_timely(state, candidate))
    return carry_out(state, *bft.on_start(state.bft, untimely), extra=(StartTimer(Timer.GOSSIP, GOSSIP_MS),))


def carry_out(
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
                state, more = accuse(state, first, second)
            case bft.Decide(view, block_hash):
                state, more = _decide(state, view, block_hash)
        done += more
    return state, done


def _propose(state: MinerState, view: View, is_due: bool = False) -> Transition:
    """Build a block; one that cannot close the phase waits half of the others' patience for what is under way."""
    if not is_due and not _is_worth_a_block(state):
        is_waiting = state.proposing_view == view
        timer = StartTimer(Timer.PROPOSE, state.chain.params.timeout_propose_ms // 2)
        return replace(state, proposing_view=view), (() if is_waiting else (timer,))
    transactions = select_transactions(state.chain, get_pending(state).values())
    orders = select_orders(state.chain, state.orders.values())
    block, after = build_block(state.chain, state.config.identity.address, transactions, orders, state.clock_ms)
    said = {one.raw: one for one in (*transactions, *orders)}
    candidates = {**state.candidates, block.hash: Candidate(block, after, said)}
    state = replace(state, candidates=candidates, proposing_view=None)
    return carry_out(state, *bft.on_value(state.bft, view, block.hash))


def on_propose_timer(state: MinerState) -> Transition:
    """What was under way has not come: propose what is there."""
    return _propose(state, state.proposing_view, is_due=True) if state.proposing_view is not None else (state, ())


def _send_proposal(state: MinerState, proposal: bft.Proposal) -> Transition:
    message = messages.Proposal(proposal.height, proposal.view, proposal.valid_view, proposal.block_hash)
    state, said = _say(state, proposal, message)
    block = state.candidates[proposal.block_hash].block
    return state, (SaveVote(proposal.height, said.raw, block), _publish_proposal(state, proposal))


def _say(
    state: MinerState, value: bft.Vote | bft.Proposal, message: messages.AnyMessage
) -> tuple[MinerState, Verified]:
    """This node's word, signed once."""
    said = state.words.by_value.get(value) or seal_verified(message, state.chain.chain, state.config.identity)
    return replace(state, words=state.words.with_word(value, said)), said


def _publish_proposal(state: MinerState, proposal: bft.Proposal) -> Publish:
    block = state.candidates[proposal.block_hash].block
    raw = state.words.by_value[proposal].raw
    packet = encode_packet(PacketType.PROPOSAL, raw, block.header_bytes, block.body_bytes)
    return Publish(state.topics.miner_bft(state.config.identity.address), packet)


def _cast_vote(state: MinerState, vote: bft.Vote) -> Transition:
    message = messages.Vote(vote.height, vote.view, int(vote.type), vote.block_hash)
    state, said = _say(state, vote, message)
    candidate = state.candidates.get(vote.block_hash) if vote.block_hash is not None else None
    return state, (SaveVote(vote.height, said.raw, candidate.block if candidate else None), state.tell_miners(said.raw))


def _decide(state: MinerState, view: View, block_hash: Hash) -> Transition:
    votes = bft.get_certificate_votes(state.bft, view, block_hash)
    signatures = ((vote.validator, state.words.by_value[vote].envelope.signature) for vote in votes)
    certificate = build_certificate(state.chain.validators, view, signatures)
    candidate = state.candidates[block_hash]
    assert candidate.after is not None, "consensus decides valid blocks only"
    return advance(state, candidate.block, candidate.after, certificate)


def advance(state: MinerState, block: Block, after: ChainState, certificate: bytes) -> Transition:
    """Go to the next height: store the final block, tell devices and peers, score what is new."""
    note = Note("final", {"height": after.height, "round": block.header.round, "phase": block.header.phase.name})
    state = replace(state, deltas=add_delta(state.deltas, state.chain, after))
    return stand_at(
        state, after, build_tip(block, certificate, state.chain, after), SaveBlock(block, certificate), note
    )


def stand_at(state: MinerState, after: ChainState, tip: Tip, save: Effect, note: Note) -> Transition:
    """Take up a new final state: what was about the heights before is done."""
    is_new_round = after.round.number != state.chain.round.number
    pool = mempool.prune(state.mempool, after.round.number)
    refused: tuple[InvalidMessage, ...] = ()
    if is_new_round or after.round.phase is not state.chain.round.phase:
        pool, refused = mempool.drop_refused(pool, after)
    state = replace(
        state,
        chain=after,
        bft=bft.BftState(build_bft_config(state.config, after), Height(after.height + 1)),
        mempool=pool,
        orders=order_pool.prune(state.orders, after) if state.orders else state.orders,
        candidates={},
        words=Words(),
        proposing_view=None,
        gossips=0,
        tip_told_ms=state.now_ms,
        is_patience_over=False,
        is_patience_running=False,
        is_patience_for_devices=False,
        patience_extensions=0,
        assemblies=_forget_whole(state.assemblies) if is_new_round else state.assemblies,
        tip=tip,
        changes=add_change(state.changes, after.height, tip),
        trust=None,
        scores=Growing() if is_new_round else state.scores,
        scores_asked=Growing() if is_new_round else state.scores_asked,
    )
    effects: tuple[Effect, ...] = (save, *announce.publish_tip(state), note)
    effects += tuple(Refuse(error.code, str(error)) for error in refused)
    state, more = scoring.process_phase(state)
    state, begun = consider(state)
    return state, effects + more + begun


def _forget_whole(assemblies: dict[Address, Assembly]) -> dict[Address, Assembly]:
    """Of the packets that came in chunks only those that are not whole yet may still matter in a new round."""
    return {owner: Assembly(assembly.partial) for owner, assembly in assemblies.items() if assembly.partial}


def _verify(state: MinerState, letter: Letter) -> Verified:
    if letter.number != state.chain.height + 1:
        raise WrongRound(f"height {letter.number}, agreement is on {state.chain.height + 1}")
    validator = find_validator(state.chain, letter.sender)
    if validator is None:
        raise UnknownSender(f"{letter.sender.hex()} is no validator")
    return verify_letter(letter, state.chain.chain, validator.public_key)


def read_vote(message: messages.Vote, sender: Address) -> bft.Vote:
    """A vote as consensus knows it."""
    block_hash = Hash(message.block_hash) if message.block_hash is not None else None
    return bft.Vote(Height(message.height), View(message.view), bft.VoteType(message.step), block_hash, sender)


def read_proposal(message: messages.Proposal, sender: Address) -> bft.Proposal:
    """A proposal as consensus knows it."""
    height, view = Height(message.height), View(message.view)
    return bft.Proposal(height, view, message.valid_view, Hash(message.block_hash), sender)


def on_vote(state: MinerState, letter: Letter) -> Transition:
    """A peer's vote at this height. Raises InvalidMessage's subclasses."""
    said = _verify(state, letter)
    if not isinstance(said.message, messages.Vote):
        raise MalformedMessage("not a vote")
    vote = read_vote(said.message, said.sender)
    after, effects = bft.on_vote(state.bft, vote)
    state = _forget_unused(replace(state, words=state.words.with_word(vote, said)), after)
    state, done = carry_out(state, after, effects)
    return _start_too(state, done, Height(vote.height))


def on_proposal(state: MinerState, letter: Letter, header: bytes, body: bytes) -> Transition:
    """A peer's proposal with its block. Raises InvalidMessage's subclasses; a block that breaks a rule is voted nil."""
    said = _verify(state, letter)
    if not isinstance(said.message, messages.Proposal):
        raise MalformedMessage("not a proposal")
    block, decoded = decode_proposed(said.message, header, body)
    proposal = read_proposal(said.message, said.sender)
    candidate = state.candidates.get(block.hash) or Candidate(block, None)
    if candidate.after is None and bft.is_near_and_due(state.bft, proposal):
        # Expensive: only for a validator whose turn it is.
        candidate = check_block(state.chain, block, decoded, state.find_known)
    is_own_block = proposal.valid_view >= 0 or block.header.proposer == said.sender
    is_valid = candidate.after is not None and is_own_block
    after, effects = bft.on_proposal(state.bft, proposal, is_valid, is_timely(state, candidate))
    candidates, words = {**state.candidates, block.hash: candidate}, state.words.with_word(proposal, said)
    state = _forget_unused(replace(state, candidates=candidates, words=words), after)
    state, done = carry_out(state, after, effects)
    return _start_too(state, done, proposal.height)


def decode_proposed(message: messages.Proposal, header: bytes, body: bytes) -> tuple[Block, Body]:
    """The block that a proposal is about. Raises InvalidMessage's subclasses if these are other bytes."""
    block, decoded = decode_block(header, body)
    if block.hash != message.block_hash:
        raise MalformedMessage("the block is not the one that was proposed")
    return block, decoded


def _forget_unused(state: MinerState, after: bft.BftState) -> MinerState:
    """Keep the bytes of what consensus keeps, no more: its bounds are the bounds of this memory too."""
    if len(state.words.by_value) <= bft.count_kept(after) and len(state.candidates) <= len(after.proposals):
        return state  # nothing to forget, as nearly always: the look through everything is dear
    kept = bft.get_kept(after)
    proposed = {said.block_hash for said in kept if isinstance(said, bft.Proposal)}
    blocks = proposed | {after.valid_hash, after.locked_hash}
    return replace(
        state,
        words=state.words.select(kept),
        candidates={h: c for h, c in state.candidates.items() if h in blocks},
    )


def check_block(chain: ChainState, block: Block, body: Body, known: Known = know_nothing) -> Candidate:
    """The block with the state after it, or without one if it breaks a rule of the chain."""
    try:
        after, said = process_block(chain, block, body, known)
    except InvalidMessage:
        return Candidate(block, None)
    return Candidate(block, after, {one.raw: one for one in said})


def restore_block(chain: ChainState, block: Block) -> Candidate:
    """The same for a block from this node's own disk."""
    try:
        return Candidate(*apply_block(chain, block.header_bytes, block.body_bytes))
    except InvalidMessage:
        return Candidate(block, None)


def _start_too(state: MinerState, effects: tuple[Effect, ...], height: Height) -> Transition:
    """Peers have begun this height: with more than a third of the power one of them is honest, and it is time.

    One alone may lie, to use up the height before slow devices are in, or be the only one to know of a message: then
    this node begins after its own patience. Nothing is to be done if what a peer said has just decided the height.
    """
    if state.bft.height != height or state.bft.is_started or is_paused(state):
        return state, effects
    state, more = start(state) if bft.is_begun_by_one_honest(state.bft) else _be_patient(state, True)
    return state, effects + more


def verify_certificate_here(state: MinerState, height: Height, block_hash: Hash, certificate: bytes) -> None:
    """Check a certificate of this miner's validators; most of its votes were heard already. Raises BadCertificate."""

    def is_heard(vote: messages.Vote, sender: Address, signature: bytes) -> bool:
        said = state.words.by_value.get(read_vote(vote, sender))
        return said is not None and said.envelope.signature == signature

    chain = state.chain
    verify_certificate(chain.chain, chain.validators, height, block_hash, certificate, known=is_heard)


def on_final_block(state: MinerState, header: bytes, certificate: bytes, body: bytes) -> Transition:
    """A block that the others have made final without this node. Raises InvalidMessage's subclasses."""
    block, after = apply_block(state.chain, header, body, state.find_known)
    verify_certificate_here(state, after.height, block.hash, certificate)
    return advance(state, block, after, certificate)


def on_gossip_timer(state: MinerState) -> Transition:
    """Nothing final for a while: say again what the others may lack, in their words and this node's own."""
    if not state.bft.is_started:
        return state, ()
    effects: list[Effect] = []
    for said in bft.get_gossip(state.bft):
        if isinstance(said, bft.Proposal):
            effects.append(_publish_proposal(state, said))
        else:
            effects.append(state.tell_miners(state.words.by_value[said].raw))
    doublings = min(state.gossips + 1, GOSSIP_DOUBLINGS_MAX)
    return replace(state, gossips=state.gossips + 1), (*effects, StartTimer(Timer.GOSSIP, GOSSIP_MS << doublings))
