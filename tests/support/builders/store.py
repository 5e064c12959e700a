"""A device's store for tests: positions and work of a driven chain, written and read back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from agent.core.values import SavePosition, Scores, Work
from agent.edge.store.store import Store, Stored
from flchain.base.types import ModelVector, Round
from flchain.light.follow import LightState, build_light_state, process_body, process_head
from flchain.light.trust import CertifiedHeader
from flchain.rules.score_words import build_score_commit
from flchain.wire.envelope import seal
from flchain.wire.messages import ScoreReveal
from tests.support.builders.chain import (
    NO_CLOCK,
    PARAMETERS_COUNT,
    SALT,
    Driver,
    make_reveal,
    seal_commit,
    seal_reveal,
)

ME = 0
EMPTY = np.zeros(PARAMETERS_COUNT, np.int32)


def follow(driver: Driver, height: int) -> LightState:
    """A device that has seen every block up to `height`."""
    light = build_light_state(driver.chain.genesis, driver.chain.model)
    for block, certificate in zip(driver.blocks[:height], driver.certificates[:height], strict=True):
        light = process_head(light, CertifiedHeader(block.header_bytes, certificate), NO_CLOCK)
        light = process_body(light, light.height, block.body_bytes)
    return light


def get_settle_height(round_number: int) -> int:
    """The height that settles a round: one block opens the chain, then four make a round."""
    return 1 + 4 * round_number


def get_residual(round_number: int) -> ModelVector:
    return np.full(PARAMETERS_COUNT, round_number, np.int32)


def build_position(driver: Driver, round_number: int) -> SavePosition:
    height = get_settle_height(round_number)
    return SavePosition(follow(driver, height), driver.get_head(height), get_residual(round_number))


def build_work(driver: Driver, round_number: int) -> Work:
    """What device ME has trained in a round."""
    reveal = make_reveal(driver.chain, ME, round_number)
    commit_raw, reveal_raw = seal_commit(driver.chain, ME, reveal), seal_reveal(driver.chain, ME, reveal)
    return Work(Round(round_number), commit_raw, reveal_raw, get_residual(round_number), 40, 1234, will_score=True)


def build_scores(driver: Driver, round_number: int, number: int = ME) -> Scores:
    """What device `number` has scored in a round."""
    me, chain = driver.chain.devices[number], driver.chain.id
    reveal = ScoreReveal(round_number, SALT, 7_000, ((me.address, 7_000),), ())
    commit = build_score_commit(chain, me.address, reveal)
    return Scores(Round(round_number), seal(commit, chain, me), seal(reveal, chain, me))


def visit(path: Path, driver: Driver, do: Callable[[Store], Awaitable[object]]) -> None:
    """Open the store, do something with it, close it."""

    async def scenario() -> None:
        store = await Store.open(path, driver.chain.id)
        try:
            await do(store)
        finally:
            await store.close()

    asyncio.run(scenario())


def load(path: Path, driver: Driver) -> Stored:
    """What a start finds."""
    found: list[Stored] = []

    async def read(store: Store) -> None:
        light = build_light_state(driver.chain.genesis, driver.chain.model)
        found.append(await store.load(light, EMPTY, driver.chain.devices[ME]))

    visit(path, driver, read)
    return found[0]
