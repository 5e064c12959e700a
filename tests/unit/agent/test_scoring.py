"""Mining in the agent's machine: which models it has tested and in which order, what it says when, what it drops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState
from agent.core.values import (
    AgentConfig,
    ComputeScore,
    DropOutbox,
    Effect,
    Event,
    MiningAllowed,
    Note,
    PacketReceived,
    Publish,
    SaveOutbox,
    SaveScores,
    ScoreComputed,
    ScoringFailed,
    StartTimer,
    Timer,
    TimerFired,
    TrainingDone,
)
from flchain.base.fixedpoint import add, encode_vector
from flchain.base.types import Address, Millis, Round
from flchain.light.follow import build_light_state
from flchain.rules.model_step import compute_delta
from flchain.rules.scores import group_by_home
from flchain.wire.envelope import Envelope, open_envelope, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import Phase, Receipt
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from tests.support.builders.chain import (
    NO_CLOCK,
    PARAMETERS_COUNT,
    Driver,
    build_chain,
    get_balances,
    make_scores,
    seal_score_commit,
    seal_score_reveal,
)

CHAIN = build_chain(miners=4, devices=5, reward_per_update=0, reward_for_scores=10_000, absent_rounds_max=3)
TOPICS = Topics.of_chain(CHAIN.id)
HOME, ME = CHAIN.miners[0], CHAIN.devices[0]
OTHERS = [device.address for device in CHAIN.devices[1:]]
NOTHING_LEFT_OUT = np.zeros(PARAMETERS_COUNT, np.int32)
SCORE = 7_100


def build_agent(is_mining: bool = True, number: int = 0) -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    config = AgentConfig(CHAIN.devices[number], miners, is_mining=is_mining)
    return build_agent_state(config, build_light_state(CHAIN.genesis, CHAIN.model), NOTHING_LEFT_OUT)


def play(state: AgentState, *events: Event) -> tuple[AgentState, tuple[Effect, ...]]:
    done: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event, Millis(0), NO_CLOCK)
        done += effects
    return state, done


def head(driver: Driver, height: int) -> PacketReceived:
    fields = (driver.blocks[height - 1].header_bytes, driver.certificates[height - 1], b"")
    return PacketReceived(TOPICS.miner_head(HOME.address), encode_packet(PacketType.HEAD, *fields))


def body(driver: Driver, height: int) -> PacketReceived:
    packet = encode_packet(PacketType.BODY, height, driver.blocks[height - 1].body_bytes)
    return PacketReceived(TOPICS.miner_body(HOME.address), packet)


def blocks(driver: Driver, *heights: int) -> list[Event]:
    return [event for height in heights for event in (head(driver, height), body(driver, height))]


def receipt(digest: bytes, code: str = "ok") -> PacketReceived:
    raw = seal(Receipt(1, digest, code), CHAIN.id, HOME)
    return PacketReceived(TOPICS.miner_to(HOME.address, ME.address), encode_packet(PacketType.MESSAGE, raw))


def trained(round_number: int = 1) -> TrainingDone:
    delta = np.linspace(-0.1, 0.1, PARAMETERS_COUNT).astype(np.float32)
    return TrainingDone(Round(round_number), delta, 100, 5, 0.5)


def get_published(effects: tuple[Effect, ...]) -> list[Envelope]:
    found = [effect for effect in effects if isinstance(effect, Publish)]
    return [open_envelope(decode_packet(effect.packet).fields[0], CHAIN.id) for effect in found]


def get_asked(effects: tuple[Effect, ...]) -> list[ComputeScore]:
    return [effect for effect in effects if isinstance(effect, ComputeScore)]


def get_notes(effects: tuple[Effect, ...]) -> list[str]:
    return [effect.text for effect in effects if isinstance(effect, Note)]


def answer(state: AgentState, effects: tuple[Effect, ...]) -> tuple[AgentState, tuple[Effect, ...], list[ComputeScore]]:
    """Answer every question of the machine until it has no more: the last effects, and all that was asked."""
    asked = []
    while questions := get_asked(effects):
        assert len(questions) == 1, "one at a time"
        asked += questions
        state, effects = play(state, ScoreComputed(questions[0].round, questions[0].subject, SCORE))
    return state, effects, asked


def make_driver(phase: Phase) -> Driver:
    driver = Driver(CHAIN)
    driver.go_to(phase)
    return driver


def score(driver: Driver, state: AgentState | None = None) -> tuple[AgentState, tuple[Effect, ...]]:
    """A device that has followed a chain up to SCORE and was answered all it asked."""
    state, effects = play(state or build_agent(), *blocks(driver, 1, 2, 3))
    state, effects, _ = answer(state, effects)
    return state, effects


# --------------------------------------------------------------------------------------------- the work


def test_every_model_is_asked_for_once_one_at_a_time_and_never_its_own_update() -> None:
    """First the base, then the others' updates, then the aggregates that are more than one update."""
    driver = make_driver(Phase.SCORE)
    state, effects = play(build_agent(), *blocks(driver, 1, 2, 3))
    _, _, asked = answer(state, effects)
    assert [effect.subject for effect in asked] == [None, *OTHERS, HOME.address]
    assert {effect.round for effect in asked} == {1}
    reveals, params = driver.state.round.reveals, driver.state.params
    homes = {entry.address: entry.home for entry in driver.state.devices}
    groups = group_by_home(reveals, homes.__getitem__)
    for effect in asked:
        own: tuple[Address, ...] = ()
        if effect.subject is not None:
            own = tuple(update.sender for update in groups.get(effect.subject, ())) or (effect.subject,)
        parts = tuple(reveal for reveal in reveals if reveal.sender in own)
        model = driver.state.model
        if parts:
            model = add(model, compute_delta(params, driver.state.chain, Round(1), parts))
        assert encode_vector(effect.model) == encode_vector(model)


