"""The miner's table: no event and no phase without an entry, and what `find_illegal` calls illegal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import get_args, get_origin

import pytest

from flchain.base.types import Height, Millis, Round, View
from flchain.consensus.bft import Step, Timeout
from flchain.light.trust import build_trust
from flchain.rules.blocks import build_block, get_proposer
from flchain.wire.envelope import seal_verified
from flchain.wire.messages import Phase, Vote
from flchain.wire.packets import Packet, PacketType
from miner.core.machine import build_miner_state, step
from miner.core.pools.height_log import HeightLog, read_vote
from miner.core.state import (
    PATIENCE_EXTENSIONS_MAX,
    Agreement,
    Ahead,
    Answers,
    CatchUp,
    CatchUpPhase,
    CheckedBlock,
    Early,
    MinerState,
    Patience,
    RoundScores,
    Scorer,
    Waiting,
    compute_agreement,
    compute_catch_up,
    compute_scorer,
    find_illegal,
)
from miner.core.tip import LedgerSummary, Standing
from miner.core.transitions import PHASE_OF, TRANSITIONS, get_kind, get_phase
from miner.core.values import ComputeScore, Connected, Event, MinerConfig, ScoreComputed, Timer, TimerFired
from tests.support.builders.chain import NO_CLOCK, Driver, build_chain

CHAIN = build_chain()
PEER = CHAIN.miners[1]
NOBODY, NO_SCORES = RoundScores().asked, RoundScores().computed


def build_miner(phase: Phase = Phase.OPEN) -> MinerState:
    """A miner at the start of the chain, or in a later phase of its first round."""
    driver = Driver(CHAIN)
    if phase is not Phase.OPEN:
        driver.go_to(phase)
    return build_miner_state(MinerConfig(CHAIN.miners[0]), Standing(driver.state))


def begin(state: MinerState) -> MinerState:
    """The same in the midst of consensus."""
    return replace(state, bft=replace(state.bft, is_started=True))


def wait(state: MinerState, **changes) -> MinerState:
    return replace(state, waiting=Waiting(**changes))


def list_event_kinds() -> set[object]:
    """Every class of the union, and for TimerFired every timer, and the class of consensus' timeouts."""
    classes = {get_origin(kind) or kind for kind in get_args(Event)}
    assert TimerFired in classes
    return (classes - {TimerFired}) | set(Timer) | {Timeout}


def test_every_event_has_a_row_and_no_row_is_of_nothing() -> None:
    """A new event or timer without an entry in the table fails here, and so does a row that nothing can reach."""
    assert set(TRANSITIONS) == list_event_kinds()


@pytest.mark.parametrize("kind", list(TRANSITIONS), ids=str)
def test_every_row_names_every_phase_of_one_sub_state(kind) -> None:
    """A row says what happens in each phase that there is: none is left to chance."""
    (region,) = {type(phase) for phase in TRANSITIONS[kind]}
    assert set(TRANSITIONS[kind]) == set(region)
    assert get_phase(build_miner(), kind) in TRANSITIONS[kind]
    assert region in PHASE_OF


def test_an_event_finds_its_row() -> None:
    """Timers are rows of their own; all timeouts of consensus share one."""
    timeout = Timeout(Step.PROPOSE, Height(1), View(0))
    assert get_kind(TimerFired(Timer.ASK)) is Timer.ASK
    assert get_kind(TimerFired(timeout)) is Timeout
    assert get_kind(Connected()) is Connected


