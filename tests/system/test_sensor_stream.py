"""A device that learns from a live stream: emulated watch, MQTT, ring, windows, a round; and nothing raw leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.edge.data.dataset import load_dataset
from agent.edge.data.ring_reader import open_ring, read_rows
from agent.edge.data.settings import RING_FILE
from agent.settings import AgentSettings
from flchain_edge.model.model_files import NoWindows
from flchain_edge.mqtt.inbox import Received
from flchain_edge.newer_python import timeout
from flchain_edge.settings.config import load_config
from tests.support.networks.mqtt_link import InboxLink, settings_for
from tools.emulators.mqtt_sensors import Target, run_watch
from tools.emulators.recordings import NO_LABEL
from tools.network.broker import Broker, start_broker
from tools.network.datasets import load_watch

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tools" / "models" / "cnn1d.tflite"
DEADLINE_S = 150.0
SUBJECT = 3
CLASSES = load_watch().class_names


def write_node(folder: Path, role: str, broker: Broker, more: str = "") -> Path:
    folder.mkdir()
    config = folder / f"{role}.toml"
    config.write_text(
        f'genesis = "../genesis.cbor"\nmodel = "{MODEL}"\nexamples = "examples.npz"\ndata_dir = "data"\n'
        "until_round = 1\n"
        f'[key]\nfile = "key.pem"\n[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\n{more}'
    )
    return config


def get_sensing(broker: Broker) -> str:
    """The configuration of docs/sensors.md, with shorter flushes."""
    axes = ", ".join(
        f'{{name = "{kind}_{axis}", path = "{kind}[{n}]", unit = "{unit}"}}'
        for kind, unit in (("acc", "g"), ("gyr", "rad/s"))
        for n, axis in enumerate("xyz")
    )
    texts = ", ".join(f'"{name}"' for name in CLASSES)
    where = f'[sensors.mqtt.broker]\nhost = "{broker.host}"\nport = {broker.port}\n'
    channels = ", ".join(f'"watch.{kind}_{axis}"' for kind in ("acc", "gyr") for axis in "xyz")
    return f"""
[samples]
flush_s = 1
[dataset]
channels = [{channels}]
rate_hz = 50.0
window = 100
step = 25
windows_min = 4
[dataset.label]
channel = "person.label"
[[sensors]]
name = "watch"
kind = "mqtt"
[sensors.mqtt]
topics = ["watch/imu"]
time_path = "t"
channels = [{axes}]
{where}
[[sensors]]
name = "person"
kind = "mqtt"
[sensors.mqtt]
topics = ["watch/label"]
channels = [{{name = "label", path = ".", texts = [{texts}]}}]
{where}"""


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_network(folder: Path, broker: Broker) -> tuple[Path, Path]:
    """One miner that scores on another person, one device with sensors and no file of examples."""
    miner = write_node(folder / "miner", "miner", broker)
    agent = write_node(folder / "agent", "agent", broker, get_sensing(broker))
    watch = load_watch()
    others = np.flatnonzero(watch.client == 5)[:60]
    np.savez(miner.parent / "examples.npz", x=watch.x[others], y=watch.y[others])
    keys = [
        next(word for word in run(f"{role}.cli", "key", "--config", str(path)).split() if len(word) == 64)
        for role, path in (("miner", miner), ("agent", agent))
    ]
    shutil.copyfile(MODEL, folder / "model.tflite")
    (folder / "network.toml").write_text(
        f'name = "stream"\nmodel = "model.tflite"\npreset = "minimal"\n[[validators]]\npublic_key = "{keys[0]}"\n'
        f'[[devices]]\npublic_key = "{keys[1]}"\nhome = "{keys[0]}"\n'
    )
    run(
        "tools.cli", "genesis", "make", "--network", str(folder / "network.toml"), "--out", str(folder / "genesis.cbor")
    )
    assert "no problem" in run("agent.cli", "check", "--config", str(agent))
    return miner, agent


def read_round(agent: Path) -> int:
    """Samples that the device trained on in round 1; 0 while it is not settled."""
    database = agent.parent / "data" / "agent.db"
    with contextlib.suppress(sqlite3.OperationalError), sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        for (samples,) in db.execute("SELECT samples FROM rounds WHERE round = 1 AND is_accepted = 1"):
            return int(samples)
    return 0


@pytest.mark.timeout(240)
def test_a_device_learns_from_a_live_stream_and_nothing_raw_leaves_it(tmp_path: Path) -> None:
    """Readings at 50 Hz become windows with the wearer's labels, a round is trained on them and settled; on the broker
    there is nothing but what the emulator says and the protocol's own topics."""
    with start_broker("nats", tmp_path / "broker") as broker:
        miner, agent = make_network(tmp_path, broker)
        asyncio.run(scenario(broker, miner, agent))


