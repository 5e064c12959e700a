"""The cost of each codec in bytes and rounds on a federated task, and in milliseconds on a million parameters.

One process trains the same non-IID task with each codec, by the functions that nodes run: trainer, fixed point, codec
with its carried error, aggregation, downstream rule. The base is FedAvg with whole float32 vectors: P numbers up and P
down per device and round. Bytes are counted until the accuracy on held-out examples first reaches the base's final
accuracy less TARGET_MARGIN.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flchain.aggregation import AGGREGATION_RULES, WeightedUpdate
from flchain.base.crypto import Identity, hash_tagged
from flchain.base.fixedpoint import VALUE_BYTES, FloatVector, add, to_fixed, to_float
from flchain.base.frozen import replace
from flchain.base.types import Address, Hash, ModelVector, Round
from flchain.codecs import CODECS, DOWNSTREAM_RULES, adaptive, compute_codec_seed
from flchain.wire.envelope import encode_struct, seal
from flchain.wire.fields import SALT_BYTES
from flchain.wire.messages import Certificate, Commit, Header, Phase, Reveal
from flchain_edge.model.tflite import TfliteModel
from tools.network.datasets import MODEL_SHAPES, Dataset, load_dataset, load_npz
from tools.network.layout import get_model_file
from tools.network.splits import Part, split

METHOD = (
    "Non-IID federated training with each codec until it has float32 FedAvg's final accuracy less 1 point. Up: the "
    "payloads of a device. Down: what a device one round behind downloads, which is the round's payload, a header and "
    "a certificate."
)
TARGET_MARGIN = 0.01
FINAL_ROUNDS = 5
"""The final accuracy is the mean over this many last rounds: that of a single round varies by a point."""
DEVICES = 8
VALIDATORS = 7
BASE = "identity"
BATCH = 32
TIMED_PARAMETERS = 1_000_000
TIMED_REPEATS = 5
TIMED_STEP_BITS = 15
"""A step with which about one in 250 of the timed changes is sent."""


@dataclass(frozen=True)
class Scheme:
    """A codec up, a rule down.

    For the kinds "step" and "budget" the levels are exponents relative to the task's `step_bits`.
    """

    codec: str
    level: int
    rule: str
    rule_level: int
    kind: Literal["plain", "step", "budget"] = "plain"

    def get_levels(self, parameters_count: int, step_bits: int) -> tuple[int, int]:
        """Return the levels up and down. A budget is 1/BUDGET_SHARE of float32's bytes."""
        if self.kind == "plain":
            return self.level, self.rule_level
        up, down = step_bits + self.level, step_bits + self.rule_level
        if self.kind == "step":
            return 1 << up, 1 << down
        bytes_max = max(adaptive.BYTES_MIN, VALUE_BYTES * parameters_count // BUDGET_SHARE)
        return adaptive.pack_level(bytes_max, up), adaptive.pack_level(bytes_max, down)


BUDGET_SHARE = 20
SCHEMES = (
    Scheme(BASE, 1, BASE, 1),
    Scheme("sparse-ternary", 100, "sparse-ternary", 30),
    Scheme("adaptive", 0, "adaptive", -2, "budget"),
    Scheme("delta-entropy", 0, "delta-entropy", -2, "step"),
    Scheme("top-k", 200, "top-k", 60),
    Scheme("random-mask", 8, "sparse-ternary", 30),
    Scheme("qsgd", 2, "sparse-ternary", 10),
    Scheme("count-sketch", 2, "count-sketch", 2),
)
"""The base is first."""


@dataclass(frozen=True)
class Task:
    """Data, model and training. `dataset` is a known name or an .npz file; `step_bits` suits the size of its changes,
    found by trying powers of two with seed 1."""

    dataset: str
    model: str
    rounds: int
    learning_rate: float
    step_bits: int
    file: Path | None = None


FULL = (
    Task("mnist", "cnn", 45, 0.02, 18),
    Task("watch", "cnn1d", 60, 0.05, 17),
    Task("mnist", "mlp", 40, 0.05, 17),
    Task("watch", "mlp", 40, 0.02, 16),
)
QUICK = (replace(FULL[1], rounds=12), replace(FULL[2], rounds=14))
FULL_SEEDS, QUICK_SEEDS = 3, 1
FILE_LEARNING_RATE, FILE_STEP_BITS = 0.02, 16


@dataclass(frozen=True)
class Curve:
    """One run: accuracy after each round, and the bytes of one device in each round."""

    accuracy: tuple[float, ...]
    bytes_up: tuple[float, ...]
    bytes_down: tuple[float, ...]
    parameters_count: int

    @property
    def final_accuracy(self) -> float:
        """The mean accuracy, 0 to 1, over the last FINAL_ROUNDS rounds."""
        return float(np.mean(self.accuracy[-FINAL_ROUNDS:]))

    def find_round(self, target: float) -> int | None:
        """Return the first round, from 1, that reaches the target."""
        reached = np.flatnonzero(np.array(self.accuracy) >= target)
        return int(reached[0]) + 1 if reached.size else None


def run_bench(
    tasks: Sequence[Task], seeds: int, schemes: Sequence[Scheme], tell: Callable[[dict[str, Any]], None]
) -> Iterator[dict[str, Any]]:
    """Yield a result for each task, seed and scheme, and `tell` it. Raises ConfigError."""
    speeds = {scheme: measure_speed(scheme) for scheme in schemes}
    for task in tasks:
        dataset, model = load_task(task)
        for seed in range(1, seeds + 1):
            base: Curve | None = None
            for scheme in schemes:
                curve = train(dataset, model, task, seed, scheme)
                base = base or curve
                result = _describe(task, dataset.model, seed, scheme, (curve, base)) | speeds[scheme]
                tell(result)
                yield result


def load_task(task: Task) -> tuple[Dataset, TfliteModel]:
    """Return the data in the form the model reads; watch windows are padded with zeros to the MLP's 784 inputs."""
    if task.file is not None:
        dataset = load_npz(task.file, task.model or None)
    elif (task.dataset, task.model) == ("watch", "mlp"):
        dataset = load_dataset(task.dataset)
        rows = dataset.x.reshape(len(dataset), -1)
        padding = MODEL_SHAPES["mlp"][0] - rows.shape[1]
        dataset = replace(dataset, x=np.pad(rows, ((0, 0), (0, padding))), model="mlp")
    else:
        dataset = load_dataset(task.dataset, task.model)
    return dataset, TfliteModel(get_model_file(dataset.model).read_bytes())


def train(dataset: Dataset, model: TfliteModel, task: Task, seed: int, scheme: Scheme) -> Curve:
    """Train all rounds of one run, one local epoch per round. The seed decides the split and the order of examples."""
    parts = split(dataset, DEVICES, 1, seed)
    model.init()
    vector = to_fixed(model.get_weights())
    up, down = scheme.get_levels(vector.size, task.step_bits)
    codec, rule = CODECS[scheme.codec], DOWNSTREAM_RULES[scheme.rule]
    chain = hash_tagged("bench", seed.to_bytes(8, "big"))
    senders = [Address(bytes([number]) * 20) for number in range(DEVICES)]
    residuals = [np.zeros_like(vector) for _ in senders]
    carried = rule.start(vector.size, down)
    accuracy, bytes_up, bytes_down = [], [], []
    for number in range(1, task.rounds + 1):
        updates, sent = [], 0
        for place, (sender, part) in enumerate(zip(senders, parts.device_parts, strict=True)):
            delta = _train_locally(model, part, to_float(vector), task.learning_rate, (seed, number, place))
            codec_seed = compute_codec_seed(chain, Round(number), sender)
            encoded = codec.encode(to_fixed(delta), residuals[place], up, codec_seed)
            residuals[place] = encoded.residual
            sent += len(encoded.payload)
            decoded = (
                codec.decode_summary(encoded.payload, vector.size, up)
                if codec.decode_summary
                else codec.decode(encoded.payload, vector.size, up, codec_seed)
            )
            updates.append(WeightedUpdate(sender, len(part), decoded))
        aggregate = AGGREGATION_RULES["weighted-sum"].aggregate(tuple(updates))
        compressed = rule.compress(aggregate, carried, vector.size, down)
        vector, carried = add(vector, compressed.delta), compressed.carried
        accuracy.append(_judge(model, vector, parts.test))
        bytes_up.append(sent / DEVICES)
        bytes_down.append(len(compressed.payload) + (0 if scheme.codec == BASE else measure_frame_bytes()))
    return Curve(tuple(accuracy), tuple(bytes_up), tuple(bytes_down), vector.size)


def _train_locally(
    model: TfliteModel, part: Part, base: FloatVector, learning_rate: float, seed: tuple[int, ...]
) -> FloatVector:
    model.set_weights(base)
    order = np.random.default_rng(seed).permutation(len(part))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        model.train_step(part.x[rows], part.y[rows], learning_rate)
    return model.get_weights() - base


def _judge(model: TfliteModel, vector: ModelVector, test: Part) -> float:
    model.set_weights(to_float(vector))
    return model.evaluate(test.x, test.y)[0] / len(test)


def _describe(task: Task, model: str, seed: int, scheme: Scheme, curves: tuple[Curve, Curve]) -> dict[str, Any]:
    """Return the figures of a curve and those of the base."""
    curve, base = curves
    target = base.final_accuracy - TARGET_MARGIN
    reached, base_reached = curve.find_round(target), base.find_round(target)
    assert base_reached is not None  # its last rounds are at the target on average
    envelopes = measure_envelope_bytes()
    totals = {
        "up": (sum(base.bytes_up[:base_reached]), sum(curve.bytes_up[:reached])),
        "down": (sum(base.bytes_down[:base_reached]), sum(curve.bytes_down[:reached])),
        "up_signed": (
            sum(base.bytes_up[:base_reached]) + envelopes * base_reached,
            sum(curve.bytes_up[:reached]) + envelopes * (reached or 0),
        ),
    }
    ratios = {f"ratio_{way}": round(before / after, 1) if reached else None for way, (before, after) in totals.items()}
    return {
        "codec": scheme.codec,
        "dataset": task.dataset,
        "model": model,
        "seed": seed,
        **ratios,
        "final_accuracy": round(curve.final_accuracy, 4),
        "base_accuracy": round(base.final_accuracy, 4),
        "target_accuracy": round(target, 4),
        "rounds_to_target": reached,
        "base_rounds_to_target": base_reached,
        "rounds": task.rounds,
        "levels": scheme.get_levels(curve.parameters_count, task.step_bits),
        "parameters_count": curve.parameters_count,
        "bytes_up_to_target": round(totals["up"][1]) if reached else None,
        "bytes_down_to_target": round(totals["down"][1]) if reached else None,
        "bytes_up_per_round": round(float(np.mean(curve.bytes_up)), 1),
        "bytes_down_per_round": round(float(np.mean(curve.bytes_down)), 1),
        "accuracy": [round(value, 4) for value in curve.accuracy],
    }


@cache
def measure_frame_bytes() -> int:
    """Return the bytes of a header and a certificate of a quorum of VALIDATORS, which prove a round's model."""
    digest = bytes(32)
    header = Header(
        version=1, chain=digest, height=100_000, time_ms=1_800_000_000_000, round=10_000, phase=Phase.SETTLE,
        next_round=10_001, next_phase=Phase.COMMIT, previous=digest, proposer=bytes(20), body_root=digest,
        state_root=digest, model_hash=digest, validators_hash=digest, next_validators_hash=digest,
    )  # fmt: skip
    signers = 2 * VALIDATORS // 3 + 1
    certificate = Certificate(0, tuple((index, bytes(64)) for index in range(signers)))
    return len(encode_struct(header)) + len(encode_struct(certificate))


@cache
def measure_envelope_bytes() -> int:
    """Return the bytes of a round's signed Commit and Reveal without the payload."""
    identity, chain = Identity.from_seed(bytes(32)), Hash(bytes(32))
    commit = seal(Commit(10_000, bytes(32), False), chain, identity)
    payload = bytes(300)
    return len(commit) + len(seal(Reveal(10_000, bytes(SALT_BYTES), 400, payload), chain, identity)) - len(payload)


def measure_speed(scheme: Scheme) -> dict[str, float]:
    """Return the best time in ms to encode, decode and argpartition a million heavy-tailed changes."""
    codec, level = CODECS[scheme.codec], scheme.get_levels(TIMED_PARAMETERS, TIMED_STEP_BITS)[0]
    delta = np.random.default_rng(0).laplace(scale=3_000, size=TIMED_PARAMETERS).astype(np.int32)
    residual, seed = np.zeros_like(delta), bytes(32)
    payload = codec.encode(delta, residual, level, seed).payload
    magnitudes, place = np.abs(delta), TIMED_PARAMETERS - TIMED_PARAMETERS // 50
    calls = {
        "encode": lambda: codec.encode(delta, residual, level, seed),
        "decode": lambda: codec.decode(payload, TIMED_PARAMETERS, level, seed),
        "argpartition": lambda: np.argpartition(magnitudes, place),
    }
    return {
        f"{name}_ms_per_million": round(min(_time(call) for _ in range(TIMED_REPEATS)), 2)
        for name, call in calls.items()
    }


def _time(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)
