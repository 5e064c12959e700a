"""The supervisor on a board of files with a real worker: what stops training, what lets it go on, and what is said."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agent.core.machine import build_agent_state, step
from agent.core.state import AgentState
from agent.core.values import AgentConfig, Event, MiningAllowed, PacketReceived, Train, TrainingDone, WorkHeld
from agent.edge.cpu.control import CpuControl, Unlimited
from agent.edge.cpu.settings import CpuSettings
from agent.edge.power.board import Board
from agent.edge.power.files import BoardRoots
from agent.edge.power.settings import PowerSettings
from agent.edge.store.history_file import HISTORY_FILE
from agent.edge.workers.frames import WorkerSpec
from agent.edge.workers.worker import Worker
from agent.edge.workers.workers import TRAIN, Workers
from agent.scheduling.policies.learned import LearnedMemory
from agent.scheduling.readings import Shares
from agent.scheduling.settings import SchedulerSettings
from agent.status.values import ShareStatus
from agent.supervisor import Supervisor
from flchain.base.types import Millis, Round, UnixMillis
from flchain.light.follow import build_light_state
from flchain.wire.packets import PacketType, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.newer_python import timeout
from tests.support.builders.board_trees import plant
from tests.support.builders.chain import NO_CLOCK, PARAMETERS_COUNT, Driver, build_chain

MODEL = Path(__file__).resolve().parents[3] / "tools" / "models" / "cnn1d.tflite"
ROWS, PARAMETERS = 200, 12_519
DEADLINE_S = 60.0
CHAIN = build_chain(miners=4, devices=5, reward_for_scores=10_000)
ZONE = "class/thermal/thermal_zone0/temp"
NOON_MS = UnixMillis(1_800_014_400_000)
COOL = {
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    ZONE: "41000",
    "class/power_supply/BAT0/type": "Battery",
    "class/power_supply/BAT0/uevent": "",
}


def write_battery(percent: int) -> dict[str, str]:
    words = f"POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_PRESENT=1\nPOWER_SUPPLY_CAPACITY={percent}"
    return {"class/power_supply/BAT0/uevent": words}


def open_round() -> AgentState:
    """A device that mines, in the COMMIT phase of round 1, told to train."""
    device = CHAIN.devices[0]
    config = AgentConfig(device, tuple((key.address, key.public_key) for key in CHAIN.miners), is_mining=True)
    light = build_light_state(CHAIN.genesis, CHAIN.model)
    return build_agent_state(config, light, np.zeros(PARAMETERS_COUNT, np.int32))


def first_head() -> PacketReceived:
    driver = Driver(CHAIN)
    driver.run_round()
    fields = (driver.blocks[0].header_bytes, driver.certificates[0], b"")
    topic = Topics.of_chain(CHAIN.id).miner_head(CHAIN.miners[0].address)
    return PacketReceived(topic, encode_packet(PacketType.HEAD, *fields))


class Scene:
    """A supervisor, its board, a worker, and a clock that goes on by `period_s` with each look."""

    def __init__(self, folder: Path, settings: SchedulerSettings, epochs: int = 20) -> None:
        rng = np.random.default_rng(5)
        y = np.arange(ROWS) % 4
        x = (rng.normal(0, 0.5, (ROWS, 100, 6)) + y[:, None, None]).astype(np.float32)
        np.savez(folder / "examples.npz", x=x, y=y)
        self.folder = folder
        self.sysfs, self.proc = folder / "sys", folder / "proc"
        plant(self.sysfs, {key: text for key, text in COOL.items() if "power_supply" not in key})
        self.set_free(1_000)
        (self.proc / "stat").symlink_to("/proc/stat")
        digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
        spec = WorkerSpec(str(MODEL), digest, str(folder / "examples.npz"), learning_rate=0.05, local_epochs=epochs)
        self.settings = settings
        self.cpu = CpuControl(Unlimited(), 2)
        self.trainer = Worker(TRAIN, spec, 8 * PARAMETERS, self.cpu)
        self.workers = Workers(self.cpu, self.trainer, None, CpuSettings())
        self.state = open_round()
        self.posted: list[Event] = []
        self.now_ms = 0

    def set_free(self, megabytes: int) -> None:
        plant(self.proc, {"meminfo": f"MemAvailable: {megabytes * 1000} kB"})

    def set_temperature(self, degrees: float) -> None:
        plant(self.sysfs, {ZONE: f"{1000 * degrees:.0f}"})

    def build(self) -> Supervisor:
        power = PowerSettings(board="rpi-4")
        return Supervisor(
            self.settings,
            self.state,
            self.workers,
            Board(power, BoardRoots(self.sysfs, self.proc), clock=lambda: self.now_ms / 1000),
            self.posted.append,
            data_dir=self.folder,
            trust_clock=True,
            clocks=lambda: (Millis(self.now_ms), UnixMillis(NOON_MS + self.now_ms)),
        )

    async def look(self, times: int = 1) -> str:
        """So many looks, one every period; what is said after them. What is posted reaches the machine."""
        for _ in range(times):
            self.now_ms += 1000 * self.settings.period_s
            await self.supervisor.look()
            while self.posted:
                self.feed(self.posted.pop(0))
        return self.supervisor.decision.explanation

    def feed(self, event: Event) -> None:
        self.state, effects = step(self.state, event, Millis(self.now_ms), NO_CLOCK)
        self.supervisor.on_step(event, self.state, effects)
        self.trains = any(isinstance(effect, Train) for effect in effects)

    @property
    def process(self) -> psutil.Process:
        assert self.trainer.pid is not None
        return psutil.Process(self.trainer.pid)

    def is_held(self) -> bool:
        return self.state.is_held

    def may_mine(self) -> bool:
        return self.state.is_mining_allowed

    def is_stopped(self) -> bool:
        return bool(self.process.status() == psutil.STATUS_STOPPED)

    def run(self, steps: Callable[[np.ndarray], Coroutine[Any, Any, None]]) -> None:
        async def scenario() -> None:
            try:
                async with timeout(DEADLINE_S):
                    initial = await self.workers.start()
                    self.supervisor = self.build()
                    await steps(initial)
            finally:
                self.workers.stop()

        asyncio.run(scenario())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def settings(**chosen: Any) -> SchedulerSettings:
    return SchedulerSettings(**{"hold_s": 1, **chosen})


def test_heat_stops_training_which_goes_on_with_its_work(tmp_path: Path) -> None:
    """At 74 C the training stands where it is and the machine listens for silent miners; a minute after it is cool
    again it goes on, and ends with the very delta of one that was not disturbed."""
    scene = Scene(tmp_path, settings())

    async def steps(initial: np.ndarray) -> None:
        whole = await scene.workers.train(Round(1), initial)
        await scene.look()
        scene.feed(first_head())
        assert scene.trains and not scene.is_stopped()
        assert "training 50%" in scene.supervisor.decision.explanation, "one thread of two cores"
        training = asyncio.create_task(scene.workers.train(Round(1), initial))
        started_s = scene.workers.read_cpu_s()[TRAIN]
        await until(lambda: scene.workers.read_cpu_s()[TRAIN] > started_s + 0.05)
        scene.set_temperature(74)
        said = await scene.look()
        await until(scene.is_stopped)
        assert said.startswith("training 0%") and "heat, 74 C" in said and scene.is_held()
        before_s = scene.workers.read_cpu_s()[TRAIN]
        assert scene.supervisor.describe().scheduler.asked == ShareStatus(0.0, 0.0)
        scene.set_temperature(41)
        await scene.look(2)
        assert scene.is_stopped() and scene.workers.read_cpu_s()[TRAIN] == before_s, "hysteresis"
        said = await scene.look(14)
        assert not scene.is_stopped() and not scene.is_held() and "training 10%" in said
        done = await training
        assert whole is not None and done is not None and done.delta.tobytes() == whole.delta.tobytes()

    scene.run(steps)


def test_a_low_battery_ends_mining_then_training(tmp_path: Path) -> None:
    """On battery nothing is mined and the device promises no scores; near the floor nothing is trained; charged again
    it trains, and on mains it mines."""
    scene = Scene(tmp_path, settings())
    plant(scene.sysfs, {**COOL, **write_battery(90)})

    async def steps(initial: np.ndarray) -> None:
        assert "no mining: on battery" in await scene.look()
        assert not scene.may_mine()
        scene.feed(first_head())
        assert scene.supervisor.decision.shares.train > 0
        plant(scene.sysfs, write_battery(21))
        assert "battery 21%" in await scene.look()
        assert scene.supervisor.decision.shares.train == 0 and scene.is_held()
        await until(scene.is_stopped)
        plant(scene.sysfs, write_battery(60))
        await scene.look(2)
        assert scene.supervisor.decision.shares.train > 0 and not scene.is_stopped()
        full = "POWER_SUPPLY_STATUS=Full\nPOWER_SUPPLY_PRESENT=1\nPOWER_SUPPLY_CAPACITY=100"
        plant(scene.sysfs, {"class/power_supply/BAT0/uevent": full})
        await scene.look()
        assert scene.may_mine()

    scene.run(steps)


def test_quiet_hours(tmp_path: Path) -> None:
    """In the quiet hours all rests and the line says so; at their end training goes on."""
    minute = read_local_minute()
    quiet = f"{format_minute(minute - 60)}-{format_minute(minute + 2)}"
    scene = Scene(tmp_path, settings(quiet_hours=quiet, period_s=30))

    async def steps(initial: np.ndarray) -> None:
        await scene.look()
        scene.feed(first_head())
        assert "quiet hours" in await scene.look()
        assert scene.is_held()
        await until(scene.is_stopped)
        said = await scene.look(6)
        assert "quiet" not in said and not scene.is_stopped() and not scene.is_held()

    scene.run(steps)


def read_local_minute() -> int:
    local = time.localtime(NOON_MS / 1000)
    return 60 * local.tm_hour + local.tm_min


def format_minute(minute: int) -> str:
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}"


def test_low_memory(tmp_path: Path) -> None:
    """Below the floor no scores are promised, below half of it nothing is trained; with a quarter more all is back."""
    scene = Scene(tmp_path, settings(memory_floor_mb=100))

    async def steps(initial: np.ndarray) -> None:
        await scene.look()
        scene.feed(first_head())
        scene.set_free(80)
        assert "no mining: memory is low" in await scene.look()
        assert not scene.may_mine() and not scene.is_stopped()
        scene.set_free(40)
        assert "memory is low" in await scene.look()
        assert scene.is_held()
        await until(scene.is_stopped)
        scene.set_free(60)
        await scene.look()
        await until(scene.is_stopped)  # not before a quarter more is free
        scene.set_free(130)
        await scene.look()
        assert not scene.is_stopped() and scene.may_mine()

    scene.run(steps)


def test_a_sensor_that_vanishes(tmp_path: Path) -> None:
    """Without its only thermometer a board trains on for a minute as before, then with less, and the line says why."""
    scene = Scene(tmp_path, settings(unmeasured_share_max=0.3))

    async def steps(initial: np.ndarray) -> None:
        await scene.look()
        scene.feed(first_head())
        (scene.sysfs / ZONE).unlink()
        assert "heat unmeasured" in await scene.look(2)
        await scene.look(20)
        assert scene.supervisor.decision.shares.train == pytest.approx(0.3)
        assert "heat unmeasured" in scene.supervisor.decision.explanation
        board = scene.supervisor.describe().board
        assert board is not None and board.temperature_c is None

    scene.run(steps)


def test_what_was_learned_survives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Costs of training and the policy's memory come back after a restart; damage, or another chain's, is not."""
    scene = Scene(tmp_path, settings(policy="learned", coin_value=1.0), epochs=3)

    async def steps(initial: np.ndarray) -> None:
        scene.feed(first_head())
        scene.workers.apply_shares(Shares(1.0, 0.0))  # this policy may begin with a round without training
        done = await scene.workers.train(Round(1), initial)
        assert isinstance(done, TrainingDone)
        small = replace(done, delta=np.full(PARAMETERS_COUNT, 0.01, np.float32))
        scene.feed(small)
        known = scene.supervisor.history
        assert known.train_core_s is not None and known.train_core_s > 0
        await scene.look(3)
        scene.supervisor.save()
        again = scene.build().history
        assert again.train_core_s == known.train_core_s
        assert isinstance(again.memory, LearnedMemory) and again.memory.action is None
        path = tmp_path / HISTORY_FILE
        whole = json.loads(path.read_text())
        for broken in (b"", b"\x00" * 100, b"{}", b"[" * 70_000):
            path.write_bytes(broken)
            assert scene.build().history.train_core_s is None
        for key, value in (("train_core_s", -1.0), ("durations", {"seen_s": []}), ("memory", {"a": [[1.0]]})):
            path.write_text(json.dumps(whole | {key: value}))
            assert scene.build().history.train_core_s is None, key
        path.write_text(json.dumps(whole | {"chain": "ff" * 32}))
        assert scene.build().history.train_core_s is None

    scene.run(steps)
    assert "is damaged, starting a new one" in caplog.text


