"""Mining at the edge: examples that are held out, the configuration's words, and what a ledger says was earned."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from agent.runner import build_config
from agent.settings import AgentSettings
from flchain.base.errors import ConfigError
from flchain.wire.envelope import seal
from flchain.wire.messages import Phase
from flchain_edge.model.model_files import Examples, hold_out, load_examples
from flchain_edge.settings.config import load_config, render_example
from tests.support.builders.chain import (
    Driver,
    build_chain,
    make_scores,
    seal_score_commit,
    seal_score_commit_of,
    seal_score_reveal,
)
from tests.support.builders.ledger import write_ledger
from tools.demo.earnings import sum_mined
from tools.demo.options import read_options

if TYPE_CHECKING:
    from flchain_edge.model.tflite import TfliteModel


def make_npy() -> bytes:
    stream = BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def make_examples(count: int) -> Examples:
    return Examples(np.arange(count, dtype=np.float32)[:, None], np.arange(count, dtype=np.int32))


@pytest.mark.parametrize(("count", "percent"), [(10, 20), (2, 50), (7, 33), (1_000, 1), (101, 50)])
def test_what_is_held_out_is_never_trained_on(count: int, percent: int) -> None:
    """Every example is in exactly one part, and the held-out ones are spread over the file."""
    train, held = hold_out(make_examples(count), percent)
    assert sorted((*train.y, *held.y)) == list(range(count))
    assert len(held) == count * percent // 100
    assert (held.x[:, 0] == held.y).all() and (train.x[:, 0] == train.y).all()
    gaps = np.diff(held.y)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("count", "percent"), [(1, 50), (4, 20), (50, 1)])
def test_too_few_examples_to_hold_any_out_is_a_configuration_error(count: int, percent: int) -> None:
    """The operator hears which key it is about, at start."""
    with pytest.raises(ConfigError, match=r"\[mining\] holdout_percent"):
        hold_out(make_examples(count), percent)


def load_settings(folder: Path, extra: str = "") -> AgentSettings:
    (folder / "agent.toml").write_text(render_example(AgentSettings) + extra)
    return load_config(folder / "agent.toml", AgentSettings, {})


def test_mining_is_off_unless_the_file_says_so(tmp_path: Path) -> None:
    """The example file has it off; switched on it is on, but not on a chain that gives devices no say."""
    chain, silent = build_chain(), build_chain(mining_weight_bp=0)
    settings = load_settings(tmp_path)
    assert not build_config(settings, chain.genesis, chain.devices[0]).is_mining
    text = render_example(AgentSettings)
    assert "[mining]" in text
    (tmp_path / "on.toml").write_text(text.replace("enabled = false", "enabled = true").replace("# enabled", "enabled"))
    wanted = load_config(tmp_path / "on.toml", AgentSettings, {})
    assert build_config(wanted, chain.genesis, chain.devices[0]).is_mining
    assert not build_config(wanted, silent.genesis, silent.devices[0]).is_mining


def test_a_ledger_says_what_scores_have_earned_apart_from_updates(tmp_path: Path) -> None:
    """Two devices are paid for updates, one of them for scores as well."""
    chain = build_chain(reward_for_scores=10_000, reward_per_update=77)
    driver = Driver(chain)
    driver.run_round()
    driver.go_to(Phase.SCORE)
    word, scorer = make_scores(driver.state), chain.devices[1]
    driver.extend([*(seal_score_commit(chain, i, word) for i in range(4)), seal_score_commit_of(chain, scorer, word)])
    driver.extend([*(seal_score_reveal(chain, i, word) for i in range(4)), seal(word, chain.id, scorer)])
    assert driver.state.round.number == 3
    write_ledger(tmp_path / "ledger.db", driver)
    mined = sum_mined(tmp_path / "ledger.db", chain.genesis, chain.model)
    balance = driver.state.accounts_by_address[scorer.address].balance
    assert {address: amount for address, amount in mined.items() if amount} == {scorer.address: balance - 2 * 77}


@pytest.mark.parametrize(
    ("given", "mining"), [((), 0), (("--mining",), 5), (("--mining", "2"), 2), (("--mining", "9"), 5)]
)
def test_the_demo_takes_a_number_of_mining_devices_or_all(tmp_path: Path, given: tuple[str, ...], mining: int) -> None:
    """None by default, all without a number, never more than there are."""
    options = read_options(["--devices", "5", "--out", str(tmp_path / "new"), *given])
    assert options.plan.mining == mining


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda data: data[: len(data) // 2], "not a zip file"),
        (lambda data: data.replace(b"\x07" * 64, b"\x08" * 64), "CRC"),
        (lambda _: b"hello", "not an .npz file"),
        (lambda _: b"", "not an .npz file"),
        (lambda _: make_npy(), "not an .npz file"),
        (None, "No such file or directory"),
    ],
)
def test_a_damaged_data_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes] | None, word: str) -> None:
    """Half a copy, a flipped byte, another kind of file, none: the operator is told, and the file named once."""
    path = tmp_path / "examples.npz"
    np.savez(path, x=np.full((4, 784), 7, np.uint8), y=np.zeros(4, np.int32))
    whole = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(whole))
    with pytest.raises(ConfigError) as told:
        load_examples(path, cast("TfliteModel", None))  # the file is read first
    assert word in str(told.value) and str(told.value).count(str(path)) == 1
