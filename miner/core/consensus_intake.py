"""Votes and proposals as they arrive: of this height, of the next one (kept until it begins), and of others."""

from __future__ import annotations

from flchain.base.errors import InvalidMessage, MalformedMessage, UnknownSender, WrongHeight
from flchain.base.frozen import replace
from flchain.base.types import Height
from flchain.consensus import bft
from flchain.ledger.block import Block, decode_block
from flchain.ledger.state import find_candidate, find_validator
from flchain.wire import messages
from flchain.wire.envelope import Letter, Verified, verify_letter
from flchain.wire.fields import Kind
from flchain.wire.messages import Body
from flchain.wire.packets import Packet, PacketType
from miner.core import agreement, answers
from miner.core.pools.height_log import read_proposal, read_vote
from miner.core.state import CheckedBlock, Early, MinerState, Transition
from miner.core.timeliness import is_timely
from miner.core.values import Effect, Refuse

BFT_KINDS = frozenset({Kind.VOTE, Kind.PROPOSAL})
EARLY_MAX = {Kind.VOTE: 8, Kind.PROPOSAL: 1}
"""How many consensus packets of the next height are kept for each validator, so that none can take another's place;
further ones are dropped, since gossip repeats them."""


def on_consensus(state: MinerState, letter: Letter, packet: Packet) -> Transition:
    """Take a vote or proposal of any height. Raises InvalidMessage's subclasses."""
    if letter.number != state.chain.height + 1:
        return _on_other_height(state, letter, packet)
    if packet.type is PacketType.PROPOSAL:
        return on_proposal(state, letter, *packet.fields[1:])
    return on_vote(state, letter)


# --- this height ------------------------------------------------------------------------------------------------------


def _verify(state: MinerState, letter: Letter) -> Verified:
    if letter.number != state.chain.height + 1:
        raise WrongHeight(f"height {letter.number}, agreement is on {state.chain.height + 1}")
    validator = find_validator(state.chain, letter.sender)
    if validator is None:
        raise UnknownSender(f"{letter.sender.hex()} is no validator")
    return verify_letter(letter, state.chain.chain, validator.public_key)


def on_vote(state: MinerState, letter: Letter) -> Transition:
    """Take a peer's vote at this height. Raises InvalidMessage's subclasses."""
    said = _verify(state, letter)
    if not isinstance(said.message, messages.Vote):
        raise MalformedMessage("not a vote")
    vote = read_vote(said.message, said.sender)
    after, effects = bft.on_vote(state.bft, vote)
    state = _forget_unused(replace(state, height_log=state.height_log.with_message(vote, said)), after)
    state, done = agreement.run_effects(state, after, effects)
    return agreement.join_height(state, done, Height(vote.height))


def on_proposal(state: MinerState, letter: Letter, header: bytes, body: bytes) -> Transition:
    """Take a peer's proposal with its block. A block that breaks a rule is voted nil.

    Raises InvalidMessage's subclasses.
    """
    said = _verify(state, letter)
    if not isinstance(said.message, messages.Proposal):
        raise MalformedMessage("not a proposal")
    block, decoded = decode_proposed(said.message, header, body)
    proposal = read_proposal(said.message, said.sender)
    checked = state.proposed.get(block.hash) or CheckedBlock(block, None)
    if checked.after is None and bft.is_near_and_due(state.bft, proposal):
        # Expensive: only for a validator whose turn it is.
        checked = agreement.check_block(state.chain, block, decoded, state.find_known)
    is_own_block = proposal.valid_view >= 0 or block.header.proposer == said.sender
    is_valid = checked.after is not None and is_own_block
    after, effects = bft.on_proposal(state.bft, proposal, is_valid, is_timely(state, checked))
    proposed, log = {**state.proposed, block.hash: checked}, state.height_log.with_message(proposal, said)
    state = _forget_unused(replace(state, proposed=proposed, height_log=log), after)
    state, done = agreement.run_effects(state, after, effects)
    return agreement.join_height(state, done, proposal.height)


def decode_proposed(message: messages.Proposal, header: bytes, body: bytes) -> tuple[Block, Body]:
    """Return the block that a proposal is about. Raises InvalidMessage's subclasses if these are other bytes."""
    block, decoded = decode_block(header, body)
    if block.hash != message.block_hash:
        raise MalformedMessage("the block is not the one that was proposed")
    return block, decoded


def _forget_unused(state: MinerState, after: bft.BftState) -> MinerState:
    """Keep the bytes of what consensus keeps, no more: its bounds are the bounds of this memory too."""
    if len(state.height_log.by_value) <= bft.count_kept(after) and len(state.proposed) <= len(after.proposals):
        return state  # nothing to forget, as nearly always: a full scan is expensive
    kept = bft.get_kept(after)
    proposed = {said.block_hash for said in kept if isinstance(said, bft.Proposal)}
    blocks = proposed | {after.valid_hash, after.locked_hash}
    return replace(
        state,
        height_log=state.height_log.select(kept),
        proposed={h: c for h, c in state.proposed.items() if h in blocks},
    )


# --- other heights ----------------------------------------------------------------------------------------------------


def _on_other_height(state: MinerState, letter: Letter, packet: Packet) -> Transition:
    """Keep a message of the next height; answer one of a final height with the newest header; refuse all others."""
    if letter.kind in BFT_KINDS and letter.number == state.chain.height + 2:
        return _keep_early(state, letter, packet)
    if letter.kind in BFT_KINDS and letter.number <= state.chain.height:
        return answers.repeat_tip(state)  # gossip about a final height: neither news nor anybody's fault
    raise WrongHeight("not for this height")


def _keep_early(state: MinerState, letter: Letter, packet: Packet) -> Transition:
    """Keep a whole packet, once, since gossip repeats it, and only if a candidate has signed it."""
    kept = [early for early in state.early if (early.said.sender, early.said.kind) == (letter.sender, letter.kind)]
    if any(early.packet == packet for early in kept) or len(kept) >= EARLY_MAX[letter.kind]:
        return state, ()
    candidate = find_candidate(state.chain, letter.sender)  # the next height may have validators of its own
    if candidate is None:
        raise UnknownSender(f"{letter.sender.hex()} is no candidate")
    if letter.kind is Kind.PROPOSAL and not candidate.power:
        return state, ()  # candidates are many and blocks are long; if it wins a seat now, it will repeat this
    verified = verify_letter(letter, state.chain.chain, candidate.public_key)
    if letter.kind is not Kind.PROPOSAL and packet.type is PacketType.PROPOSAL:
        # Otherwise a vote, of which several are kept, could bring megabytes along.
        raise MalformedMessage("a block without its proposal")
    if isinstance(verified.message, messages.Proposal):
        if packet.type is not PacketType.PROPOSAL:
            raise MalformedMessage("a proposal without its block")
        # Otherwise any body could take the right one's place.
        decode_proposed(verified.message, *packet.fields[1:])
    return replace(state, early=(*state.early, Early(verified, packet))), ()


def process_early(state: MinerState, effects: tuple[Effect, ...], before: Height) -> Transition:
    """Process the messages that arrived too early, once the height is beyond `before`."""
    if state.chain.height == before or not state.early:
        return state, effects
    due, state = state.early, replace(state, early=())
    for early in due:
        height = state.chain.height
        try:
            state, more = on_consensus(state, early.said, early.packet)
        except InvalidMessage as error:
            more = (Refuse(error.code, str(error)),)
        state, effects = process_early(state, effects + more, height)
    return state, effects
