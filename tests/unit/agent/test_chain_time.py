"""A board whose clock is wrong at boot: what it says, when, and by what time it judges age."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.core.chain_time import ChainTime, compute_time
from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState, Trouble
from agent.core.values import (
    AgentConfig,
    Connected,
    Effect,
    Event,
    Note,
    PacketReceived,
    Publish,
    Timer,
    TimerFired,
    Train,
    TrainingDone,
)
from flchain.base.types import Millis, Round, UnixMillis
from flchain.light.follow import build_light_state
from flchain.wire.envelope import open_envelope
from flchain.wire.fields import Kind
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from tests.support.builders.chain import PARAMETERS_COUNT, Driver, build_chain

CHAIN = build_chain()
TOPICS = Topics.of_chain(CHAIN.id)
HOME = CHAIN.miners[0]
BOOT_CLOCK = UnixMillis(0)
"""What a board without a clock believes: 1970."""


def build_agent(before: AgentState | None = None) -> AgentState:
    """At genesis, or what a restart makes of an earlier life's disk."""
    config = AgentConfig(CHAIN.devices[0], tuple((key.address, key.public_key) for key in CHAIN.miners))
    nothing = np.zeros(PARAMETERS_COUNT, np.int32)
    if before is None:
        return build_agent_state(config, build_light_state(CHAIN.genesis, CHAIN.model), nothing)
    return build_agent_state(config, before.light, before.residual, before.update.work, dict(before.outbox))


def play(state: AgentState, *events: Event, clock_ms: int = BOOT_CLOCK, now_ms: int = 0):
    done: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event, Millis(now_ms), UnixMillis(clock_ms))
        done += effects
    return state, done


def head(driver: Driver, height: int) -> PacketReceived:
    fields = (driver.blocks[height - 1].header_bytes, driver.certificates[height - 1], b"")
    return PacketReceived(TOPICS.miner_head(HOME.address), encode_packet(PacketType.HEAD, *fields))


def get_said(effects: tuple[Effect, ...]) -> list[Kind]:
    found = [effect for effect in effects if isinstance(effect, Publish)]
    return [open_envelope(decode_packet(effect.packet).fields[0], CHAIN.id).kind for effect in found]


def make_round() -> Driver:
    driver = Driver(CHAIN)
    driver.run_round()
    return driver


def test_nothing_is_said_about_a_round_before_a_header_tells_the_time() -> None:
    """With work and outbox on disk and a clock of 1970: only questions go out, until a certified header is heard."""
    driver = make_round()
    delta = np.linspace(-0.1, 0.1, PARAMETERS_COUNT).astype(np.float32)
    before, effects = play(build_agent(), head(driver, 1), TrainingDone(Round(1), delta, 100, 5, 0.5))
    assert get_said(effects) == [Kind.COMMIT]
    state, effects = play(build_agent(before), Connected(), TimerFired(Timer.RESEND))
    assert get_said(effects) == [] and not [effect for effect in effects if isinstance(effect, Train)]
    state, effects = play(state, TimerFired(Timer.SILENCE), now_ms=6_000)
    assert set(get_said(effects)) <= {Kind.ASK}
    told, effects = play(state, head(driver, 1))
    assert get_said(effects) == [Kind.COMMIT], "the header that it knew already is enough: the chain still stands there"
    assert play(told, head(driver, 1))[1] == ()
    _, effects = play(state, head(driver, 2))
    assert get_said(effects) == [Kind.REVEAL], "a newer one as well"


def test_an_older_header_tells_nothing_after_a_boot() -> None:
    """A miner that is behind does not make a restarted device speak."""
    driver = make_round()
    before, _ = play(build_agent(), head(driver, 1), head(driver, 2))
    state, effects = play(build_agent(before), Connected(), head(driver, 1))
    assert state.clock.chain is None and get_said(effects) == []


def test_age_is_judged_by_the_chains_time_where_the_clock_is_behind() -> None:
    """A clock of 1970 makes no header younger: what has passed since the newest header counts."""
    driver = make_round()
    state, _ = play(build_agent(), head(driver, 1))
    trusting_ms = state.light.trust.trusting_s * 1_000
    young, effects = play(state, head(driver, 2), now_ms=trusting_ms)
    assert young.light.height == 2
    old, effects = play(state, head(driver, 2), now_ms=trusting_ms + 1)
    assert old.light.height == 1 and [note.is_fault for note in effects if isinstance(note, Note)] == [True]
    again, effects = play(replace(old, trouble=Trouble.NONE), head(driver, 2), now_ms=0, clock_ms=2**42)
    assert again.light.height == 1, "a clock far ahead cannot be told from a long absence"
    assert "clock" in next(note.text for note in effects if isinstance(note, Note))


@given(st.integers(0, 2**43), st.integers(0, 2**43), st.integers(0, 2**40), st.integers(0, 2**40))
def test_time_is_never_earlier_than_the_chain_says(clock: int, header: int, heard: int, passed: int) -> None:
    """Whatever the clock shows, and it never runs backwards with the monotonic clock."""
    known = ChainTime(UnixMillis(header), Millis(heard))
    time = compute_time(known, UnixMillis(clock), Millis(heard + passed))
    assert time >= header + passed and time >= clock
    assert compute_time(known, UnixMillis(clock), Millis(heard + passed + 1)) >= time
    assert compute_time(None, UnixMillis(clock), Millis(heard)) == clock
