"""What the model is given of the ring: shapes, labels, parts, and what is left out with a reason."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.edge.data.dataset import build_source, decode_source, encode_source, load_dataset
from agent.edge.data.settings import DatasetSettings, LabelSettings, find_dataset_problems
from agent.sensing.samples import Sample
from flchain.base.errors import ConfigError
from flchain_edge.model.model_files import NoWindows
from tests.support.builders.ring import SECOND, WALL_US, FakeTime, fill_ring, make_sample, make_source

T0 = 1000 * SECOND
LABEL = LabelSettings(rule="channel", channel="person.label")
DATASET = DatasetSettings(channels=("imu.a", "imu.b"), rate_hz=10.0, window=10, step=10, windows_min=1, label=LABEL)


def make_stream(seconds: float, start_us: int = T0, rate_hz: float = 10.0) -> list[Sample]:
    """a counts the seconds, b is its negative."""
    count = round(seconds * rate_hz)
    times = [start_us + round(n * SECOND / rate_hz) for n in range(count)]
    return [make_sample(t, "imu", {"a": (t - T0) / SECOND, "b": -(t - T0) / SECOND}, "s") for t in times]


def say(seconds: float, label: float) -> Sample:
    return make_sample(T0 + round(seconds * SECOND), "person", {"label": label})


def test_windows_have_the_models_shape_and_the_persons_labels(tmp_path: Path) -> None:
    """Ten seconds of one activity, ten of another: ten windows each, of the right values, and none over the change."""
    fill_ring(tmp_path, [*make_stream(20.5), say(-5, 1), say(10, 0)])
    examples = load_dataset(make_source(tmp_path, DATASET), (10, 2), 2)
    assert examples.x.shape == (20, 10, 2)
    assert (str(examples.x.dtype), str(examples.y.dtype)) == ("float32", "int32")
    assert examples.y.tolist() == [1] * 10 + [0] * 10
    np.testing.assert_allclose(examples.x[3, :, 0], 3 + np.arange(10) / 10, atol=1e-5)
    np.testing.assert_allclose(examples.x[3, :, 1], -examples.x[3, :, 0], atol=1e-5)
    assert load_dataset(make_source(tmp_path, DATASET), (20,), 2).x.shape == (20, 20)
    assert load_dataset(make_source(tmp_path, DATASET), (10, 2, 1), 2).x.shape == (20, 10, 2, 1)


def test_no_window_spans_a_gap_or_a_reboot(tmp_path: Path) -> None:
    """A hole of three seconds and a reboot cut windows; those that lie on them are not made."""
    fill_ring(tmp_path, [*make_stream(5.05), *make_stream(5.05, T0 + 8 * SECOND), say(0, 0)])
    later = FakeTime("boot-b", 20 * SECOND)
    fill_ring(tmp_path, [*make_stream(3.05, 5 * SECOND), make_sample(5 * SECOND, "person", {"label": 1.0})], later)
    examples = load_dataset(make_source(tmp_path, DATASET), (10, 2), 2)
    assert examples.y.tolist() == [0] * 10 + [1] * 3
    assert (np.diff(examples.x[:, :, 0], axis=1) < 0.11).all()


def test_normalisation_is_the_configurations(tmp_path: Path) -> None:
    """(value - offset) / scale, as every device of the network has it, whatever this one's data look like."""
    fill_ring(tmp_path, [*make_stream(5.05), say(0, 0)])
    raw = load_dataset(make_source(tmp_path, DATASET), (10, 2), 2).x
    settings = replace(DATASET, offset=(2.0, -1.0), scale=(4.0, 0.5))
    np.testing.assert_allclose(
        load_dataset(make_source(tmp_path, settings), (10, 2), 2).x, (raw - [2.0, -1.0]) / [4.0, 0.5], rtol=1e-5
    )