def test_phases_are_computed_from_what_the_state_holds() -> None:
    """Paused, not begun, under way, about to propose; behind a peer or not; a scorer that owes an answer or not."""
    state = build_miner()
    assert compute_agreement(state) is Agreement.NOT_BEGUN
    assert compute_agreement(begin(state)) is Agreement.UNDER_WAY
    assert compute_agreement(wait(begin(state), proposing_view=View(0))) is Agreement.ABOUT_TO_PROPOSE
    driver = Driver(CHAIN)
    driver.run_round()
    paused = build_miner_state(MinerConfig(CHAIN.miners[0], 1), Standing(driver.state))
    assert compute_agreement(paused) is Agreement.PAUSED
    behind = replace(state, catch_up=CatchUp(Ahead(Height(5), PEER.address)))
    assert (compute_catch_up(state), compute_catch_up(behind)) == (CatchUpPhase.IDLE, CatchUpPhase.ASKING)
    busy = replace(state, scoring=RoundScores(asked=NOBODY.with_item(None, None)))
    assert (compute_scorer(state), compute_scorer(busy)) == (Scorer.FREE, Scorer.BUSY)


@pytest.mark.parametrize(
    ("kind", "phase"), [(kind, phase) for kind, row in TRANSITIONS.items() if isinstance(kind, Timer) for phase in row]
)
def test_a_timer_in_any_phase_leaves_a_legal_state(kind, phase) -> None:
    """Each timer of the table, in each of its phases, though its own wait may be long over."""
    states: dict[Enum, Callable[[], MinerState]] = {
        Agreement.PAUSED: build_paused,
        Agreement.NOT_BEGUN: build_miner,
        Agreement.UNDER_WAY: lambda: step(build_miner(), Connected(), Millis(0), NO_CLOCK)[0],
        Agreement.ABOUT_TO_PROPOSE: build_about_to_propose,
        Patience.IDLE: lambda: build_miner(Phase.COMMIT),
        Patience.RUNNING: lambda: wait(build_miner(Phase.COMMIT), patience=Patience.RUNNING),
        Patience.FOR_DEVICES: lambda: wait(build_miner(Phase.COMMIT), patience=Patience.FOR_DEVICES),
        Patience.OVER: lambda: wait(begin(build_miner(Phase.COMMIT)), patience=Patience.OVER),
        CatchUpPhase.IDLE: build_miner,
        CatchUpPhase.ASKING: lambda: replace(build_miner(), catch_up=CatchUp(Ahead(Height(5), PEER.address))),
    }
    before = states[phase]()
    assert get_phase(before, kind) is phase and find_illegal(before) == ()
    after, _ = step(before, TimerFired(kind), Millis(0), NO_CLOCK)
    assert find_illegal(after) == ()


def build_paused() -> MinerState:
    driver = Driver(CHAIN)
    driver.run_round()
    return build_miner_state(MinerConfig(CHAIN.miners[0], 1), Standing(driver.state))


def build_about_to_propose() -> MinerState:
    """The proposer of a height in COMMIT that has begun before any commitment arrived."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.COMMIT)
    leader = next(key for key in CHAIN.miners if key.address == get_proposer(driver.state, View(0)))
    state = build_miner_state(MinerConfig(leader), Standing(driver.state))
    return wait(begin(state), proposing_view=View(0))


@pytest.mark.parametrize("phase", list(Patience))
def test_the_patience_timer_ends_only_a_wait_that_runs(phase: Patience) -> None:
    """A timer of an earlier height, or a second one, does not make this height's wait over."""
    state = wait(build_miner(Phase.COMMIT), patience=phase)
    state = begin(state) if phase is Patience.OVER else state
    after, _ = step(state, TimerFired(Timer.PATIENCE), Millis(0), NO_CLOCK)
    assert after.waiting.patience is (Patience.IDLE if phase is Patience.IDLE else Patience.OVER)
    assert after.bft.is_started == (phase is not Patience.IDLE)


def test_a_score_that_was_not_asked_for_counts_nothing() -> None:
    """Neither while the scorer is free nor while it owes others; and the first answer about a subject stays."""
    state = build_miner(Phase.COMMIT)
    free, effects = step(state, ScoreComputed(Round(1), None, 5_000), Millis(0), NO_CLOCK)
    assert free.scoring is state.scoring and effects == ()
    asked, effects = step(state, Connected(), Millis(0), NO_CLOCK)
    assert [effect.subject for effect in effects if isinstance(effect, ComputeScore)] == [None]
    other, _ = step(asked, ScoreComputed(Round(1), CHAIN.devices[0].address, 1), Millis(0), NO_CLOCK)
    assert other.scoring == asked.scoring
    late, _ = step(asked, ScoreComputed(Round(2), None, 1), Millis(0), NO_CLOCK)
    assert late.scoring == asked.scoring
    done, _ = step(asked, ScoreComputed(Round(1), None, 5_000), Millis(0), NO_CLOCK)
    assert dict(done.scoring.computed) == {None: 5_000} and compute_scorer(done) is Scorer.FREE