async def scenario(broker: Broker, miner: Path, agent: Path) -> None:
    settings = load_config(agent, AgentSettings, {})
    heard: dict[str, int] = {}
    listener = InboxLink(settings_for(broker))
    listener.subscribe("#")
    await listener.start()

    async def listen() -> None:
        while True:
            event = await listener.events.get()
            if isinstance(event, Received):
                heard[event.topic] = heard.get(event.topic, 0) + 1

    watch = run_watch(Target(broker.host, broker.port, "watch"), SUBJECT, seconds=0, speed=1.0, seed=1, recording_s=4.0)
    tasks = [asyncio.create_task(listen()), asyncio.create_task(watch)]
    processes: list[subprocess.Popen[bytes]] = []

    def start(role: str, config: Path) -> None:
        with (config.parent / "log").open("wb") as log:
            command = [sys.executable, "-m", f"{role}.cli", "run", "--config", str(config)]
            processes.append(subprocess.Popen(command, stderr=log, cwd=ROOT))

    try:
        async with timeout(DEADLINE_S):
            start("agent", agent)  # both before a window is there: the round waits for the sensors
            start("miner", miner)
            while True:  # the agent writes, and this process reads, as a worker at the start of a round does
                with contextlib.suppress(NoWindows):
                    examples = load_dataset(settings, (100, 6), len(CLASSES))
                    break
                assert processes[0].poll() is None, (agent.parent / "log").read_text()
                await asyncio.sleep(0.2)
            while not (trained_on := read_round(agent)):
                assert all(process.poll() is None for process in processes), "a node has died"
                await asyncio.sleep(0.1)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(process.wait, 20) for process in processes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.stop()
    check(settings, examples.x, examples.y, heard)
    assert trained_on >= len(examples)
    assert codes == [0, 0]


def check(settings: AgentSettings, x: np.ndarray, y: np.ndarray, heard: dict[str, int]) -> None:
    assert x.shape[1:] == (100, 6)
    # each window, without what resampling moved, is a piece of a recording with that very label
    dataset = load_watch()
    for window, label in zip(x, y, strict=True):
        recordings = dataset.x[(dataset.client == SUBJECT) & (dataset.y == label)].reshape(-1, 6)
        # beginnings at every row; the emulated pace is that of the recording, so the error is jitter only
        starts = np.lib.stride_tricks.sliding_window_view(recordings, 100, axis=0).transpose(0, 2, 1)
        error = np.abs(starts - window).mean(axis=(1, 2)).min()
        assert error < 0.5 * np.abs(recordings).std(), "not what the wearer did under this label"
    with open_ring(settings.data_dir / RING_FILE) as db:
        names = {row["name"]: row["samples"] for row in read_rows(db, "SELECT * FROM sources")}
    assert names["watch"] >= 100
    assert names["person"] >= 1
    others = {topic for topic in heard if not topic.startswith("flchain/v1/")}
    assert others == {"watch/imu", "watch/label"}, "only the emulator's own topics beside the protocol's"
    assert any(topic.startswith("flchain/v1/") for topic in heard)
    assert NO_LABEL not in CLASSES