def test_the_only_device_of_a_miner_tests_its_update_as_that_miners_aggregate() -> None:
    """The aggregate must have a score, and it is what its device's update comes to."""
    driver = make_driver(Phase.SCORE)
    state, effects = play(build_agent(number=1), *blocks(driver, 1, 2, 3))
    _, _, asked = answer(state, effects)
    assert CHAIN.devices[1].address in [effect.subject for effect in asked]


def test_the_base_model_is_tested_while_others_reveal() -> None:
    """REVEAL leaves time: what is known is asked for, and waits for the rest."""
    driver = make_driver(Phase.SCORE)
    state, effects = play(build_agent(), *blocks(driver, 1), head(driver, 2))
    assert state.light.phase is Phase.REVEAL
    assert [effect.subject for effect in get_asked(effects)] == [None]
    state, effects = play(state, ScoreComputed(Round(1), None, SCORE))
    assert get_asked(effects) == [] and get_published(effects) == []


def test_scores_are_durable_before_the_commitment_leaves_and_are_opened_in_settle() -> None:
    """SaveScores, SaveOutbox, then the commitment; the scores themselves not before SETTLE. A miner's rules take both,
    and the device is paid."""
    driver = make_driver(Phase.SCORE)
    state, effects = score(driver)
    kinds = [type(effect) for effect in effects if not isinstance(effect, Note)]
    assert kinds == [SaveScores, SaveOutbox, Publish, StartTimer]
    (commit,) = get_published(effects)
    assert commit.kind is Kind.SCORE_COMMIT
    word = make_scores(driver.state)
    driver.extend([*(seal_score_commit(CHAIN, i, word) for i in range(4)), commit.raw])
    state, effects = play(state, head(driver, 4))
    (reveal,) = get_published(effects)
    assert reveal.kind is Kind.SCORE_REVEAL
    assert DropOutbox(commit.digest(), "the phase is over") in effects
    driver.extend([*(seal_score_reveal(CHAIN, i, word) for i in range(4)), reveal.raw])
    assert driver.state.round.number == 2
    assert get_balances(driver.state, [ME])[0] > 0
    assert get_balances(driver.state, CHAIN.devices[1:]) == [0] * 4


