"""The agent's only loop: edge -> event -> step -> effects -> edge."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from agent.core.chain_time import compute_time
from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState
from agent.core.values import (
    AgentConfig,
    ComputeScore,
    Connected,
    DropOutbox,
    Effect,
    Event,
    Follow,
    Note,
    PacketReceived,
    Publish,
    Refuse,
    Report,
    SaveOutbox,
    SavePosition,
    SaveRelease,
    SaveScores,
    SaveWork,
    ScoreComputed,
    ScoringFailed,
    SendChunks,
    StartTimer,
    TimerFired,
    Train,
    TrainingDone,
    TrainingFailed,
)
from agent.edge.data.sensing import Sensing
from agent.edge.data.sensor_checks import find_sensor_problems
from agent.edge.power.board import Board
from agent.edge.power.files import read_board_roots
from agent.edge.reporter import Reporter, read_facts
from agent.edge.store.disk_writes import read_disk_bytes
from agent.edge.store.status_file import StatusFile
from agent.edge.store.store import STORE_FILE, Change, RoundLine, Store
from agent.edge.update.fetch import RegistrarFetcher
from agent.edge.update.trust import Trust
from agent.edge.update.updater import Updater, find_places
from agent.edge.workers.allocator import return_memory
from agent.edge.workers.spawn import WorkerProcess
from agent.edge.workers.worker import WorkerFailed
from agent.edge.workers.workers import Workers, build_workers
from agent.settings import AgentSettings
from agent.status.report import BoardFacts
from agent.status.snapshot import EdgeStatus, LifeTimes, build_status
from agent.status.values import AgentStatus, SensorStatus, UpdateReport
from agent.supervisor import Supervisor
from flchain.base.crypto import Identity, compute_address
from flchain.base.errors import ConfigError
from flchain.base.frozen import replace
from flchain.base.types import Address, UnixMillis
from flchain.ledger.genesis import Genesis
from flchain.light.follow import build_light_state
from flchain.wire.packets import PacketType, encode_packet
from flchain_edge.enrolment.operators import load_operators
from flchain_edge.enrolment.renewal import RenewalKeeper
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.seam import Link
from flchain_edge.mqtt.settings import with_client_id
from flchain_edge.process.chain_files import load_genesis
from flchain_edge.process.event_loop import EventQueue, RefusalCounter, on_reload, read_clocks
from flchain_edge.process.sd_notify import Notifier, ServiceReport
from flchain_edge.settings.node import load_identity

log = logging.getLogger("agent")


class AgentRunner:
    """One agent process."""

    def __init__(
        self,
        state: AgentState,
        store: Store,
        link: Link,
        workers: Workers,
        queue: EventQueue[Event],
        *,
        supervisor: Supervisor,
        status: StatusFile,
        reporter: Reporter,
        describe_sensors: Callable[[], Sequence[SensorStatus]],
        updater: Updater | None = None,
    ) -> None:
        self._state = state
        self._store = store
        self._link = link
        self._workers = workers
        self._queue = queue
        self._supervisor = supervisor
        self._status = status
        self._reporter = reporter
        self._describe_sensors = describe_sensors
        self._updater = updater
        self._times = LifeTimes(started_s=time.monotonic())
        self._refusals = RefusalCounter()
        self._working: set[asyncio.Task[None]] = set()

    def describe(self) -> str:
        """Return where this device stands, in one line."""
        light = self._state.light
        return f"round {light.round}, {light.phase.name.lower()}, height {light.height}"

    def get_time_ms(self) -> UnixMillis | None:
        """Return the time, once a certified header has proved it."""
        chain, (now_ms, clock_ms) = self._state.clock.chain, read_clocks()
        return compute_time(chain, clock_ms, now_ms) if chain is not None else None

    async def run(self) -> None:
        """Run until cancelled, or until the disk fails. Raises StoreFull or LedgerCorrupt."""
        topics, config = self._state.topics, self._state.config
        releases = (topics.operator_release(operator) for operator, _ in config.operators)
        self._link.subscribe(topics.answers_to(config.identity.address), *releases)
        await self._link.start()
        supervising = asyncio.create_task(self._supervisor.run(self._tell_status), name="supervisor")
        try:
            await self._process_events()
        finally:
            supervising.cancel()
            self._supervisor.save()
            self._status.close(self._build_status())
            self._queue.stop_timers()
            await self._link.stop()

    async def _process_events(self) -> None:
        while True:
            await self._process(await self._queue.get())

    async def _process(self, event: Event) -> None:
        now_ms, clock_ms = read_clocks()
        if isinstance(event, PacketReceived | Connected):
            self._times = replace(self._times, heard_s=time.monotonic())
        self._state, effects = step(self._state, event, now_ms, clock_ms)
        self._supervisor.on_step(event, self._state, effects)
        # Work begins at once, beside the write: nothing of it leaves this device before its own event has come back.
        for effect in effects:
            if isinstance(effect, Train | ComputeScore):
                self._start_work(effect)
        # Everything that the event changes is durable, in one write, before any of it is sent.
        await self._store.save(*await self._list_changes(effects))
        for effect in effects:
            self._carry_out(effect)

    async def _list_changes(self, effects: Iterable[Effect]) -> list[Change]:
        changes: list[Change] = []
        for effect in effects:
            match effect:
                case SaveWork() | SaveScores() | SaveOutbox() | DropOutbox() | SavePosition():
                    changes.append(effect)
                case Report():
                    changes.append(await self._build_line(effect))
                case _:
                    pass
        return changes

    async def _build_line(self, report: Report) -> RoundLine:
        """Return what the round has cost since the one reported before."""
        energy, training = await self._supervisor.measure_round()
        link = self._link.describe()
        joules = None if energy.joules is None else round(energy.joules, 1)
        log.info("energy", extra={"round": report.round, "joules": joules, "source": energy.source.name.lower()})
        return RoundLine(report, link.bytes_sent, link.bytes_received, energy, training, disk_bytes=read_disk_bytes())

    def _build_status(self) -> AgentStatus:
        edges = EdgeStatus(
            work=self._supervisor.describe(),
            link=self._link.describe(),
            sensors=self._describe_sensors(),
            refused=self._refusals.counts,
            disk_bytes=read_disk_bytes(),
            update=UpdateReport() if self._updater is None else self._updater.describe(),
        )
        return build_status(self._state, self._supervisor.watch, self._times, edges, time.monotonic())

    def _tell_status(self) -> None:
        status = self._build_status()
        if self._updater is not None:
            self._updater.look(self._state, status, self._supervisor.read_minute())
        self._status.write(status)
        self._reporter.tell(status, time.monotonic(), self.get_time_ms())

    def _start_work(self, effect: Train | ComputeScore) -> None:
        task = asyncio.create_task(self._train(effect) if isinstance(effect, Train) else self._score(effect))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Train() | ComputeScore():
                pass  # begun already
            case Publish(topic, packet):
                self._link.send(topic, packet, is_again=effect.is_again)
            case SendChunks(_, digest, ranges):
                self._link.send_again(digest, ranges)
            case SaveWork() | SaveScores() | SaveOutbox() | SavePosition():
                pass  # durable already
            case DropOutbox(digest, reason, raw):
                if reason == "ok":
                    self._times = replace(self._times, receipt_s=time.monotonic())
                else:  # otherwise miners that lack a part may still ask for it
                    self._link.cancel(encode_packet(PacketType.MESSAGE, raw))
                log.debug("removed from the outbox", extra={"digest": digest[:8], "reason": reason})
            case Report():
                self._reporter.on_report(effect)
                self._tell_status()
            case SaveRelease(raw):
                if self._updater is not None:
                    self._updater.save(raw)
            case Follow(before, miner):
                self._follow(before, miner)
            case StartTimer(timer, delay_ms):
                self._queue.start_timer(timer, delay_ms, TimerFired(timer))
            case Refuse(code, detail):
                self._refusals.add(code, detail)
            case Note(text, fields, is_fault):
                log.log(logging.ERROR if is_fault else logging.INFO, text, extra=fields)

    def _follow(self, before: Address | None, miner: Address) -> None:
        is_full = self._state.light.is_full
        if before is not None:
            self._link.unsubscribe(*self._state.topics.news_of(before, is_full))
        self._link.subscribe(*self._state.topics.news_of(miner, is_full))
        heard_s = self._times.heard_s
        is_silent = heard_s is None or time.monotonic() - heard_s >= self._state.config.failover_ms / 1000
        if before is not None and is_silent and self._link.has_stand_ins:
            # No miner is heard at all: the broker answers, but is cut off from them.
            self._link.turn_away("no miner is heard through this broker")

    async def _train(self, effect: Train) -> None:
        event: TrainingDone | TrainingFailed | None
        try:
            event = await self._workers.train(effect.round, effect.model)
        except WorkerFailed as error:
            event = TrainingFailed(effect.round, str(error))
        if isinstance(event, TrainingDone) and (rate := self._link.uplink_bytes_per_s) is not None:
            event = replace(event, uplink_bytes_per_s=int(rate))
        if event is not None:
            self._queue.post(event)

    async def _score(self, effect: ComputeScore) -> None:
        try:
            score = await self._workers.score(effect.model)
        except WorkerFailed as error:
            self._queue.post(ScoringFailed(effect.round, str(error)))
        else:
            self._queue.post(ScoreComputed(effect.round, effect.subject, score))


def build_config(settings: AgentSettings, genesis: Genesis, identity: Identity) -> AgentConfig:
    """Return this device's identity and its miners, home first. Raises ConfigError if the chain does not know it."""
    homes = {entry.public_key: entry.home for entry in genesis.devices}
    home = homes.get(identity.public_key)
    if home is None:
        raise ConfigError((f"key {settings.key.file}: {identity.address.hex()} is not a device of this chain",))
    miners = sorted((compute_address(entry.public_key), entry.public_key) for entry in genesis.validators)
    first = next(index for index, (address, _) in enumerate(miners) if address == home)
    ordered = tuple(miners[first:] + miners[:first])
    failover_ms, is_mining = settings.failover_s * 1000, settings.mining.enabled
    if is_mining and not genesis.params.mining_weight_bp:
        log.warning("mining is enabled, but this chain neither counts nor pays devices' scores: it stays off")
        is_mining = False
    operators = tuple((compute_address(key), key) for key in load_operators(settings.enrolment.operators))
    return AgentConfig(
        identity, ordered, settings.until_round, failover_ms=failover_ms, is_mining=is_mining, operators=operators
    )


