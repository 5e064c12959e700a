"""A device behind a slow, lossy line among fast ones: it takes part, round after round."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.chain_watch import ChainWatch
from tests.support.networks.cuttable_proxy import CuttableProxy, started_proxy
from tests.support.networks.real import RealNetwork
from tests.support.networks.slow_line import SlowLine, slow_line
from tools.demo.processes import CONNECTED, THREADS, Child
from tools.demo.results import query
from tools.network.broker import start_broker
from tools.network.datasets import load_npz
from tools.network.layout import Network, Node, Plan, build_network

pytestmark = pytest.mark.timeout(240)

MINERS, AGENTS, ROUNDS = 4, 3, 2
SHAPES = {"cnn1d": (100, 6), "mlp": (784,)}
CLASSES = 4


def lay_out(out: Path, model: str, codec: str) -> Network:
    """Little data that the model learns in a moment: a level a class, and noise."""
    rng = np.random.default_rng(3)
    count, people = 200, AGENTS + 2
    y = np.arange(count) % CLASSES
    x = rng.normal(0, 0.5, (count, *SHAPES[model])) + y.reshape(-1, *(1 for _ in SHAPES[model]))
    file = out.with_suffix(".npz")
    np.savez(file, x=x.astype(np.float32), y=y, client=np.arange(count) // (count // people))
    plan = Plan(
        dataset="levels",
        devices=AGENTS,
        miners=MINERS,
        seed=1,
        model=model,
        codec=codec,
        codec_level=20,
        downstream_codec=codec,
        downstream_level=20,
        follow="full",
        aggregation="weighted-sum",
        preset="edge",
        local_epochs=1,
        batch_size=32,
        learning_rate=0.05,
    )
    return build_network(out, plan, load_npz(file, model))


def start_inside(network: RealNetwork, node: Node, line: SlowLine) -> None:
    """The node's process at the far end of the line."""
    command = (*line.inside, sys.executable, "-m", f"{node.role}.cli", "run", "--config", str(node.config.resolve()))
    with node.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **THREADS},
            start_new_session=True,
        )
    network._processes.children[node.name] = Child(node, process, 0)
    network.down.discard(node.name)


def get_accepted(node: Node) -> list[int]:
    """The rounds in which this device's update was accepted."""
    if not node.database.exists():
        return []
    return [
        number for number, is_accepted in query(node.database, "SELECT round, is_accepted FROM rounds") if is_accepted
    ]


@contextlib.asynccontextmanager
async def started(folder: Path, layout: Network, line: SlowLine) -> AsyncIterator[tuple[RealNetwork, CuttableProxy]]:
    """All nodes, the first device at the far end of the line and connected before the others begin."""
    slow = layout.agents[0]
    with start_broker("nats", folder / "broker") as broker:
        async with started_proxy(broker.host, broker.port, line.host) as proxy:
            network = RealNetwork(layout, ChainWatch(layout.genesis))
            network.write_configs(broker.host, {node.name: broker.port for node in layout.nodes})
            text = slow.config.read_text().replace('follow = "full"', 'follow = "light"')
            text = text.replace(f'host = "{broker.host}"', f'host = "{line.host}"')
            slow.config.write_text(text.replace(f"port = {broker.port}", f"port = {proxy.port}"))
            await network.watch.start(broker.host, broker.port)
            try:
                start_inside(network, slow, line)
                await network.until(lambda: network.count_lines(slow, CONNECTED) > 0, "the slow device")
                await network.start(node for node in layout.nodes if node is not slow)
                yield network, proxy
            finally:
                network.stop()
                await network.watch.stop()


@pytest.mark.parametrize("model", ["cnn1d", "mlp"])
def test_a_slow_device_takes_part(tmp_path: Path, model: str) -> None:
    """64 kbit/s each way and two packets of a hundred lost; the others are on the loopback. Its updates are accepted,
    of a small model and of one of 101,770 parameters, like those of the others."""

    async def scenario(line: SlowLine) -> None:
        layout = lay_out(tmp_path / "net", model, "sparse-ternary")
        async with started(tmp_path, layout, line) as (network, _):
            await network.until(
                lambda: all(len(get_accepted(node)) >= ROUNDS for node in layout.agents), f"{ROUNDS} updates of each"
            )

    with slow_line(rate_kbit=64) as line:
        asyncio.run(scenario(line))


def test_an_update_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """An uncompressed update of 407 KB, a line that breaks on its way up, then a device that is killed:
    miners wait while it comes in, it is accepted, and it has gone over the line once, not three times."""

    async def scenario(line: SlowLine) -> None:
        layout = lay_out(tmp_path / "net", "mlp", "identity")
        slow = layout.agents[0]
        update_bytes = 4 * layout.genesis.params.parameters_count
        async with started(tmp_path, layout, line) as (network, proxy):
            await network.until(lambda: proxy.passed["up"] > 0.3 * update_bytes, "a part of the update")
            proxy.heal(is_lost=True)
            await network.until(lambda: proxy.passed["up"] > 0.6 * update_bytes, "more of the update")
            network.kill(slow)
            start_inside(network, slow, line)
            await network.until(lambda: 1 in get_accepted(slow), "the slow device's update")
            assert network.count_lines(slow, CONNECTED) >= 3
            assert update_bytes < proxy.passed["up"] < 1.25 * update_bytes

    with slow_line(rate_kbit=512) as line:
        asyncio.run(scenario(line))
