"""The miner as a pure machine: step(state, event, now_ms) -> (state, effects). Nothing here waits, reads or sends."""

from __future__ import annotations

from collections.abc import Callable

from flchain.base.errors import (
    BadCommitment,
    DuplicateMessage,
    InvalidMessage,
    LedgerCorrupt,
    MalformedMessage,
    MalformedUpdate,
    UnknownSender,
    WrongRound,
)
from flchain.base.frozen import replace
from flchain.base.types import Address, Height, Millis, UnixMillis
from flchain.consensus import bft
from flchain.ledger.limits import compute_update_bytes_max
from flchain.ledger.state import Device, find_candidate, find_device
from flchain.rules.blocks import ORDER_KINDS, Block
from flchain.rules.phases import PHASE_KINDS
from flchain.rules.transactions import DEVICE_KINDS, SCORE_KINDS, check_transaction, get_key_for, is_in_chain
from flchain.wire import messages
from flchain.wire.envelope import Letter, Verified, open_envelope, open_known, seal, verify_envelope, verify_letter
from flchain.wire.messages import Kind, Phase
from flchain.wire.packets import Packet, PacketType, decode_packet, encode_packet
from flchain.wire.topics import Listener, Topics, list_accepted, read_topic_channel, read_topic_owner
from miner.core import agreement, announce, answers, mempool, missing_chunks, order_pool, scoring, state_sync
from miner.core.tip import Standing
from miner.core.values import (
    Connected,
    Early,
    Effect,
    Event,
    MinerConfig,
    MinerState,
    Note,
    PacketReceived,
    Publish,
    Refuse,
    ScoreComputed,
    StartTimer,
    Timer,
    TimerFired,
)
from miner.core.words import Words

EARLY_MAX = {Kind.VOTE: 8, Kind.PROPOSAL: 1}
"""Consensus packets of the next height that are kept of one validator, so that none can take the others' places;
further ones are dropped, since gossip repeats them."""
BFT_KINDS = frozenset({Kind.VOTE, Kind.PROPOSAL})
REFUSED_FOR_GOOD = (WrongRound, DuplicateMessage, BadCommitment, MalformedUpdate)
"""A device that repeats such a message will hear the same again."""

Transition = tuple[MinerState, tuple[Effect, ...]]


def build_miner_state(
    config: MinerConfig,
    standing: Standing,
    own_messages: tuple[bytes, ...] = (),
    own_blocks: tuple[Block, ...] = (),
) -> MinerState:
    """The state after a start or a crash: the chain by the ledger, and what this node said at the next height.

    Raises LedgerCorrupt if the stored votes are damaged or contradict each other.
    """
    chain = standing.chain
    height = Height(chain.height + 1)
    words = Words()
    for raw in own_messages:
        try:
            envelope = open_envelope(raw, chain.chain)
            own = verify_envelope(envelope, chain.chain, config.identity.public_key)
        except InvalidMessage as error:
            raise LedgerCorrupt(height, f"an own vote or proposal: {error}") from error
        if isinstance(own.message, messages.Vote):
            words = words.with_word(agreement.read_vote(own.message, own.sender), own)
        elif isinstance(own.message, messages.Proposal):
            words = words.with_word(agreement.read_proposal(own.message, own.sender), own)
    votes = tuple(said for said in words.by_value if isinstance(said, bft.Vote))
    proposals = tuple(said for said in words.by_value if isinstance(said, bft.Proposal))
    candidates = {block.hash: agreement.restore_block(chain, block) for block in own_blocks}
    return MinerState(
        config=config,
        topics=Topics.of_chain(chain.chain),
        chain=chain,
        bft=bft.restore(agreement.build_bft_config(config, chain), height, votes, proposals),
        candidates=candidates,
        words=words,
        tip=standing.tip,
        changes=standing.changes,
        deltas=standing.deltas,
        base=standing.base,
    )


def step(state: MinerState, event: Event, now_ms: Millis, clock_ms: UnixMillis) -> Transition:
    """One event in, the next state and what is wanted out. A peer's fault becomes a Refuse and changes nothing.

    `now_ms` is of a monotonic clock and times what waits; `clock_ms` is the world's, for the time in blocks.
    """
    try:
        is_same = (state.now_ms, state.clock_ms) == (now_ms, clock_ms)
        after, effects = _on_event(state if is_same else replace(state, now_ms=now_ms, clock_ms=clock_ms), event)
    except InvalidMessage as error:
        return state, (Refuse(error.code, str(error)),)
    return _take_early(after, effects, state.chain.height)


