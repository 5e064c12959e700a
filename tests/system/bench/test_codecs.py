"""`flchain bench codecs` at its smallest: what it says, on its own data and on anybody's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flchain.base.errors import ConfigError
from flchain.codecs import CODECS
from tools.bench.cli import main
from tools.bench.codecs import codecs
from tools.bench.codecs.cli import summarise
from tools.bench.codecs.codecs import (
    SCHEMES,
    Curve,
    Scheme,
    Task,
    load_task,
    measure_envelope_bytes,
    measure_frame_bytes,
    train,
)

KEYS = {
    "codec", "dataset", "model", "seed", "ratio_up", "ratio_down", "final_accuracy", "rounds_to_target",
    "encode_ms_per_million", "decode_ms_per_million", "argpartition_ms_per_million",
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds are measured on fewer parameters here, and not judged."""
    monkeypatch.setattr(codecs, "TIMED_PARAMETERS", 20_000)


def test_codecs_are_compared_with_float32(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """JSON has an object for the base and one for the codec; the files of --out hold them with machine and commit."""
    argv = ["codecs", "--task", "watch/cnn1d", "--codec", "sparse-ternary", "--rounds", "2", "--seeds", "1"]
    assert main([*argv, "--json", "--out", str(tmp_path)]) == 0
    results: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [result["codec"] for result in results] == ["identity", "sparse-ternary"]
    assert all(result.keys() >= KEYS for result in results)
    base, sparse = results
    assert (base["ratio_up"], base["ratio_down"]) == (1, 1)
    assert base["bytes_up_per_round"] == 4 * base["parameters_count"]
    assert 4 * base["parameters_count"] / sparse["bytes_up_per_round"] > 200
    assert sparse["bytes_down_per_round"] > measure_frame_bytes()
    kept = json.loads((tmp_path / "codecs.json").read_text())
    assert kept["results"] == results
    assert kept["machine"]["cores"] >= 1
    assert (tmp_path / "codecs.png").stat().st_size > 1_000


def test_anybodys_data_is_trained_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--dataset-file runs it on arrays x, y and client; the file's name is the data set's."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, 400)
    x = rng.normal(y[:, None] / 10, 0.1, (400, 784)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x=x, y=y, client=np.arange(400) % 10)
    argv = ["codecs", "--dataset-file", str(tmp_path / "mine.npz"), "--codec", "adaptive", "--rounds", "1"]
    assert main([*argv, "--seeds", "1", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [(result["dataset"], result["model"]) for result in results] == [("mine", "mlp")] * 2


@pytest.mark.parametrize("options", [["--task", "watch/lstm"], ["--codec", "zip"], ["--model", "mlp"]])
def test_what_is_unknown_is_named(options: list[str]) -> None:
    """An unknown task or codec lists the known ones; a model without a data file is refused."""
    with pytest.raises(ConfigError, match=r"known: |--task names"):
        main(["codecs", *options])


def test_a_run_repeats_itself() -> None:
    """The same seed gives the same accuracies and bytes, with draws too; another seed gives others."""
    task = Task("watch", "mlp", 2, 0.02, 16)
    dataset, model = load_task(task)
    scheme = Scheme("random-mask", 8, "sparse-ternary", 30)
    first, again, other = (train(dataset, model, task, seed, scheme) for seed in (1, 1, 2))
    assert first == again != other


def test_every_codec_is_measured() -> None:
    """A codec without a scheme would be missing from every table."""
    assert {scheme.codec for scheme in SCHEMES} == CODECS.keys()
    assert SCHEMES[0].codec == codecs.BASE


def test_targets_that_are_not_reached_are_not_made_up() -> None:
    """A curve below the target has no round, and a mean over seeds of which one is missing is missing too."""
    curve = Curve((0.1, 0.5, 0.4), (1.0,) * 3, (1.0,) * 3, 10)
    assert (curve.find_round(0.45), curve.find_round(0.6)) == (2, None)
    figures = {"codec": "x", "levels": (1, 1), "final_accuracy": 0.5, "base_accuracy": 0.4}
    row = summarise([figures | {"ratio_up": 10.0}, figures | {"ratio_up": None}])[0]
    assert row["ratio_up"] is None
    assert row["points"] == pytest.approx(10)


def test_what_frames_an_update_is_what_is_signed() -> None:
    """Header and certificate of 7 validators stay within 2.5 KB; Commit and Reveal within 400 bytes."""
    assert 500 < measure_frame_bytes() < 2_500
    assert 200 < measure_envelope_bytes() < 400
