"""Deal a dataset to devices (training), miners (scoring) and the test set that nobody trains on.

By client if there are enough: the people in the test set are then people no device ever saw, which is what a network of
boards will meet. A random split of the same recordings flatters by 7 to 13 points of accuracy. Otherwise by label skew:
Dirichlet(0.5) per class over the devices (Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for
federated visual classification", 2019, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flchain.base.errors import ConfigError
from tools.network.datasets import NO_CLIENT, Dataset, Floats, Ints

DIRICHLET_ALPHA = 0.5
EXAMPLES_PER_DEVICE_MIN = 20
DRAWS_MAX = 1_000
HOLD_OUT = 0.2  # of all examples, when nobody can be held out

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Examples of one holder. index: int64, their places in the dataset."""

    x: Floats
    y: Ints
    index: Index

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Disjoint parts that cover the dataset: one for each device, one for each miner, and the test."""

    kind: Literal["client", "dirichlet"]
    device_parts: tuple[Part, ...]
    miner_parts: tuple[Part, ...]
    test: Part


def split(dataset: Dataset, devices: int, miners: int, seed: int) -> Split:
    """Deal `dataset` out; the same arguments give the same parts on every machine.

    With at least devices + 1 clients, a device holds one client (several from 2 * (devices + 2) clients on) and the
    others are held out: the first third of each of their recordings scores for the miners, the rest tests. With fewer,
    a random fifth is held out, half for each, and the rest dealt by Dirichlet(0.5) per class, at least 20 examples a
    device.
    Raise ConfigError if the numbers are not positive or there is too little data.
    """
    problems = [f"{key}: must be at least 1, is {n}" for key, n in (("devices", devices), ("miners", miners)) if n < 1]
    if seed < 0:
        problems.append(f"seed: must not be negative, is {seed}")
    if problems:
        raise ConfigError(tuple(problems))
    rng = np.random.Generator(np.random.PCG64(seed))
    known = np.unique(dataset.client[dataset.client != NO_CLIENT])
    kind: Literal["client", "dirichlet"]
    if len(known) >= devices + 1 and len(np.unique(dataset.client)) == len(known):
        kind = "client"
        training, scoring, test = _split_by_client(dataset, known, devices, rng)
    else:
        kind = "dirichlet"
        training, scoring, test = _split_by_label(dataset, devices, rng)
    if len(scoring) < miners or not len(test):
        problem = f"miners: {len(scoring)} held-out examples for {miners} miners and {len(test)} for the test: too few"
        raise ConfigError((problem,))
    return Split(
        kind=kind,
        device_parts=tuple(_take(dataset, index) for index in training),
        # dealt one by one, so that every miner has some of every recording or class
        miner_parts=tuple(_take(dataset, scoring[miner::miners]) for miner in range(miners)),
        test=_take(dataset, test),
    )


def _split_by_client(
    dataset: Dataset, known: Ints, devices: int, rng: np.random.Generator
) -> tuple[list[Index], Index, Index]:
    shuffled = rng.permutation(known)
    if len(known) >= 2 * (devices + 2):
        # enough for several for each device, and as many held out as two devices have
        hands = [shuffled[hand :: devices + 2] for hand in range(devices + 2)]
        held_out = np.concatenate(hands[devices:])
    else:
        hands = [shuffled[hand : hand + 1] for hand in range(devices)]
        held_out = shuffled[devices:]
    training = [np.flatnonzero(np.isin(dataset.client, hand)) for hand in hands[:devices]]
    scoring, test = [], []
    held_out_examples = np.isin(dataset.client, held_out)
    for group in np.unique(dataset.group[held_out_examples]):
        members = np.flatnonzero(held_out_examples & (dataset.group == group))
        members = members[np.argsort(dataset.position[members], kind="stable")]
        third = len(members) // 3
        scoring.append(members[:third])
        test.append(members[third:])
    return training, np.concatenate(scoring), np.concatenate(test)


def _split_by_label(dataset: Dataset, devices: int, rng: np.random.Generator) -> tuple[list[Index], Index, Index]:
    shuffled = rng.permutation(len(dataset))
    held_out = int(HOLD_OUT * len(dataset))
    scoring, test, rest = shuffled[: held_out // 2], shuffled[held_out // 2 : held_out], shuffled[held_out:]
    if len(rest) < devices * EXAMPLES_PER_DEVICE_MIN:
        problem = f"devices: {len(rest)} examples for {devices} devices; each needs {EXAMPLES_PER_DEVICE_MIN}"
        raise ConfigError((problem,))
    for _ in range(DRAWS_MAX):
        hands: list[list[Index]] = [[] for _ in range(devices)]
        for label in range(dataset.classes):
            members = rest[dataset.y[rest] == label]
            shares = rng.dirichlet(np.full(devices, DIRICHLET_ALPHA))
            cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for hand, piece in zip(hands, np.split(members, cuts), strict=True):
                hand.append(piece)
        training = [np.sort(np.concatenate(hand)) for hand in hands]
        if min(len(index) for index in training) >= EXAMPLES_PER_DEVICE_MIN:
            return training, scoring, np.sort(test)
    problem = f"devices: {DRAWS_MAX} random deals of {len(rest)} examples never gave each of {devices} devices enough"
    raise ConfigError((problem,))


def _take(dataset: Dataset, index: Index) -> Part:
    return Part(x=dataset.x[index], y=dataset.y[index], index=index.astype(np.int64))