async def run_agent(settings: AgentSettings, spares: Sequence[WorkerProcess] = ()) -> None:
    """Load everything from the files and run; `spares` are workers that were forked early.

    Raises ConfigError, LedgerCorrupt or StoreFull; WorkerFailed if no worker comes up.
    """
    identity = load_identity(settings)
    genesis = load_genesis(settings.genesis)
    config = build_config(settings, genesis, identity)
    if problems := find_sensor_problems(settings.sensors, settings.dataset, settings.holdout_percent):
        raise ConfigError(problems)
    workers = build_workers(settings, genesis.params, spares, is_mining=config.is_mining)
    try:
        await _run_with(workers, settings, genesis, config)
    finally:
        workers.stop()


async def _run_with(workers: Workers, settings: AgentSettings, genesis: Genesis, config: AgentConfig) -> None:
    initial_model = await workers.start()
    light = build_light_state(genesis, initial_model, settings.get_checkpoint(), settings.follow == "full")
    store = await Store.open(Path(settings.data_dir) / STORE_FILE, light.chain)
    sensing = Sensing(settings.sensors, settings.samples, settings.data_dir)
    try:
        await sensing.start()
        stored = await store.load(light, np.zeros_like(initial_model), config.identity)
        saved = (stored.light, stored.residual, stored.work, stored.outbox)
        queue: EventQueue[Event] = EventQueue()
        facts = read_facts(settings.board.name, settings.board.labels, genesis.name)
        updater = _build_updater(settings, facts, config, light.chain, queue)
        release = updater.load_release() if updater is not None else None
        state = build_agent_state(config, *saved, saved_scores=stored.scores, release=release)
        report = ServiceReport(Notifier(), queue)
        address = config.identity.address.hex()
        link = MqttLink(with_client_id(settings.mqtt, address), report.relay(queue.on_link_event))
        return_memory()  # freed after reading files and keys
        workers.announce()
        log.info("starting", extra={"address": address, "chain": genesis.name, "round": stored.light.round})
        supervisor = _build_supervisor(settings, state, workers, queue)
        runner = AgentRunner(
            state,
            store,
            link,
            workers,
            queue,
            supervisor=supervisor,
            status=StatusFile(Path(settings.data_dir)),
            reporter=Reporter(facts, settings.board.report_s, light.chain, config.identity, link),
            describe_sensors=sensing.describe,
            updater=updater,
        )
        on_reload(lambda: link.reconnect("reload"))
        renewal = RenewalKeeper(settings, config.identity, runner.get_time_ms)
        async with report.reporting(runner.describe), renewal.keeping():
            await runner.run()
    finally:
        await sensing.stop()
        await store.close()


def _build_updater(
    settings: AgentSettings, facts: BoardFacts, config: AgentConfig, chain: bytes, queue: EventQueue[Event]
) -> Updater | None:
    """Return what brings releases to root; None where the operator is unknown, or no package is installed."""
    places = find_places(os.environ)
    if places is None or not config.operators:
        return None
    trust = Trust(chain, tuple(key for _, key in config.operators))
    fetch = RegistrarFetcher(settings, config.identity)
    updater = Updater(settings.update, places, trust, facts, fetch=fetch, post=queue.post)
    try:
        updater.start()
    except OSError as error:
        log.warning("no updates: their folder cannot be used", extra={"cause": error})
        return None
    return updater


def _build_supervisor(
    settings: AgentSettings, state: AgentState, workers: Workers, queue: EventQueue[Event]
) -> Supervisor:
    board, folder = Board(settings.power, read_board_roots()), Path(settings.data_dir)
    return Supervisor(
        settings.scheduler, state, workers, board, queue.post, data_dir=folder, trust_clock=settings.trust_clock
    )
