"""The built-in architectures: functions that return an untrained Keras model.

mlp    (784,)       -> 10 classes: digits of 28 x 28 pixels, flattened, values 0..1
cnn    (28, 28, 1)  -> 10 classes: the same digits as images
cnn1d  (100, 6)     -> 7 classes: 2 s of a wrist sensor at 50 Hz, accelerometer in g and gyroscope in rad/s, raw
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Accelerations span a few g and stay as they are; turning rates span some 10 rad/s and are scaled to the same spread.
WATCH_SCALE = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5)


def build_mlp() -> Any:
    """Return the 101,770-parameter perceptron that the literature of federated learning uses as its yardstick."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [keras.Input((784,)), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")], name="mlp"
    )


def build_cnn() -> Any:
    """Return two convolutions; a step costs some 20 times the perceptron's, an update a quarter of its bytes."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        name="cnn",
    )


def build_cnn1d() -> Any:
    """Return convolutions along time, averaged over it, so that the start of a movement in the window does not
    matter."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((100, 6)),
            layers.Rescaling(list(WATCH_SCALE)),
            layers.Conv1D(32, 9, activation="relu"),
            layers.MaxPooling1D(4),
            layers.Conv1D(64, 5, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(7, activation="softmax"),
        ],
        name="cnn1d",
    )


ARCHITECTURES: dict[str, Callable[[], Any]] = {"mlp": build_mlp, "cnn": build_cnn, "cnn1d": build_cnn1d}