def log_vote(state: MinerState, height: int) -> HeightLog:
    said = seal_verified(Vote(height, 0, 1, None), CHAIN.id, PEER)
    assert isinstance(said.message, Vote)
    return state.height_log.with_message(read_vote(said.message, said.sender), said)


def with_early(state: MinerState, height: int) -> MinerState:
    said = seal_verified(Vote(height, 0, 1, None), CHAIN.id, PEER)
    return replace(state, early=(Early(said, Packet(PacketType.MESSAGE, (said.raw,))),))


def with_other_block(state: MinerState) -> MinerState:
    _, after = build_block(state.chain, PEER.address, [])
    later, _ = build_block(after, PEER.address, [])
    return replace(state, proposed={later.hash: CheckedBlock(later, None)})


ILLEGAL: dict[str, Callable[[MinerState], MinerState]] = {
    "consensus at another height than the chain's next": lambda s: replace(s, bft=replace(s.bft, height=Height(9))),
    "a vote or proposal of another height": lambda s: replace(s, height_log=log_vote(s, 9)),
    "a log whose two views differ": lambda s: replace(s, height_log=replace(log_vote(s, 1), by_bytes={})),
    "a proposed block of another height": with_other_block,
    "an early message that is due or too early": lambda s: with_early(s, 1),
    "a proposer of a height that has not begun": lambda s: wait(s, proposing_view=View(0)),
    "repeats at a height that has not begun": lambda s: wait(s, gossips=1),
    "patience that is over at a height that has not begun": lambda s: wait(s, patience=Patience.OVER),
    "a wait for devices outside COMMIT": lambda s: wait(s, patience=Patience.FOR_DEVICES),
    "an extension of no wait": lambda s: wait(s, extensions=1),
    "too many extensions": lambda s: wait(s, patience=Patience.RUNNING, extensions=PATIENCE_EXTENSIONS_MAX + 1),
    "agreement in a paused miner": lambda s: begin(build_paused()),
    "a ledger that begins beyond the chain": lambda s: replace(s, ledger=LedgerSummary(base=Height(1))),
    "payloads of other rounds than the newest": lambda s: replace(
        s, ledger=LedgerSummary(payloads=((Round(7), b"x"),))
    ),
    "trust in a header below the chain's": lambda s: replace(s, catch_up=CatchUp(trust=build_trust(s.chain, None))),
    "a score that was not asked for": lambda s: replace(s, scoring=RoundScores(computed=NO_SCORES.with_item(None, 1))),
    "times in the future": lambda s: replace(s, answers=Answers(tip_ms=Millis(1))),
}


@pytest.mark.parametrize("text", list(ILLEGAL))
def test_what_no_miner_may_be_in_is_found(text: str) -> None:
    """Each rule of `find_illegal` can fail: a state that breaks it is named."""
    assert find_illegal(build_miner()) == ()
    assert text in find_illegal(ILLEGAL[text](build_miner()))


def test_every_rule_has_a_state_that_breaks_it() -> None:
    """The broken states above name every rule that there is."""
    found = {text for make in ILLEGAL.values() for text in find_illegal(make(build_miner()))}
    assert found == set(ILLEGAL)


def test_a_message_of_the_next_height_is_legal() -> None:
    """What is kept early is of the one height after this one: neither due nor further ahead."""
    state = build_miner()
    assert find_illegal(with_early(state, state.chain.height + 2)) == ()
    assert find_illegal(with_early(state, state.chain.height + 3)) != ()
