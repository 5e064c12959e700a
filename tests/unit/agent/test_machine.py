"""The agent's machine, step by step: durable work, outbox, silence, snapshots and a model of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState, Trouble
from agent.core.values import (
    AgentConfig,
    Connected,
    DropOutbox,
    Effect,
    Event,
    Follow,
    Note,
    PacketReceived,
    Publish,
    Report,
    SaveOutbox,
    SavePosition,
    SaveWork,
    StartTimer,
    Timer,
    TimerFired,
    Train,
    TrainingDone,
    TrainingFailed,
)
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Hash, Millis, Round
from flchain.codecs import encode_carried
from flchain.ledger.snapshot import build_carried_proof
from flchain.light.follow import build_light_state, restore
from flchain.wire.envelope import Envelope, open_envelope, seal
from flchain.wire.fields import Kind
from flchain.wire.messages import Ask, Phase, Receipt, Want
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, Driver, build_chain

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)
HOME = CHAIN.miners[0]
NOTHING_LEFT_OUT = np.zeros(PARAMETERS_COUNT, np.int32)


def build_agent(until_round: int = 0) -> AgentState:
    miners = tuple((key.address, key.public_key) for key in CHAIN.miners)
    config = AgentConfig(CHAIN.devices[0], miners, until_round)
    return build_agent_state(config, build_light_state(CHAIN.genesis, CHAIN.model), NOTHING_LEFT_OUT)


def play(state: AgentState, *events: Event, now_ms: int = 0) -> tuple[AgentState, tuple[Effect, ...]]:
    done: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event, Millis(now_ms), NO_CLOCK)
        done += effects
    return state, done


def head(driver: Driver, height: int) -> PacketReceived:
    fields = (driver.blocks[height - 1].header_bytes, driver.certificates[height - 1], b"")
    return PacketReceived(TOPICS.miner_head(HOME.address), encode_packet(PacketType.HEAD, *fields))


def body(driver: Driver, height: int, data: bytes | None = None) -> PacketReceived:
    packet = encode_packet(PacketType.BODY, height, data or driver.blocks[height - 1].body_bytes)
    return PacketReceived(TOPICS.miner_body(HOME.address), packet)


def snapshot(driver: Driver) -> PacketReceived:
    vectors = encode_vector(driver.state.model), build_carried_proof(driver.state)
    fields = (driver.blocks[-1].header_bytes, driver.certificates[-1], b"", *vectors)
    topic = TOPICS.miner_to(HOME.address, CHAIN.devices[0].address)
    return PacketReceived(topic, encode_packet(PacketType.MODEL, *fields))


def receipt(digest: bytes, code: str = "ok") -> PacketReceived:
    raw = seal(Receipt(1, digest, code), CHAIN.id, HOME)
    topic = TOPICS.miner_to(HOME.address, CHAIN.devices[0].address)
    return PacketReceived(topic, encode_packet(PacketType.MESSAGE, raw))


def trained(round_number: int = 1) -> TrainingDone:
    delta = np.linspace(-0.1, 0.1, PARAMETERS_COUNT).astype(np.float32)
    return TrainingDone(Round(round_number), delta, 100, 5, 0.5)


def get_published(effects: tuple[Effect, ...]) -> list[Envelope]:
    found = [effect for effect in effects if isinstance(effect, Publish)]
    return [open_envelope(decode_packet(effect.packet).fields[0], CHAIN.id) for effect in found]


def make_rounds(rounds: int) -> Driver:
    driver = Driver(CHAIN)
    for _ in range(rounds):
        driver.run_round()
    return driver


def test_work_and_outbox_are_durable_before_the_commitment_goes_out() -> None:
    """After training: SaveWork, then SaveOutbox, then Publish; the update itself is not said before REVEAL."""
    driver = make_rounds(1)
    state, effects = play(build_agent(), Connected(), head(driver, 1))
    assert [effect.round for effect in effects if isinstance(effect, Train)] == [1]
    _, effects = play(state, trained())
    kinds = [type(effect) for effect in effects if not isinstance(effect, Note)]
    assert kinds == [SaveWork, SaveOutbox, Publish, StartTimer]
    assert [envelope.kind for envelope in get_published(effects)] == [Kind.COMMIT]


def test_only_a_receipt_empties_the_outbox() -> None:
    """Without one the message is said again and again; with one it is said no more in this phase."""
    state, effects = play(build_agent(), head(make_rounds(1), 1), trained())
    (commit,) = get_published(effects)
    again, effects = play(state, TimerFired(Timer.RESEND))
    assert [envelope.raw for envelope in get_published(effects)] == [commit.raw]
    assert Timer.RESEND in [effect.timer for effect in effects if isinstance(effect, StartTimer)]
    done, effects = play(again, receipt(commit.digest()))
    assert effects == (DropOutbox(commit.digest(), "ok"),)
    assert play(done, TimerFired(Timer.RESEND))[1] == ()
    assert play(done, receipt(commit.digest()))[1] == (), "a second miner's receipt"


def test_restarted_device_says_the_same_words() -> None:
    """From its saved work and outbox it goes on: the very same bytes, no second training."""
    driver = make_rounds(1)
    state, effects = play(build_agent(), head(driver, 1), trained())
    (commit,) = get_published(effects)
    again = build_agent_state(
        state.config, build_agent().light, NOTHING_LEFT_OUT, state.update.work, dict(state.outbox)
    )
    again, effects = play(again, Connected(), head(driver, 1))
    assert {envelope.raw for envelope in get_published(effects)} == {commit.raw}
    assert not [effect for effect in effects if isinstance(effect, Train)]


def test_late_training_is_dropped_and_says_so() -> None:
    """The phase has moved on while it trained: nothing is sent, a note tells why."""
    driver = make_rounds(1)
    state, _ = play(build_agent(), head(driver, 1), head(driver, 2))
    assert state.light.phase is Phase.REVEAL
    after, effects = play(state, trained())
    assert [effect.text for effect in effects if isinstance(effect, Note)] == ["training came too late for its round"]
    assert get_published(effects) == [] and after.update.work is None


def test_failed_training_leaves_the_device_following() -> None:
    """A trainer's failure is a fault that somebody reads; the device waits for the next round."""
    state, _ = play(build_agent(), head(make_rounds(1), 1))
    after, effects = play(state, TrainingFailed(Round(1), "no data"))
    assert [effect.is_fault for effect in effects if isinstance(effect, Note)] == [True]
    assert not after.is_training