def _on_event(state: MinerState, event: Event) -> Transition:
    match event:
        case PacketReceived():
            return on_packet(state, event)
        case TimerFired(Timer.PATIENCE):
            return _on_patience_over(state)
        case TimerFired(Timer.PROPOSE):
            return agreement.on_propose_timer(state)
        case TimerFired(Timer.GOSSIP):
            return _on_gossip(state)
        case TimerFired(Timer.ASK):
            return answers.on_ask_timer(state)
        case TimerFired(bft.Timeout() as timeout):
            return agreement.carry_out(state, *bft.on_timeout(state.bft, timeout))
        case ScoreComputed():
            return _on_score(state, event)
        case Connected():
            return _on_connected(state)
    raise AssertionError(f"an event that nobody handles: {event}")


def _on_patience_over(state: MinerState) -> Transition:
    """Who is missing now is left out; but not while a slow link still brings what is awaited, which has an end, too."""
    if state.is_patience_running and missing_chunks.is_update_arriving(state):
        state = replace(state, patience_extensions=state.patience_extensions + 1)
        return state, (StartTimer(Timer.PATIENCE, state.chain.params.patience_ms),)
    return agreement.consider(replace(state, is_patience_over=state.is_patience_running))


def _on_connected(state: MinerState) -> Transition:
    repeated = scoring.repeat_scores(state)
    tip = announce.publish_tip(state, is_again=True)
    state, scored = scoring.process_phase(state)
    state, said = agreement.on_gossip_timer(replace(state, gossips=0))
    state, begun = agreement.consider(state)
    state, asked = missing_chunks.ask_all(state)
    return state, (*tip, *repeated, *scored, *said, *begun, *asked)


def _on_gossip(state: MinerState) -> Transition:
    state, effects = agreement.on_gossip_timer(state)
    return state, effects + (scoring.repeat_scores(state) if effects else ())


def _on_score(state: MinerState, event: ScoreComputed) -> Transition:
    if event.round != state.chain.round.number:
        return state, ()
    state, effects = scoring.on_score(state, event.subject, event.score)
    state, begun = agreement.consider(state)
    return state, effects + begun


def on_packet(state: MinerState, event: PacketReceived) -> Transition:
    """A payload from the broker. Raises InvalidMessage's subclasses."""
    owner = read_topic_owner(event.topic)
    is_own = owner == state.config.identity.address
    if is_own and read_topic_channel(event.topic) != "up":  # there its operator sends the orders of its account
        return state, ()  # the broker returns what this node has said
    packet = decode_packet(event.payload)
    if packet.type is PacketType.CHUNK:
        state, whole, asked = missing_chunks.on_chunk(state, owner, packet)
        if whole is None:
            return state, asked
        packet = whole
    channel = read_topic_channel(event.topic)
    handler = PACKET_RULES.get((channel, packet.type))
    if handler is None:
        raise MalformedMessage(f"a {packet.type.name} on channel {channel[:16]!r}")
    return handler(state, owner, packet)


def _open(state: MinerState, raw: bytes) -> Letter:
    """A message; what waits here already is not opened again. Raises InvalidMessage's subclasses."""
    return open_known(raw, state.chain.chain, state.find_known)


def _on_consensus(state: MinerState, letter: Letter, packet: Packet) -> Transition:
    """A vote or proposal; those of other heights apart. Raises InvalidMessage's subclasses."""
    if letter.number != state.chain.height + 1:
        return _on_other_height(state, letter, packet)
    if packet.type is PacketType.PROPOSAL:
        return agreement.on_proposal(state, letter, *packet.fields[1:])
    return agreement.on_vote(state, letter)


def _on_other_height(state: MinerState, letter: Letter, packet: Packet) -> Transition:
    """A consensus message of the next height came before this node was done with this one; anything else is refused."""
    if letter.kind in BFT_KINDS and letter.number == state.chain.height + 2:
        return _keep(state, letter, packet)
    if letter.kind in BFT_KINDS and letter.number <= state.chain.height:
        return answers.tell_tip_again(state)  # gossip of what is final here: neither news nor anybody's fault
    raise WrongRound("not for this round or height")


