"""One run of the demo: start broker, agents and miners, wait for the last round, and stop them all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flchain.base.types import Address
from tools.demo.display import Display
from tools.demo.evaluation import Evaluator
from tools.demo.measures import Measures
from tools.demo.observer import Observer
from tools.demo.options import Options
from tools.demo.processes import DemoError, Processes, end_leftovers
from tools.demo.results import iterate_models, read_end, read_last_round
from tools.demo.view import DeviceRow, MinerRow, Snapshot
from tools.network.broker import Broker, start_broker
from tools.network.layout import Network, Node, write_configs

TICK_S = 0.25
START_TIMEOUT_S = 120.0
BLOCK_TIMEOUT_S = 120.0
"""Longest time without a new block, and longest wait for the last node to have the last block."""
CATCH_UP_S = 2.0


@dataclass
class Run:
    """Everything that one run needs. Ctrl-C sets `is_stopped`."""

    options: Options
    network: Network
    measures: Measures
    display: Display
    evaluator: Evaluator
    started_at: float
    stage: str = "starting the broker"
    told: list[str] = field(default_factory=list)
    is_stopped: bool = False

    async def run(self) -> None:
        """Run until every round is final on every node, or until a signal. Raises DemoError and BrokerError."""
        self._catch_signals()
        end_leftovers(self.network.out)
        self._processes = Processes(self.network.out, self._tell, self._on_start)
        broker = await asyncio.to_thread(start_broker, self.options.broker, self.network.out / "broker")
        try:
            plan = self.options.plan
            write_configs(
                self.network, broker.host, broker.port, self.options.rounds, mining=plan.mining, follow=plan.follow
            )
            height = max(read_end(node, self.network.genesis).height for node in self.network.miners)
            self._observer = Observer(self.network, broker.host, broker.port, self.evaluator.initial_model, height)
            await self._observer.start()
            evaluation = asyncio.create_task(self._evaluate_new())
            try:
                await self._run_network(broker)
            finally:
                # Nodes stop before the broker, so that they can disconnect from it.
                self._show_stage("stopping")
                await asyncio.to_thread(self._processes.stop)
                evaluation.cancel()
                await asyncio.gather(evaluation, return_exceptions=True)
                await self._observer.stop()
                self._keep_measures()
        finally:
            await asyncio.to_thread(broker.stop)
        await self._evaluate_missing()

    def _catch_signals(self) -> None:
        def stop() -> None:
            self.is_stopped = True

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop)

    async def _run_network(self, broker: Broker) -> None:
        agents, miners = self.network.agents, self.network.miners
        start = time.monotonic()
        # Agents first, so that the first round does not include the start of their interpreters.
        self._show_stage(f"starting {len(agents)} agents")
        await self._start_nodes(agents, broker)
        self._show_stage(f"starting {len(miners)} miners")
        await self._start_nodes(miners, broker)
        self.measures.startup_seconds = time.monotonic() - start
        self._show_stage("training")
        self._observer.last_block_at = time.monotonic()
        await self._tick_until(self._is_finished, broker, self._check_standstill)

    async def _start_nodes(self, nodes: tuple[Node, ...], broker: Broker) -> None:
        if self.is_stopped:
            return
        deadline = time.monotonic() + START_TIMEOUT_S
        self._processes.start(nodes)

        def check() -> None:
            if time.monotonic() > deadline:
                raise DemoError(f"some nodes did not reach the broker within {START_TIMEOUT_S:g} s; see the logs")

        await self._tick_until(lambda: self._processes.are_connected(nodes), broker, check, is_watching=False)

    async def _tick_until(
        self, is_done: Callable[[], bool], broker: Broker, check: Callable[[], None], is_watching: bool = True
    ) -> None:
        while not self.is_stopped and not is_done():
            check()
            if broker.ensure_running():
                self._tell("the broker had ended and was restarted")
            if is_watching:
                self._processes.watch()
                self._follow_bodies()
                self._observer.catch_up(self.network.agents, CATCH_UP_S)
            self.display.show(self._look())
            await asyncio.sleep(TICK_S)
        self.display.show(self._look())

    def _follow_bodies(self) -> None:
        """Take light bodies from a running miner: the first one, unless it is down."""
        running = [child.node for child in self._processes.alive if child.node.role == "miner" and child.is_running]
        followed = next((node for node in running if node == self.network.miners[0]), running[0] if running else None)
        if followed is not None:
            self._observer.follow(followed.address)

    def _is_finished(self) -> bool:
        """Return True if every round is final, and every node that is not given up has the last block and its model."""
        observer, rounds = self._observer, self.options.rounds
        if observer.settled_round < rounds:
            return False
        if self.stage == "training":
            self._show_stage("waiting for every node to get the last block")
        for child in self._processes.alive:
            if child.node.role == "agent":
                status = observer.devices[child.node.address].status
                if status is None or status.round < rounds:
                    return False
            elif observer.miners[child.node.address].height < observer.light.height:
                return False
        is_evaluated = not observer.new_models and self.measures.get(observer.settled_round).accuracy is not None
        return is_evaluated or observer.light.model_round < observer.settled_round

    def _check_standstill(self) -> None:
        roles = {child.node.role for child in self._processes.alive}
        if roles != {"agent", "miner"}:
            raise DemoError("no agent is left" if "agent" not in roles else "no miner is left")
        silence = time.monotonic() - self._observer.last_block_at
        if silence < BLOCK_TIMEOUT_S:
            return
        tails = "\n".join(child.read_log_tail() for child in self._processes.children.values())
        is_settled = self._observer.settled_round >= self.options.rounds
        what = "a node did not get the last block within" if is_settled else "no new block for"
        raise DemoError(f"{what} {silence:.0f} s: stopped\n{tails}")

    async def _evaluate_new(self) -> None:
        """Evaluate each settled round's model as the observer computes it; rounds that it misses come at the end."""
        if self.measures.initial_accuracy is None:
            self.measures.initial_accuracy, _ = await self.evaluator.evaluate(self.evaluator.initial_model)
        while True:
            while self._observer.new_models:
                number, model = self._observer.new_models[0]
                entry = self.measures.get(number)
                if entry.accuracy is None:
                    entry.accuracy, entry.evaluation_seconds = await self.evaluator.evaluate(model)
                self._observer.new_models.pop(0)
                self._keep_measures()
            await asyncio.sleep(TICK_S / 5)

    async def _evaluate_missing(self) -> None:
        """Evaluate the rounds that the observer did not see settle: the models come from a miner's ledger."""
        ends = {miner: read_end(miner, self.network.genesis) for miner in self.network.miners}
        furthest = max(ends, key=lambda miner: ends[miner].height)
        wanted = {n for n in range(1, ends[furthest].round + 1) if self.measures.get(n).accuracy is None}
        if not wanted:
            return
        self._show_stage("replaying the ledger for rounds that were not seen")
        ledger = furthest.database
        for number, model in iterate_models(ledger, self.network.genesis, self.evaluator.initial_model):
            if number in wanted:
                entry = self.measures.get(number)
                entry.accuracy, entry.evaluation_seconds = await self.evaluator.evaluate(model)
        self.measures.save(self.network.out)

    def _keep_measures(self) -> None:
        for number in self._observer.settled_at:
            if (seconds := self._observer.compute_round_seconds(number)) is not None:
                self.measures.get(number).seconds = seconds
        for child in self._processes.children.values():
            self.measures.keep_peak(child.node.role, child.peak_bytes)
        self.measures.save(self.network.out)

    def _on_start(self, node: Node) -> None:
        if node.role == "agent":
            self.measures.agent_starts.setdefault(node.name, []).append(read_last_round(node))
        with contextlib.suppress(KeyError):
            if not self._processes.children[node.name].is_running:
                self.measures.restarts += 1

    def _tell(self, text: str) -> None:
        self.told.append(text.splitlines()[0])
        self.display.tell(text)

    def _show_stage(self, stage: str) -> None:
        self.stage = stage
        self.display.show(self._look())

    def _look(self) -> Snapshot:
        """Return the current state for the display."""
        observer: Observer | None = getattr(self, "_observer", None)
        plan, genesis = self.options.plan, self.network.genesis
        names = {node.address: node.name for node in self.network.nodes}
        settled = observer.settled_round if observer else 0
        phase = observer.light.phase.name.lower() if observer else ""
        is_training = self.stage == "training"
        return Snapshot(
            title=f"{genesis.name} {genesis.compute_id().hex()[:8]} · {plan.dataset} · {plan.model} "
            f"{genesis.params.parameters_count:,} parameters · {plan.codec} · {plan.aggregation}",
            folder=str(self.network.out),
            stage=self.stage,
            round=settled + 1,
            rounds=self.options.rounds,
            settled=settled,
            phase=phase if is_training else "",
            height=observer.light.height if observer else 0,
            proposer=names.get(observer.proposer or Address(b""), "") if observer else "",
            seconds=time.monotonic() - self.started_at,
            accuracy=self._list_accuracy(settled),
            devices=tuple(self._look_at_agent(node) for node in self.network.agents) if observer else (),
            miners=tuple(self._look_at_miner(node) for node in self.network.miners) if observer else (),
            told=tuple(self.told),
        )

    def _list_accuracy(self, settled: int) -> tuple[float | None, ...]:
        known = [number for number, entry in self.measures.rounds.items() if entry.accuracy is not None]
        newest = min(settled, max(known, default=0))
        entries = (self.measures.rounds.get(number) for number in range(1, newest + 1))
        return (self.measures.initial_accuracy, *(entry.accuracy if entry else None for entry in entries))

    def _look_at_agent(self, node: Node) -> DeviceRow:
        view = self._observer.devices[node.address]
        status = view.status
        return DeviceRow(
            name=node.name,
            round=status.round if status else 0,
            model_hash=status.model_hash.hex() if status else "",
            training_seconds=status.training_ms / 1000 if status and status.training_ms else None,
            bytes_up=view.bytes_up,
            bytes_down=view.bytes_down,
            accepted=view.accepted,
            note="DIFFERENT MODEL" if status and status.is_mismatch else self._describe(node),
        )

    def _look_at_miner(self, node: Node) -> MinerRow:
        view = self._observer.miners[node.address]
        return MinerRow(node.name, view.height, view.head, view.proposed, self._describe(node))

    def _describe(self, node: Node) -> str:
        child = self._processes.children.get(node.name)
        if child is None:
            return ""
        if child.is_lost:
            return "lost"
        return f"restarts: {child.restarts}" if child.restarts else ""