def test_device_computes_the_model_and_saves_it() -> None:
    """From headers and bodies it reaches the chain's model by itself, and reports it."""
    driver = make_rounds(1)
    events = [event for height in range(1, 6) for event in (head(driver, height), body(driver, height))]
    state, effects = play(build_agent(), *events)
    assert state.light.is_synced and state.light.model_hash == driver.state.model_hash
    assert [(r.round, r.is_mismatch) for r in effects if isinstance(r, Report)] == [(1, False)]
    assert [s.light.model_hash for s in effects if isinstance(s, SavePosition)] == [driver.state.model_hash]


def test_saved_position_is_always_one_that_a_restart_accepts() -> None:
    """A device that works through two rounds at once saves no model that the header at hand does not prove."""
    driver = make_rounds(2)
    bodies = [body(driver, height) for height in (3, 5, 7, 9)]
    heads = [head(driver, height) for height in range(1, 10)]
    state, effects = play(build_agent(), *heads, *bodies)
    assert state.light.model_round == 2
    saved = [effect for effect in effects if isinstance(effect, SavePosition)]
    assert saved
    for position in saved:
        assert position.light.carried is not None
        vectors = encode_vector(position.light.model), encode_carried(position.light.carried)
        restored = restore(build_agent().light, position.head, *vectors)
        assert restored.model_hash == position.light.model_hash


def test_device_that_missed_rounds_asks_for_the_model_and_is_not_called_accepted() -> None:
    """Its timer asks with the model; the snapshot brings it up, and says nothing about whose updates are in it."""
    driver = make_rounds(2)
    state, effects = play(build_agent(), head(driver, 9))
    assert [e.delay_ms for e in effects if isinstance(e, StartTimer) and e.timer is Timer.RESYNC] == [1_000]
    state, effects = play(state, TimerFired(Timer.RESYNC))
    assert [(e.kind, e.fields[2]) for e in get_published(effects)] == [(Kind.ASK, Want.FULL_MODEL)]
    state = replace(state, light=replace(state.light, accepted=(CHAIN.devices[0].address,)))
    state, effects = play(state, snapshot(driver))
    assert state.light.is_synced and state.light.accepted == ()
    assert [(r.round, r.is_accepted) for r in effects if isinstance(r, Report)] == [(2, False)]


def test_settlement_that_cannot_be_used_is_followed_by_a_question_at_once() -> None:
    """The updates of the round went by unseen: no body can help any more, so it does not wait for the timer."""
    driver = make_rounds(1)
    state, effects = play(build_agent(), head(driver, 4), head(driver, 5))
    assert get_published(effects) == []
    _, effects = play(state, body(driver, 5))
    assert [envelope.kind for envelope in get_published(effects)] == [Kind.ASK]


def test_other_model_than_the_chains_is_told_once_and_ends_taking_part() -> None:
    """It keeps its old model, reports the mismatch, and trains no more."""
    driver = make_rounds(1)
    events = [event for height in range(1, 5) for event in (head(driver, height), body(driver, height))]
    state, _ = play(build_agent(), *events, head(driver, 5))
    broken = replace(state, light=replace(state.light, model=state.light.model + 1))
    after, effects = play(broken, body(driver, 5))
    assert after.trouble is Trouble.DIVERGED and after.light.model_hash == CHAIN.state.model_hash
    assert [report.is_mismatch for report in effects if isinstance(report, Report)] == [True]
    again, effects = play(after, body(driver, 5))
    assert not [effect for effect in effects if isinstance(effect, Report | Train)]
    assert play(again, Connected())[1][0] == Follow(None, HOME.address)