def test_its_own_update_counts_as_no_gain() -> None:
    """The message must name it; a device that has not tested it says the base model's score."""
    state, _ = score(make_driver(Phase.SCORE))
    assert state.scoring.scores is not None
    envelope = open_envelope(state.scoring.scores.reveal, CHAIN.id)
    base, scores = envelope.fields[2], {bytes(address): value for address, value in envelope.fields[3]}
    assert scores[ME.address] == base == SCORE
    assert list(scores) == [update.sender for update in make_driver(Phase.SCORE).state.round.reveals]


def test_only_a_receipt_ends_the_repeats_of_a_score_commitment() -> None:
    """Without one it is said again; a refusal ends it as well and is told."""
    state, effects = score(make_driver(Phase.SCORE))
    (commit,) = get_published(effects)
    again, effects = play(state, TimerFired(Timer.RESEND))
    assert [envelope.raw for envelope in get_published(effects)] == [commit.raw]
    _, effects = play(again, receipt(commit.digest(), "duplicate"))
    assert DropOutbox(commit.digest(), "duplicate") in effects
    assert get_notes(effects) == ["a miner refused a message"]


# ---------------------------------------------------------------------------------------------- on and off


def test_a_device_does_not_mine_by_default() -> None:
    """Without the operator's word it asks for no score, pledges none and says none, whatever the scheduler allows."""
    driver = make_driver(Phase.SETTLE)
    state, effects = play(build_agent(is_mining=False), MiningAllowed(True), head(driver, 1), trained())
    assert [envelope.fields[2] for envelope in get_published(effects)] == [False]
    _, effects = play(state, *blocks(driver, 2, 3, 4))
    assert get_asked(effects) == []
    assert {envelope.kind for envelope in get_published(effects)} <= {Kind.REVEAL}


def test_a_commitment_pledges_scores_only_while_mining_is_allowed() -> None:
    """The scheduler switches it while the device runs, from one round to the next."""
    driver = make_driver(Phase.COMMIT)
    for is_allowed in (True, False):
        state, _ = play(build_agent(), MiningAllowed(is_allowed), head(driver, 1))
        state, effects = play(state, trained())
        assert [envelope.fields[2] for envelope in get_published(effects)] == [is_allowed]
        assert state.update.work is not None and state.update.work.will_score is is_allowed


def test_what_is_pledged_is_done_though_mining_was_switched_off_since() -> None:
    """The others wait for it; the next commitment pledges nothing. What is not pledged stops at once."""
    driver = make_driver(Phase.SCORE)
    state, _ = play(build_agent(), head(driver, 1), trained(), MiningAllowed(False))
    _, effects = score(driver, state)
    assert Kind.SCORE_COMMIT in {envelope.kind for envelope in get_published(effects)}
    state, effects = play(build_agent(), MiningAllowed(False), *blocks(driver, 1, 2, 3))
    assert get_asked(effects) == []
    _, effects = play(state, MiningAllowed(True))
    assert [effect.subject for effect in get_asked(effects)] == [None], "and begins as soon as it may"


# ------------------------------------------------------------------------------------------------ faults


def test_a_restart_between_commitment_and_opening_loses_nothing() -> None:
    """From what was saved alone, without any update, the very same scores are opened."""
    driver = make_driver(Phase.SETTLE)
    before, _ = score(driver)
    assert before.scoring.scores is not None
    again = build_agent_state(
        before.config, build_agent().light, NOTHING_LEFT_OUT, None, {}, saved_scores=before.scoring.scores
    )
    _, effects = play(again, head(driver, 4))
    assert before.scoring.scores.reveal in [envelope.raw for envelope in get_published(effects)]
    assert get_asked(effects) == []


def test_a_restart_before_the_receipt_says_the_same_commitment() -> None:
    """A second, different commitment of one round would be refused: the saved one is said."""
    driver = make_driver(Phase.SCORE)
    before, effects = score(driver)
    (commit,) = get_published(effects)
    again = build_agent_state(
        before.config,
        build_agent().light,
        NOTHING_LEFT_OUT,
        None,
        dict(before.outbox),
        saved_scores=before.scoring.scores,
    )
    again, effects = play(again, head(driver, 3))
    assert [envelope.raw for envelope in get_published(effects)] == [commit.raw]
    assert get_asked(effects) == []


