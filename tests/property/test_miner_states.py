"""Whatever a miner lives through, it is in a legal state, and the table is what decided."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

import miner.core.values as mv
from flchain.base.types import Height, Millis, Round, View
from flchain.consensus.bft import Step, Timeout
from miner.core import machine, transitions
from miner.core import state as state_rules
from miner.core.machine import build_miner_state
from miner.core.state import Agreement, CatchUpPhase, MinerState, Patience, Scorer, find_illegal
from miner.core.tip import Standing
from miner.core.transitions import TRANSITIONS
from tests.support.builders.chain import NO_CLOCK
from tests.support.sim_faults import ROUGH, schedule_faults
from tests.support.watched_machine import watch_steps
from tools.sim.network import Network

ROUNDS = 2
HEIGHTS = 12


def test_simulated_miners_are_only_in_legal_states(monkeypatch) -> None:
    """Rounds under faults, with miners that crash, restart and lose their links: each state after each event is legal,
    and the runs come through the entries that matter."""
    seen = watch_steps(monkeypatch, machine, transitions, state_rules)
    for seed in range(6):
        network = schedule_faults(Network(seed, rounds=ROUNDS, links=ROUGH, mining=frozenset({"d0"}))).run()
        assert network.violations == [], network.explain()
    for entry in (
        (mv.Connected, Agreement.NOT_BEGUN),
        (mv.PacketReceived, Agreement.NOT_BEGUN),
        (mv.PacketReceived, Agreement.UNDER_WAY),
        (mv.PacketReceived, Agreement.PAUSED),
        (Timeout, Agreement.UNDER_WAY),
        (mv.Timer.GOSSIP, Agreement.UNDER_WAY),
        (mv.Timer.PATIENCE, Patience.RUNNING),
        (mv.Timer.PATIENCE, Patience.FOR_DEVICES),
        (mv.Timer.ASK, CatchUpPhase.ASKING),
        (mv.ScoreComputed, Scorer.BUSY),
    ):
        assert seen[entry] > 0, entry


class Recorded:
    """Two calm rounds of a network: every packet that was published."""

    def __init__(self) -> None:
        self.packets: list[mv.PacketReceived] = []
        network = Network(1, rounds=ROUNDS)
        network.broker.on_publish.append(self.keep)
        network.run()
        self.chain = network.chain
        self.subjects = (None, *(key.address for key in self.chain.devices))

    def keep(self, sender: object, topic: str, packet: bytes) -> None:
        self.packets.append(mv.PacketReceived(topic, packet))


@lru_cache(maxsize=1)
def get_recorded() -> Recorded:
    return Recorded()


def build_miner() -> MinerState:
    chain = get_recorded().chain
    return build_miner_state(mv.MinerConfig(chain.miners[0], until_round=1), Standing(chain.state))


TIMEOUTS = st.builds(
    Timeout, st.sampled_from(list(Step)), st.integers(1, HEIGHTS).map(Height), st.integers(0, 2).map(View)
)


@st.composite
def any_event(draw: st.DrawFn) -> mv.Event:
    """An event of any row; packets mostly in the order in which they were published."""
    kind = draw(st.sampled_from([mv.Connected, Timeout, mv.ScoreComputed, *mv.Timer]))
    if isinstance(kind, mv.Timer):
        return mv.TimerFired(kind)
    if kind is Timeout:
        return mv.TimerFired(draw(TIMEOUTS))
    if kind is mv.ScoreComputed:
        subject = draw(st.sampled_from(get_recorded().subjects))
        return mv.ScoreComputed(Round(draw(st.integers(1, ROUNDS))), subject, draw(st.integers(0, 10_000)))
    return mv.Connected()


@st.composite
def any_life(draw: st.DrawFn) -> list[tuple[mv.Event, int]]:
    """Runs of recorded packets from anywhere, with other events between them, and the time that passes before each."""
    packets, first = get_recorded().packets, 0
    life: list[tuple[mv.Event, int]] = []
    for _ in range(draw(st.integers(1, 8))):
        first = draw(st.one_of(st.just(first), st.integers(0, len(packets) - 1)))
        last = first + draw(st.integers(0, 60))
        life += [(packet, 1) for packet in packets[first:last]]
        life += draw(st.lists(st.tuples(any_event(), st.integers(0, 6_000)), max_size=4))
        first = min(last, len(packets) - 1)
    return life


def test_the_events_below_are_all_that_there_are() -> None:
    """The random walk draws from every row of the table."""
    drawn = {mv.PacketReceived, mv.Connected, mv.ScoreComputed, Timeout, *mv.Timer}
    assert drawn == set(TRANSITIONS)


@settings(max_examples=40, deadline=None)
@given(any_life())
def test_any_order_of_events_leaves_a_legal_state(life: list[tuple[mv.Event, int]]) -> None:
    """Scores that nobody asked for, timers out of turn, packets out of order, and a restart in the end: all legal."""
    state, now_ms = build_miner(), 0
    for event, passed_ms in life:
        now_ms += passed_ms
        state, _ = machine.step(state, event, Millis(now_ms), NO_CLOCK)
        assert find_illegal(state) == (), event
    again = build_miner_state(state.config, Standing(state.chain, state.ledger))
    assert find_illegal(again) == ()
