"""Gradients by TensorFlow's own differentiation, kept in small files for environments without TensorFlow.

`python -m tools.modelbuilder.reference tests/vectors/gradients` writes them again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flchain_edge.model.tflite import TfliteModel
from tools.modelbuilder.keras_models import load_keras
from tools.modelbuilder.zoo import ARCHITECTURES

ENTRIES_PER_TENSOR_MAX = 512
BATCH = 8


def build_inputs(input_shape: tuple[int, ...], classes: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return a fixed batch, x (BATCH, *input_shape) in 0..1 and y (BATCH,): the same with every version of numpy."""
    count = BATCH * int(np.prod(input_shape))
    x = (np.arange(count, dtype=np.int64) * 7919 % 1021 / 1021).astype(np.float32).reshape(BATCH, *input_shape)
    return x, (np.arange(BATCH) * 3 % classes).astype(np.int32)


def compute_gradients(model: Any, x: NDArray[np.float32], y: NDArray[np.int32]) -> list[NDArray[np.float32]]:
    """Return the gradient of a batch's mean cross-entropy by each weight tensor, from TensorFlow's autodiff."""
    import keras
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x)))
    return [np.asarray(grad) for grad in tape.gradient(loss, [weight.value for weight in model.trainable_weights])]


def build_reference(model: Any) -> dict[str, NDArray[Any]]:
    """Return `index` (N,) into a model's flat gradient, `gradient` (N,) there, and `scale` (N,): its tensor's
    largest."""
    x, y = build_inputs(tuple(model.input_shape[1:]), int(model.output_shape[1]))
    index, gradient, scale, offset = [], [], [], 0
    for grad in compute_gradients(model, x, y):
        picked = np.arange(0, grad.size, -(-grad.size // ENTRIES_PER_TENSOR_MAX))
        index.append(picked + offset)
        gradient.append(grad.ravel()[picked])
        scale.append(np.full(picked.size, np.abs(grad).max(), np.float32))
        offset += grad.size
    return {
        "index": np.concatenate(index).astype(np.int32),
        "gradient": np.concatenate(gradient),
        "scale": np.concatenate(scale),
    }


def measure_errors(model: Any, content: bytes) -> tuple[float, float]:
    """Return how far a .tflite file on this machine's runtime is from its Keras model, on the fixed batch.

    That is the largest difference of a probability, and the largest difference of a gradient's entry relative to the
    largest entry of the same tensor.
    """
    built = TfliteModel(content)
    x, y = build_inputs(built.input_shape, built.classes)
    expected = compute_gradients(model, x, y)
    found = np.split(built.grad(x, y), np.cumsum([grad.size for grad in expected])[:-1])
    by_tensor = [_divide(np.abs(f - e.ravel()).max(), np.abs(e).max()) for f, e in zip(found, expected, strict=True)]
    return float(np.abs(built.infer(x) - np.asarray(model(x))).max()), max(by_tensor)


def _divide(difference: float, scale: float) -> float:
    """Return the relative difference; absolute for a tensor whose gradient is 0 everywhere (no unit is active)."""
    return float(difference) / float(scale or 1.0)


def main(argv: Sequence[str]) -> int:
    """Write NAME.npz for every built-in model to the folder that is named."""
    for name in ARCHITECTURES:
        np.savez_compressed(Path(argv[0]) / f"{name}.npz", **build_reference(load_keras(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
