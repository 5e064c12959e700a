"""The power is cut at any moment: the device's store opens, goes on, and says nothing twice."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import agent.edge.store.store
from flchain.wire.fields import Kind
from tests.support.builders.chain import Driver
from tests.support.builders.ledger import drive
from tests.support.crash import kill_after
from tests.support.device_life import DeviceLife, Said, Standing, live_once, merge_said
from tests.support.torn_writes import Image, cut_power

CUTS = int(os.environ.get("FLCHAIN_POWER_CUTS", "30"))
SEED = int(os.environ.get("FLCHAIN_SEED", "4"))
ROUNDS = 6
CHECKPOINT_PAGES = 8
"""So few that these short lives see many checkpoints and restarts of the log."""


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(ROUNDS)


@pytest.fixture(autouse=True)
def checkpoint_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.edge.store.store, "CHECKPOINT_PAGES", CHECKPOINT_PAGES)


def assert_said_once(said: Said) -> None:
    twice = [key for key, raws in said.items() if len(raws) > 1]
    assert not twice, f"said differently in two lives: {twice}"


def test_torn_writes(tmp_path: Path, driver: Driver) -> None:
    """At 30 points (200 in make test-long) with any unsynced sectors lost, a device finds what it had saved.

    Or what it was just saving. It opens, takes part in what is left of the chain to the same model, and no round gets
    two different commitments or updates from its two lives.
    """
    images: list[Image] = []
    said: list[Said] = []
    states: list[Standing] = []

    def look(life: DeviceLife) -> None:
        images.append(Image.read(tmp_path / "agent.db"))
        said.append(merge_said(life.said))
        states.append(life.describe())

    first = asyncio.run(live_once(driver, tmp_path / "agent.db", 0, look))
    assert first.state.light.model_hash == driver.state.model_hash
    copied = sum(one.database != other.database for one, other in itertools.pairwise(images))
    restarted = sum(one.log[:32] != other.log[:32] for one, other in itertools.pairwise(images))
    assert copied > 5 and restarted > 5, "the cuts must meet checkpoints"
    changed = [i for i in range(len(images) - 1) if images[i] != images[i + 1]]
    for cut in range(CUTS):
        chooser = random.Random(f"{SEED}/{cut}")
        index = chooser.choice(changed)
        path = tmp_path / f"cut-{cut}.db"
        cut_power(images[index], images[index + 1], chooser).write(path)
        second = asyncio.run(live_once(driver, path, 1 + cut))
        whole = [state for state in states[index : index + 2] if state.is_held_by(second.found)]
        assert whole, f"cut {cut} of seed {SEED}: {second.found}"
        assert second.state.light.model_hash == driver.state.model_hash, f"cut {cut} of seed {SEED}"
        assert_said_once(merge_said(said[index], second.said))
        path.unlink()


def test_kill_9(tmp_path: Path, driver: Driver) -> None:
    """Killed 30 times (200 in make test-long) in the middle of its rounds, a device loses no work that it spoke of.

    The killed lives together say each thing once, and the last one reaches the chain's newest model.
    """
    chooser, path = random.Random(SEED), tmp_path / "agent.db"
    said: Said = {}
    for number in range(CUTS):

        def live(acknowledge: Callable[[Said], None], number: int = number, path: Path = path) -> None:
            asyncio.run(live_once(driver, path, number, lambda life: acknowledge(dict(life.said)), heights=6))

        told = kill_after(chooser.randrange(1, 12), live)
        said = merge_said(said, told or {})
        assert_said_once(said)
        if len(said) == 2 * ROUNDS:  # a commitment and an update for each: this chain is told to its end
            last = asyncio.run(live_once(driver, path, number + 1_000))
            assert last.state.light.model_hash == driver.state.model_hash
            assert_said_once(merge_said(said, last.said))
            said, path = {}, tmp_path / f"agent-{number}.db"


def test_lost_work_would_be_seen(tmp_path: Path, driver: Driver) -> None:
    """The control: a store that lost its work would make the device say another thing, and the tests above see it."""
    first = asyncio.run(live_once(driver, tmp_path / "one.db", 1, heights=2))
    other = asyncio.run(live_once(driver, tmp_path / "two.db", 2, heights=2))
    assert {kind for kind, _ in first.said} == {Kind.COMMIT, Kind.REVEAL}
    with pytest.raises(AssertionError, match="two lives"):
        assert_said_once(merge_said(first.said, other.said))
