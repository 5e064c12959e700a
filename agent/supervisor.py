"""Share out the CPU while the agent runs: read the board, ask the scheduler, and hold the workers to its decision.

It decides every `[scheduler] period_s`, and at once, by the last reading, when a round takes a turn: a phase opens, a
training begins or ends, scores are due. Only the workers and the `MiningAllowed` event act on its decisions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.core import scoring
from agent.core.state import AgentState
from agent.core.values import (
    ComputeScore,
    Effect,
    Event,
    MiningAllowed,
    Report,
    ScoreComputed,
    Train,
    TrainingDone,
    WorkHeld,
)
from agent.edge.power.board import Board
from agent.edge.store.history_file import load_history, save_history
from agent.edge.workers.workers import MINE, TRAIN, Workers
from agent.scheduling.decide import REST, build_scheduler_state, decide
from agent.scheduling.energy import UNKNOWN, Energy, compute_energy, compute_share
from agent.scheduling.history import (
    RoundHistory,
    build_history,
    observe_score,
    observe_scored_round,
    observe_settled,
    observe_training,
)
from agent.scheduling.inputs import (
    LOADS_MAX,
    Measured,
    Watch,
    build_inputs,
    describe_load,
    expect_round_of_scores,
    watch_round,
)
from agent.scheduling.readings import BoardReading, Shares
from agent.scheduling.settings import SchedulerSettings
from agent.scheduling.values import UNKNOWN_BOARD, CpuOutlook, Decision, compute_core_second_cost
from agent.status.values import (
    CpuStatus,
    EarnedStatus,
    SchedulerStatus,
    ShareStatus,
    TrainingStatus,
    WorkStatus,
)
from flchain.base.frozen import replace
from flchain.base.types import Millis, UnixMillis
from flchain.wire.messages import Phase
from flchain_edge.process.event_loop import read_clocks
from flchain_edge.process.kernel_clock import is_clock_synchronised

log = logging.getLogger("agent.supervisor")

SAVE_ROUNDS = 16
"""The history is written once in this many rounds, and at the end: a power cut costs what a few rounds taught."""


@dataclass(frozen=True)
class _Look:
    """One reading of the board and of the CPU time that the workers have taken."""

    reading: BoardReading
    at_s: float
    busy_s: float
    """CPU seconds of the whole board."""
    cpu_s: dict[str, float]


class Supervisor:
    """Owns the scheduler's state and what it learns from. `post` takes the events that follow from a decision."""

    def __init__(
        self,
        settings: SchedulerSettings,
        state: AgentState,
        workers: Workers,
        board: Board,
        post: Callable[[Event], None],
        *,
        data_dir: Path,
        trust_clock: bool = False,
        clocks: Callable[[], tuple[Millis, UnixMillis]] = read_clocks,
    ) -> None:
        self._settings = settings
        self._state = state
        self._workers = workers
        self._board = board
        self._post = post
        self._data_dir = data_dir
        self._trust_clock = trust_clock
        self._clocks = clocks
        light = state.light
        fresh = build_history(light.chain.hex(), light.params.commit_patience_ms / 1000)
        self._history = load_history(data_dir, replace(fresh, policy=settings.policy), settings.policy)
        self._scheduler = build_scheduler_state(settings, self._history.memory)
        self._watch, self._history = watch_round(None, self._history, state, self._clocks()[0])
        self._look: _Look | None = None
        self._loads: deque[float] = deque(maxlen=LOADS_MAX)
        self._given: Shares | None = None
        self._cpu_s = workers.read_cpu_s()
        self._job_cpu_s = dict(self._cpu_s)
        """CPU seconds that each worker had taken when its running job began."""
        self._reported_cpu_s = self._cpu_s[TRAIN]
        self._meter = board.snapshot()
        """The energy meter when the last round was reported."""
        self._reports = 0
        self._turn: tuple[object, ...] = ()
        self._said = ""
        self._is_held_told = False
        self._has_failed = False
        self.decision = Decision(REST, "the board has not been measured yet")

    @property
    def history(self) -> RoundHistory:
        """What was learned so far."""
        return self._history

    @property
    def watch(self) -> Watch:
        """Where the round stands."""
        return self._watch

    async def run(self, on_look: Callable[[], None]) -> None:
        """Measure and decide until cancelled; call `on_look` after each time."""
        while True:
            try:
                await self.look()
                on_look()
            except Exception as error:  # our fault: without knowing the board's state it must not be loaded
                if not self._has_failed:
                    log.error("the board's state cannot be judged, training and mining paused", exc_info=error)
                self._has_failed, self._look = True, None
                self._apply(REST)
            await asyncio.sleep(self._settings.period_s)

    async def look(self) -> None:
        """Measure the board, and decide again."""
        reading, before = await self._board.read(), self._look
        cpu_s, now_s, busy_s = self._workers.read_cpu_s(), time.monotonic(), self._board.snapshot().busy_s
        self._look = _Look(reading, now_s, busy_s, cpu_s)
        if before is not None and now_s > before.at_s:
            whole_s = (now_s - before.at_s) * (os.cpu_count() or 1)
            ours = {job: cpu_s[job] - before.cpu_s[job] for job in cpu_s}
            cores_s = (now_s - before.at_s) * self._workers.cores
            train, mine = (min(1.0, ours[job] / cores_s) for job in (TRAIN, MINE))
            self._given = Shares(train, min(mine, 1.0 - train))
            self._loads.append(min(1.0, max(0.0, (busy_s - before.busy_s - sum(ours.values())) / whole_s)))
            self._spend(sum(ours.values()))
        self._decide()

    def _spend(self, core_s: float) -> None:
        self._history = replace(self._history, spent_core_s=self._history.spent_core_s + core_s)

    def on_step(self, event: Event, state: AgentState, effects: Iterable[Effect]) -> None:
        """Take note of a step of the machine, before its effects: work that begins finds its share already set."""
        self._state, now_ms = state, self._clocks()[0]
        self._watch, self._history = watch_round(self._watch, self._history, state, now_ms)
        self._learn(event, effects)
        turn = (state.light.round, state.light.phase, state.is_training, scoring.count_due(state) > 0)
        if turn != self._turn:
            self._turn = turn
            self._decide()

    def _learn(self, event: Event, effects: Iterable[Effect]) -> None:
        match event:
            case TrainingDone():
                self._history = observe_training(self._history, self._read_job(TRAIN))
            case ScoreComputed():
                self._history = observe_score(self._history, self._read_job(MINE))
        for effect in effects:
            match effect:
                case Train():
                    self._job_cpu_s[TRAIN] = self._workers.read_cpu_s()[TRAIN]
                case ComputeScore():
                    self._job_cpu_s[MINE] = self._workers.read_cpu_s()[MINE]
                case Report():
                    self._on_report(effect)

    def _read_job(self, job: str) -> float:
        """Return the CPU seconds of the running job, or of the one that has just ended."""
        return max(0.0, self._workers.read_cpu_s()[job] - self._job_cpu_s[job])

    def _on_report(self, report: Report) -> None:
        light, state = self._state.light, self._state
        if report.work is not None and light.accepted:  # a model that came whole names no updates
            coins = light.params.reward_per_update
            self._history = observe_settled(self._history, coins, is_accepted=report.is_accepted)
        scores = state.scoring.scores
        if scores is not None and scores.round == report.round:
            self._history = observe_scored_round(self._history, expect_round_of_scores(light))
        self._reports += 1
        if self._reports % SAVE_ROUNDS == 0:
            self.save()

    async def measure_round(self) -> tuple[Energy, Energy]:
        """Return the board's energy since the last call, and training's part of it, by the CPU time it took."""
        before, now = self._meter, await self._board.refresh()
        self._meter = now
        train_s = self._workers.read_cpu_s()[TRAIN]
        energy, used_s = compute_energy(before, now), train_s - self._reported_cpu_s
        self._reported_cpu_s = train_s
        return energy, compute_share(energy, used_s, now.busy_s - before.busy_s) if used_s > 0 else UNKNOWN

    def _decide(self) -> None:
        """Decide by the last reading. Before the first, nothing is known of the board, and nothing is computed."""
        if self._look is None:
            self._apply(self.decision.shares)
            return
        inputs = build_inputs(self._state, self._watch, self._history, self._measure(self._look))
        self._scheduler, self.decision = decide(self._scheduler, inputs, self._clocks()[0])
        self._history = replace(self._history, memory=self._scheduler.memory)
        self._apply(self.decision.shares)
        is_held = self.decision.shares == REST and (self._state.is_training or self._state.is_scoring)
        if is_held != self._state.is_held:
            self._post(WorkHeld(is_held))
        if self._state.config.is_mining and self.decision.is_mining_allowed != self._state.is_mining_allowed:
            self._post(MiningAllowed(self.decision.is_mining_allowed))
        self._say()

    def _measure(self, look: _Look) -> Measured:
        mean, deviation = describe_load(tuple(self._loads))
        cpu = CpuOutlook(
            cores=float(self._workers.cores),
            other_load=mean,
            other_load_sd=deviation,
            train_cores_max=self._workers.get_cores_max(TRAIN),
            mine_cores_max=self._workers.get_cores_max(MINE),
        )
        return Measured(
            reading=look.reading,
            cpu=cpu,
            steps=self._workers.training_steps,
            training_core_s=self._read_job(TRAIN),
            minute_of_day=self.read_minute(),
            profile=self._board.profile,
            earned=self.compute_earned(),
        )

    def read_minute(self) -> int | None:
        """Return local time, once it is known: from a time server, a certified header, or the operator's word."""
        is_known = self._trust_clock or self._state.clock.chain is not None or is_clock_synchronised()
        if not is_known:
            return None
        local = time.localtime(max(self._state.clock.time_ms, self._clocks()[1]) / 1000)
        return 60 * local.tm_hour + local.tm_min

    def compute_earned(self) -> float:
        """Return money earned over all processes, less costs; without prices, the costs alone."""
        known, settings = self._history, self._settings
        profile = self._board.profile or UNKNOWN_BOARD
        cost = compute_core_second_cost(profile, settings.energy_price_per_kwh, settings.wear_per_core_hour)
        return (settings.coin_value or 0.0) * (known.update_coins + known.score_coins) - cost * known.spent_core_s

    def _apply(self, shares: Shares) -> None:
        try:
            self._workers.apply_shares(shares)
        except OSError as error:
            self._tell(logging.ERROR, "the CPU shares cannot be set", {"cause": error})

    def _say(self) -> None:
        """Log what an operator would ask about in the morning: that an update is held, and that it goes on."""
        light, is_running = self._state.light, self.decision.shares.train > 0
        is_due = self._state.is_training and light.phase is Phase.COMMIT and self._state.update.round == light.round
        if is_due and is_running == self._is_held_told:
            self._is_held_told = not is_running
            text = "training goes on" if is_running else "training is held"
            log.info(text, extra={"round": light.round, "why": self.decision.explanation})

    def _tell(self, level: int, text: str, fields: dict[str, object]) -> None:
        """Log a line once, until another one is due."""
        if text != self._said:
            self._said = text
            log.log(level, text, extra=fields)

    def save(self) -> None:
        """Save the history; if the disk refuses it, only the history is lost, and the log says so."""
        try:
            save_history(self._data_dir, self._history)
        except OSError as error:
            self._tell(logging.WARNING, "the history of rounds could not be saved", {"cause": error})

    def describe(self) -> WorkStatus:
        """Return this part of the status."""
        decision, known, given = self.decision, self._history, self._given
        steps_done, steps = self._workers.training_steps
        scheduler = SchedulerStatus(
            policy=self._settings.policy,
            explanation=decision.explanation,
            asked=ShareStatus(decision.shares.train, decision.shares.mine),
            given=None if given is None else ShareStatus(given.train, given.mine),
            is_mining_allowed=decision.is_mining_allowed,
            period_s=self._settings.period_s,
        )
        training = TrainingStatus(
            is_running=self._state.is_training,
            steps_done=steps_done,
            steps=steps,
            core_s=round(self._read_job(TRAIN), 2),
            usual_core_s=known.train_core_s,
        )
        earned = EarnedStatus(
            update_coins=known.update_coins,
            score_coins=math.floor(known.score_coins),
            scored_rounds=known.scored_rounds,
            acceptance=round(known.acceptance.chance, 3),
        )
        others = describe_load(tuple(self._loads))[0]
        return WorkStatus(
            scheduler=scheduler,
            training=training,
            board=None if self._look is None else self._look.reading,
            earned=earned,
            cpu=CpuStatus(mechanism=self._workers.mechanism, cores=self._workers.cores, others=others),
        )