def test_silent_miner_is_asked_first_and_left_then() -> None:
    """Half of the failover time: a question to it and to another, and the commitment again; all of it: the next."""
    state, effects = play(build_agent(), Connected(), head(make_rounds(1), 1), trained())
    (commit,) = get_published(effects)
    state, _ = play(state, receipt(commit.digest()))
    state, effects = play(state, TimerFired(Timer.SILENCE), now_ms=4_999)
    assert get_published(effects) == []
    state, effects = play(state, TimerFired(Timer.SILENCE), now_ms=5_000)
    assert [envelope.kind for envelope in get_published(effects)] == [Kind.ASK, Kind.ASK, Kind.COMMIT]
    asked = [envelope.fields[1] for envelope in get_published(effects)[:2]]
    assert asked == [HOME.address, CHAIN.miners[1].address]
    assert not [effect for effect in effects if isinstance(effect, Follow)]
    _, effects = play(state, TimerFired(Timer.SILENCE), now_ms=10_000)
    assert Follow(HOME.address, CHAIN.miners[1].address) in effects
    asked = [envelope for envelope in get_published(effects) if envelope.kind is Ask.kind]
    assert [envelope.fields[1] for envelope in asked] == [CHAIN.miners[1].address]


def test_miner_that_keeps_news_back_is_left_for_one_that_tells() -> None:
    """A home that repeats an old header for ever is no silent one; the answer of another miner ends its hold."""
    driver = make_rounds(1)
    state, _ = play(build_agent(), Connected(), head(driver, 1), trained())
    state, _ = play(state, head(driver, 1), now_ms=4_000)
    state, effects = play(state, TimerFired(Timer.SILENCE), now_ms=9_000)
    other = CHAIN.miners[1].address
    assert other in [envelope.fields[1] for envelope in get_published(effects) if envelope.kind is Kind.ASK]
    fields = (driver.blocks[1].header_bytes, driver.certificates[1], b"")
    answer = PacketReceived(TOPICS.miner_to(other, CHAIN.devices[0].address), encode_packet(PacketType.HEAD, *fields))
    state, effects = play(state, answer, now_ms=9_001)
    assert state.light.height == 2
    assert Follow(HOME.address, other) in effects


def test_model_that_does_not_come_is_asked_of_another_miner() -> None:
    """The followed miner first, then one of the others, in turn."""
    driver = make_rounds(2)
    state, _ = play(build_agent(), head(driver, 9))
    asked = []
    for _ in range(4):
        state, effects = play(state, TimerFired(Timer.RESYNC))
        asked += [envelope.fields[1] for envelope in get_published(effects)]
    home, first, second = (CHAIN.miners[number].address for number in range(3))
    assert asked == [home, first, home, second]


def test_residual_is_forgotten_when_nobody_knows_whether_the_update_was_accepted() -> None:
    """After a snapshot past its own update: what was sent may be in the model, and must not be sent twice."""
    driver = make_rounds(2)
    state, _ = play(replace(build_agent(), residual=NOTHING_LEFT_OUT + 7), Connected(), head(driver, 1), trained())
    assert state.update.work is not None and state.residual.any()
    state, _ = play(state, snapshot(driver))
    assert state.light.model_round == 2
    assert not state.residual.any()


def test_device_that_trains_leaves_nobody() -> None:
    """Training is long and the chain is quiet meanwhile: that is no silence."""
    state, _ = play(build_agent(), Connected(), head(make_rounds(1), 1))
    assert state.is_training
    _, effects = play(state, TimerFired(Timer.SILENCE), now_ms=600_000)
    assert [type(effect) for effect in effects] == [StartTimer]


def test_device_rests_after_the_rounds_it_was_told() -> None:
    """It computes the last round's model and trains no more."""
    driver = make_rounds(1)
    events = [event for height in range(1, 6) for event in (head(driver, height), body(driver, height))]
    state, effects = play(build_agent(until_round=1), *events)
    assert state.light.model_round == 1
    assert [effect.round for effect in effects if isinstance(effect, Train)] == [1]


def test_what_the_chain_cannot_use_any_more_leaves_the_outbox() -> None:
    """The commit phase ended before a receipt came: the outbox is emptied with the reason."""
    driver = make_rounds(1)
    state, effects = play(build_agent(), head(driver, 1), trained())
    (commit,) = get_published(effects)
    after, effects = play(state, head(driver, 2))
    assert DropOutbox(Hash(commit.digest()), "the phase is over") in effects
    assert [envelope.kind for envelope in get_published(effects)] == [Kind.REVEAL]
    assert len(after.outbox) == 1