def test_nothing_is_scored_that_is_not_there() -> None:
    """An update's block is final and its body has not come: what is there is tested, nothing is said, and the end of
    the phase drops it with the reason."""
    driver = Driver(CHAIN)
    driver.go_to(Phase.REVEAL)
    reveals = Driver(CHAIN).go_to(Phase.REVEAL)
    driver.reveal({i: reveals[i] for i in (0, 1)})
    driver.reveal({i: reveals[i] for i in (2, 3, 4)})
    word = make_scores(driver.state)
    driver.score_commit(dict.fromkeys(range(4), word))
    state, effects = play(build_agent(), *blocks(driver, 1, 2), head(driver, 3), *blocks(driver, 4))
    assert state.light.phase is Phase.SCORE and not state.light.has_all_updates
    state, effects, asked = answer(state, effects)
    assert set(effect.subject for effect in asked) <= {None, *OTHERS}
    assert Kind.SCORE_COMMIT not in {envelope.kind for envelope in get_published(effects)}
    late, effects = play(state, body(driver, 3))
    _, effects, _ = answer(late, effects)
    assert Kind.SCORE_COMMIT in {envelope.kind for envelope in get_published(effects)}, "it comes in time"
    _, effects = play(state, head(driver, 5))
    assert get_notes(effects) == ["scores dropped: not every update of the round has come"]


def test_a_missed_header_means_no_scores_in_that_round() -> None:
    """It may have held updates: the scores would not be those of the chain's round, and be refused."""
    driver = make_driver(Phase.SCORE)
    state, effects = play(build_agent(), *blocks(driver, 1), head(driver, 3), body(driver, 3))
    assert state.light.phase is Phase.SCORE and state.light.updates
    assert get_asked(effects) == []
    assert get_notes(effects) == ["no scores in this round"], "said once"


def test_a_score_that_comes_too_late_is_dropped_and_only_then_the_next_is_asked_for() -> None:
    """A slow scorer is never given a second model: the new round's first question waits for the old one's answer."""
    driver = Driver(CHAIN)
    driver.run_round()
    driver.go_to(Phase.SCORE)
    state, effects = play(build_agent(), *blocks(driver, 1, 2, 3))
    assert len(get_asked(effects)) == 1
    state, effects = play(state, *blocks(driver, 4, 5))
    assert "scores dropped: they came too late for their round" in get_notes(effects)
    state, effects = play(state, *blocks(driver, 6, 7))
    assert state.light.round == 2 and get_asked(effects) == []
    state, effects = play(state, ScoreComputed(Round(1), None, 1))
    assert [(effect.round, effect.subject) for effect in get_asked(effects)] == [(2, None)]
    state, _, _ = answer(state, effects)
    assert state.scoring.scores is not None and state.scoring.scores.round == 2


def test_a_scorer_that_fails_costs_one_round() -> None:
    """It is a fault that somebody reads; nothing more is asked in the round, the next one is tried."""
    driver = Driver(CHAIN)
    driver.run_round()
    driver.go_to(Phase.SCORE)
    state, _ = play(build_agent(), *blocks(driver, 1, 2, 3))
    state, effects = play(state, ScoringFailed(Round(1), "out of memory"))
    assert [effect.is_fault for effect in effects if isinstance(effect, Note)] == [True]
    state, effects = play(state, *blocks(driver, 4, 5))
    assert get_asked(effects) == []
    _, effects = play(state, *blocks(driver, 6))
    assert [(effect.round, effect.subject) for effect in get_asked(effects)] == [(2, None)]


def test_an_update_that_does_not_decode_is_no_crash() -> None:
    """Validators would never let it into a block; a device that finds one gives the round up and says so."""
    driver = make_driver(Phase.SCORE)
    state, _ = play(build_agent(), *blocks(driver, 1, 2, 3))
    light = state.light
    broken = {address: replace(update, update=b"junk") for address, update in light.reveals.items()}
    state, effects = play(replace(state, light=replace(light, reveals=broken)), ScoreComputed(Round(1), None, SCORE))
    assert [effect.is_fault for effect in effects if isinstance(effect, Note)] == [True]
    assert get_asked(effects) == []