def test_a_fault_of_ours_loads_no_board(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the board cannot be judged, work is held and the fault is told once; when it can, work goes on."""
    scene = Scene(tmp_path, settings(period_s=1))

    async def steps(initial: np.ndarray) -> None:
        await scene.look()
        scene.feed(first_head())
        assert not scene.is_stopped()
        told: list[bool] = []

        def on_look() -> None:
            told.append(True)
            if len(told) < 2:
                raise RuntimeError("a fault")

        running = asyncio.create_task(scene.supervisor.run(on_look))
        await until(lambda: bool(told))
        await until(scene.is_stopped)
        await until(lambda: len(told) >= 2)
        await until(lambda: not scene.is_stopped())
        running.cancel()

    scene.run(steps)
    assert caplog.text.count("the board's state cannot be judged") == 1


def test_mining_is_told_before_the_first_commitment(tmp_path: Path) -> None:
    """What follows from a decision is posted as events: MiningAllowed and WorkHeld, each only when it changes."""
    scene = Scene(tmp_path, settings())

    async def steps(initial: np.ndarray) -> None:
        scene.feed(first_head())
        await until(scene.is_stopped)  # nothing is computed before the board was looked at
        scene.set_temperature(80)
        scene.now_ms += 5000
        await scene.supervisor.look()
        assert scene.posted == [WorkHeld(True), MiningAllowed(False)]
        for event in scene.posted:
            scene.feed(event)
        scene.posted.clear()
        await scene.supervisor.look()
        assert scene.posted == []

    scene.run(steps)
