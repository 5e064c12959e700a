"""The agent's loop: work begins beside the write, and nothing is sent before it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from agent import runner
from agent.core.values import Connected, Publish, SaveOutbox, Train
from agent.runner import AgentRunner
from flchain.base.types import Hash, ModelVector, Round


class FakeStore:
    """Whose write lasts until it is let go."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen
        self.release = asyncio.Event()

    async def save(self, *_: object) -> None:
        await self.release.wait()
        self._seen.append("written")


class FakeWorkers:
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen
        self.has_begun = asyncio.Event()

    async def train(self, round_number: Round, _: ModelVector) -> None:
        self._seen.append(f"training of round {round_number}")
        self.has_begun.set()


class FakeLink:
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def send(self, topic: str, _: bytes, *, is_again: bool) -> None:
        self._seen.append(topic)


class FakeSupervisor:
    def on_step(self, *_: object) -> None:
        pass


def test_training_begins_beside_the_write_and_nothing_is_sent_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an event that starts training and says something, training begins while the disk writes, the word waits."""
    effects = (
        SaveOutbox(Hash(bytes(32)), Round(3), b"raw"),
        Publish("up", b"raw", False),
        Train(Round(4), np.zeros(2, np.int32)),
    )
    monkeypatch.setattr(runner, "step", lambda state, *_: (state, effects))

    async def scenario() -> list[str]:
        seen: list[str] = []
        store, workers = FakeStore(seen), FakeWorkers(seen)
        parts: tuple[Any, ...] = None, store, FakeLink(seen), workers, None
        others: dict[str, Any] = {"supervisor": FakeSupervisor(), "status": None, "describe_sensors": list}
        others["reporter"] = None
        agent = AgentRunner(*parts, **others)
        processing = asyncio.create_task(agent._process(Connected()))
        await workers.has_begun.wait()
        assert seen == ["training of round 4"]
        store.release.set()
        await processing
        return seen

    assert asyncio.run(scenario()) == ["training of round 4", "written", "up"]