def _keep(state: MinerState, letter: Letter, packet: Packet) -> Transition:
    """Whole packets, chunks put together; once each, since gossip repeats them; signed by a validator."""
    said = [early for early in state.early if (early.said.sender, early.said.kind) == (letter.sender, letter.kind)]
    if any(early.packet == packet for early in said) or len(said) >= EARLY_MAX[letter.kind]:
        return state, ()
    candidate = find_candidate(state.chain, letter.sender)  # the next height may have validators of its own
    if candidate is None:
        raise UnknownSender(f"{letter.sender.hex()} is no candidate")
    if letter.kind is Kind.PROPOSAL and not candidate.power:
        return state, ()  # candidates are many and blocks are long; should it win a seat now, it will say so again
    verified = verify_letter(letter, state.chain.chain, candidate.public_key)
    if isinstance(verified.message, messages.Proposal):
        if packet.type is not PacketType.PROPOSAL:
            raise MalformedMessage("a proposal without its block")
        # Otherwise any body could take the right one's place.
        agreement.decode_proposed(verified.message, *packet.fields[1:])
    return replace(state, early=(*state.early, Early(verified, packet))), ()


def _take_early(state: MinerState, effects: tuple[Effect, ...], height: Height) -> Transition:
    """After a new height: the messages that came too early are due now."""
    if state.chain.height == height or not state.early:
        return state, effects
    due, state = state.early, replace(state, early=())
    for early in due:
        before = state.chain.height
        try:
            state, more = _on_consensus(state, early.said, early.packet)
        except InvalidMessage as error:
            more = (Refuse(error.code, str(error)),)
        state, effects = _take_early(state, effects + more, before)
    return state, effects


def _on_message(state: MinerState, owner: Address, packet: Packet) -> Transition:
    if packet.fields[0] in state.words.by_bytes:
        return state, ()  # gossip repeats votes: most of what comes, and not worth another look
    letter = _open(state, packet.fields[0])
    if letter.kind in BFT_KINDS:
        return _on_consensus(state, letter, packet)
    if letter.kind is Kind.ASK:
        return answers.on_ask(state, letter)
    if letter.kind in ORDER_KINDS:
        return _add_order(state, letter)
    if letter.kind not in SCORE_KINDS:
        raise MalformedMessage(f"a {letter.kind.name} among miners")
    return _add_to_pool(state, letter)


def _on_proposal(state: MinerState, owner: Address, packet: Packet) -> Transition:
    raw = packet.fields[0]
    letter = open_known(raw, state.chain.chain, state.words.by_bytes.get)
    return _on_consensus(state, letter, packet)


def _on_device_message(state: MinerState, owner: Address, packet: Packet) -> Transition:
    letter = _open(state, packet.fields[0])
    if letter.sender != owner:
        raise UnknownSender("a device publishes under its own address only")
    if letter.kind is Kind.ASK:
        return answers.on_ask(state, letter)
    if letter.kind is Kind.RESUME:
        return missing_chunks.on_resume(state, letter)
    if letter.kind in ORDER_KINDS:
        return _on_order(state, letter)
    if letter.kind not in DEVICE_KINDS | SCORE_KINDS:
        raise MalformedMessage(f"a {letter.kind.name} of a device")
    device = find_device(state.chain, letter.sender)
    if device is None:
        raise UnknownSender(f"{owner.hex()} is no device of this chain")
    try:
        if mempool.is_known(state.mempool, letter):
            return state, (_build_receipt(state, letter, "ok"),)
        _check_round(state, letter)
        letter = _verify_for_pool(state, letter)
        state, effects = _add_verified(state, letter)
    except REFUSED_FOR_GOOD as error:
        return state, _refuse_for_good(state, letter, device, error)
    if device.home == state.config.identity.address:
        effects = (_build_receipt(state, letter, "ok"), *effects)
    return state, effects


def _refuse_for_good(state: MinerState, letter: Letter, device: Device, error: InvalidMessage) -> tuple[Effect, ...]:
    """Tell the device to send it no more; but not if it is this miner that is behind, or had only forgotten."""
    said = verify_letter(letter, state.chain.chain, device.public_key)
    if is_in_chain(state.chain, said.message, said.sender):
        return (_build_receipt(state, said, "ok"),)
    refuse = Refuse(error.code, str(error))
    if said.number > state.chain.round.number:
        return (refuse,)
    return _build_receipt(state, said, error.code), refuse