def test_channels_of_two_sources_at_two_rates_meet_on_one_grid(tmp_path: Path) -> None:
    """A slow thermometer beside a fast accelerometer: both are resampled to the rate asked for."""
    slow = [make_sample(T0 + n * SECOND // 2, "air", {"t": n / 2}, "degC") for n in range(21)]
    fill_ring(tmp_path, [*make_stream(10, rate_hz=100.0), *slow, say(0, 0)])
    settings = replace(DATASET, channels=("air.t", "imu.a"))
    examples = load_dataset(make_source(tmp_path, settings), (10, 2), 1)
    assert len(examples) == 10
    np.testing.assert_allclose(examples.x[..., 0], examples.x[..., 1], atol=0.03)


def test_labels_by_threshold_and_by_intervals(tmp_path: Path) -> None:
    """Rules that need no person: a channel's mean in the window, and a file of what was done when."""
    fill_ring(tmp_path, make_stream(12.05))
    by_mean = replace(DATASET, label=LabelSettings(rule="threshold", channel="imu.a", thresholds=(3.0, 8.0)))
    assert load_dataset(make_source(tmp_path, by_mean), (10, 2), 3).y.tolist() == [0] * 3 + [1] * 5 + [2] * 4
    start_s = (WALL_US + T0) // SECOND
    file = tmp_path / "done.csv"
    file.write_text(f"start,end,label\n{start_s + 2},{start_s + 5},walk\n{start_s + 7},{start_s + 9}.5,0\n")
    by_file = replace(DATASET, label=LabelSettings(rule="intervals", file=file, texts=("rest", "walk")))
    assert load_dataset(make_source(tmp_path, by_file), (10, 2), 2).y.tolist() == [1, 1, 1, 0, 0]


def test_intervals_label_nothing_by_a_clock_that_nobody_vouches_for(tmp_path: Path) -> None:
    """With a wrong clock the hours of a file are not those of the samples; trust_clock says that it is right."""
    fill_ring(tmp_path, make_stream(5.05), FakeTime(is_trusted=False))
    file = tmp_path / "done.csv"
    file.write_text("0,99999999999,0\n")
    settings = replace(DATASET, label=LabelSettings(rule="intervals", file=file))
    with pytest.raises(NoWindows, match="unlabelled 5"):
        load_dataset(make_source(tmp_path, settings), (10, 2), 1)
    assert len(load_dataset(replace(make_source(tmp_path, settings), trust_clock=True), (10, 2), 1)) == 5


def test_the_newest_windows_balanced_by_class(tmp_path: Path) -> None:
    """A long rest does not bury a short walk: each class has at most its equal share, the newest."""
    fill_ring(tmp_path, [*make_stream(100.05), say(0, 0), say(20, 1), say(23, 0)])
    examples = load_dataset(make_source(tmp_path, replace(DATASET, windows_max=10)), (10, 2), 2)
    assert sorted(examples.y.tolist()) == [0] * 5 + [1] * 3
    assert examples.x[-1, 0, 0] == pytest.approx(99.0, abs=0.01)


def test_train_and_hold_out_share_no_sample_and_stay_what_they_are(tmp_path: Path) -> None:
    """Overlapping windows, two parts: no instant is in both, and more samples move no window to the other side."""
    settings = replace(DATASET, step=5, stretch_s=20.0, hold_off_s=2.0, windows_max=10_000)
    fill_ring(tmp_path, [*make_stream(300.05), say(0, 0)])
    source = replace(make_source(tmp_path, settings), holdout_percent=25)

    def get_starts(part: str) -> set[float]:
        return {round(float(x), 1) for x in load_dataset(source, (10, 2), 1, part=part).x[:, 0, 0]}

    train, held = get_starts("train"), get_starts("holdout")
    assert 0.15 < len(held) / (len(train) + len(held)) < 0.35
    assert min(abs(a - b) for a in train for b in held) > 1.0 + 2.0 - 0.01
    fill_ring(tmp_path, make_stream(100.05, T0 + 300 * SECOND), FakeTime().after(400))
    assert get_starts("train") >= train
    assert get_starts("holdout") >= held


def test_too_little_is_told_with_the_reason(tmp_path: Path) -> None:
    """No ring yet, no label, labels of no class: each says what is missing, and none is a crash."""
    source = make_source(tmp_path, DATASET)
    with pytest.raises(NoWindows, match="no such file yet"):
        load_dataset(source, (10, 2), 2)
    fill_ring(tmp_path, make_stream(5.05))
    with pytest.raises(NoWindows, match="0 usable windows, at least 1 wanted: cut 5, unlabelled 5"):
        load_dataset(source, (10, 2), 2)
    fill_ring(tmp_path, [say(-1, 7)])
    with pytest.raises(NoWindows, match="unlabelled 5"):
        load_dataset(source, (10, 2), 2)


def test_what_no_sample_can_mend_is_the_operators(tmp_path: Path) -> None:
    """Windows that the model cannot take are refused at once, with both shapes."""
    with pytest.raises(ConfigError, match=r"shape \(10, 2\), the model takes \(100, 6\)"):
        load_dataset(make_source(tmp_path, DATASET), (100, 6), 2)
    assert find_dataset_problems(DATASET) == []
    wrong = replace(DATASET, channels=("imu.a", "imu.a", "b"), scale=(0.0,), stretch_s=1.0, label=LabelSettings())
    text = "\n".join(find_dataset_problems(wrong, 20))
    for part in (
        "'b' is not a channel",
        "one occurs twice",
        "scale: 1 numbers for 3",
        "scale: must not be 0",
        "stretch_s",
        "channel",
    ):
        assert part in text


def test_without_channels_the_file_is_what_there_is(tmp_path: Path) -> None:
    """A device without sensors learns from examples.npz as before."""
    x, y = np.random.default_rng(0).random((4, 3)), np.array([0, 1, 1, 0])
    np.savez(tmp_path / "examples.npz", x=x, y=y)
    examples = load_dataset(make_source(tmp_path, DatasetSettings()), (3,), 2)
    assert examples.y.tolist() == y.tolist()
    mining = replace(make_source(tmp_path, DatasetSettings()), holdout_percent=25)
    parts = [load_dataset(mining, (3,), 2, part=part) for part in ("train", "holdout")]
    assert [len(part) for part in parts] == [3, 1]
    with pytest.raises(ConfigError, match="the model takes"):
        load_dataset(make_source(tmp_path, DatasetSettings()), (4,), 2)


def test_a_child_process_can_be_told_in_json(tmp_path: Path) -> None:
    """What a worker needs crosses as JSON and comes back the same, paths and nested settings included."""
    label = LabelSettings(rule="intervals", file=tmp_path / "x.csv", texts=("a",))
    source = make_source(tmp_path, replace(DATASET, label=label, scale=(1.0, 2.0)))
    assert decode_source(json.loads(json.dumps(encode_source(source)))) == source == build_source(source)


def test_an_hour_of_six_channels_is_read_in_seconds(tmp_path: Path) -> None:
    """20 minutes at 50 Hz, every window of them: it happens at the start of every round."""
    rng = np.random.default_rng(0)
    names = tuple("abcdef")
    for start in range(0, 60_000, 20_000):
        rows = rng.random((20_000, 6)).tolist()
        samples = [
            make_sample(T0 + (start + n) * 20_000, "w", dict(zip(names, row, strict=True)))
            for n, row in enumerate(rows)
        ]
        fill_ring(tmp_path, [*samples, *([say(0, 0)] if not start else [])], FakeTime().after(start / 50))
    settings = replace(DATASET, channels=tuple(f"w.{n}" for n in names), rate_hz=50.0, window=100, step=50)
    began = time.process_time()
    examples = load_dataset(make_source(tmp_path, settings), (100, 6), 1)
    assert len(examples) == 1199
    assert time.process_time() - began < 10.0, "of this process's own CPU time"