def _build_receipt(state: MinerState, letter: Letter, code: str) -> Effect:
    """The signed word that lets a device empty its outbox."""
    receipt = messages.Receipt(letter.number, letter.digest(), code)
    raw = seal(receipt, state.chain.chain, state.config.identity)
    topic = state.topics.miner_to(state.config.identity.address, letter.sender)
    return Publish(topic, encode_packet(PacketType.MESSAGE, raw))


def _add_to_pool(state: MinerState, letter: Letter) -> Transition:
    _check_round(state, letter)
    if mempool.is_known(state.mempool, letter):
        return state, ()
    return _add_verified(state, _verify_for_pool(state, letter))


def _check_round(state: MinerState, letter: Letter) -> None:
    """The round may be the next one, if this node is behind."""
    number = state.chain.round.number
    is_past = letter.number == number and _is_phase_past(state, letter.kind)
    if not number <= letter.number <= number + 1 or is_past:
        raise WrongRound(f"a {letter.kind.name} of round {letter.number} came in round {number}")


def _verify_for_pool(state: MinerState, letter: Letter) -> Verified:
    """A message that a round may need, once its round was checked. Raises InvalidMessage's subclasses."""
    said = verify_letter(letter, state.chain.chain, get_key_for(state.chain, letter.kind, letter.sender))
    if isinstance(said.message, messages.Reveal) and len(said.message.update) > compute_update_bytes_max(
        state.chain.params
    ):
        raise MalformedUpdate(f"{len(said.message.update)} bytes are more than the codec writes")
    return said


def _add_verified(state: MinerState, said: Verified) -> Transition:
    """Into the pool with it, if it is of a later phase or the rules let it into a block of this one."""
    if said.number == state.chain.round.number and PHASE_KINDS.get(state.chain.round.phase) is said.kind:
        said = check_transaction(state.chain, said)  # what no block can carry takes nobody's time
    pool, dropped = mempool.insert(state.mempool, state.chain, said)
    state, effects = scoring.on_pooled(replace(state, mempool=pool), said)
    state, begun = agreement.consider(state)
    notes = tuple(Note("no room, dropped", {"round": k[0], "kind": k[1].name, "sender": k[2].hex()}) for k in dropped)
    return state, notes + effects + begun


def _on_order(state: MinerState, letter: Letter) -> Transition:
    """An account's order: the receipt says that it waits for a block, or why it does not."""
    said = agreement.verify_known(state.chain, letter)  # only who has an account and has signed this is answered
    try:
        state, effects = _add_order(state, said)
    except InvalidMessage as error:
        return state, (_build_receipt(state, said, error.code), Refuse(error.code, str(error)))
    return state, (_build_receipt(state, said, "ok"), *effects)


def _on_receipt(state: MinerState, owner: Address, packet: Packet) -> Transition:
    """For the operator, who sends orders with this node's key from another process: nothing to do here."""
    return state, ()


def _add_order(state: MinerState, letter: Letter) -> Transition:
    if letter.raw in state.orders:
        return state, ()
    return agreement.consider(replace(state, orders=order_pool.insert(state.orders, state.chain, letter)))


def _is_phase_past(state: MinerState, kind: Kind) -> bool:
    phases = {Kind.COMMIT: Phase.COMMIT, Kind.REVEAL: Phase.REVEAL}
    phases |= {Kind.SCORE_COMMIT: Phase.SCORE, Kind.SCORE_REVEAL: Phase.SETTLE}
    return state.chain.round.phase > phases[kind]


PACKET_RULES: dict[tuple[str, PacketType], Callable[[MinerState, Address, Packet], Transition]] = {
    ("up", PacketType.MESSAGE): _on_device_message,
    ("bft", PacketType.MESSAGE): _on_message,
    ("bft", PacketType.PROPOSAL): _on_proposal,
    ("head", PacketType.HEAD): answers.on_head,
    ("to", PacketType.BLOCK): answers.on_block,
    ("to", PacketType.MESSAGE): _on_receipt,
    ("to", PacketType.HEAD): state_sync.on_change,
    ("to", PacketType.STATE): state_sync.on_state,
}
assert PACKET_RULES.keys() == list_accepted(Listener.MINER), "a miner accepts what the table of topics says"
