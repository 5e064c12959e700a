"""The model builder against TensorFlow itself. Runs in the environment that has TensorFlow only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from flchain.base.errors import ConfigError
from flchain_edge.model.tflite import TfliteModel
from flchain_edge.process.command_line import EXIT_CONFIG
from tools.cli import main
from tools.modelbuilder import ops
from tools.modelbuilder.build import build_tflite, verify_built
from tools.modelbuilder.chain import read_chain
from tools.modelbuilder.keras_models import load_keras
from tools.modelbuilder.reference import build_inputs, build_reference, compute_gradients, measure_errors
from tools.modelbuilder.zoo import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
GRADIENT_ERROR_MAX = 1e-5  # of a tensor's largest entry; measured: see tools/models/README.md


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_committed_models_have_tensorflows_gradients(name):
    """Each committed file differentiates as TensorFlow does, and the small reference files say the same."""
    model = load_keras(name)
    by_probability, by_gradient = measure_errors(model, (ROOT / "tools" / "models" / f"{name}.tflite").read_bytes())
    assert by_probability <= 1e-5
    assert by_gradient <= GRADIENT_ERROR_MAX
    kept = np.load(ROOT / "tests" / "vectors" / "gradients" / f"{name}.npz")
    fresh = build_reference(model)
    assert np.array_equal(kept["index"], fresh["index"])
    assert (np.abs(kept["gradient"] - fresh["gradient"]) / fresh["scale"]).max() <= GRADIENT_ERROR_MAX


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_rebuild_equals_the_committed_model(name):
    """Building again gives the committed file's initial weights bit for bit, the same gradients and the same step."""
    rebuilt = TfliteModel(build_tflite(load_keras(name)))
    committed = TfliteModel((ROOT / "tools" / "models" / f"{name}.tflite").read_bytes())
    assert rebuilt.get_weights().tobytes() == committed.get_weights().tobytes()
    x, y = build_inputs(committed.input_shape, committed.classes)
    scale = np.abs(committed.grad(x, y)).max()
    assert np.abs(rebuilt.grad(x, y) - committed.grad(x, y)).max() <= 1e-6 * scale
    rebuilt.train_step(x, y, 0.1)
    committed.train_step(x, y, 0.1)
    np.testing.assert_allclose(rebuilt.get_weights(), committed.get_weights(), rtol=0, atol=1e-6)


def build_padded_image() -> Any:
    inputs = keras.Input((11, 9, 2))
    x = layers.Rescaling([0.5, 2.0], offset=[0.1, -0.2])(inputs)
    x = layers.Conv2D(3, (2, 3), padding="same")(x)
    x = layers.ReLU()(x)
    x = layers.MaxPooling2D((2, 3))(x)
    x = layers.Conv2D(4, (3, 2), padding="same", use_bias=False, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Softmax()(layers.Dense(3)(x)))


def build_padded_series() -> Any:
    return keras.Sequential(
        [
            keras.Input((23, 3)),
            layers.Conv1D(5, 4, padding="same", activation="relu"),
            layers.MaxPooling1D(3),
            layers.Conv1D(6, 3),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dense(8, activation="relu", use_bias=False),
            layers.Dense(4, activation="softmax"),
        ]
    )


def build_pool_first() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.MaxPooling2D(4),
            layers.Rescaling(2.0),
            layers.Conv2D(4, 2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("build", [build_padded_image, build_padded_series, build_pool_first])
def test_every_supported_option_has_tensorflows_gradients(build: Callable[[], Any]):
    """Padding, even kernels, blocks that do not fill, missing biases, functional chains: each differentiates right."""
    keras.utils.set_random_seed(3)
    model = build()
    content = build_tflite(model)
    verify_built(model, content)
    assert max(measure_errors(model, content)) <= GRADIENT_ERROR_MAX


def test_a_wrong_kernel_is_found_before_the_file_is_written(tmp_path, monkeypatch, capsys):
    """A layer that converts, and trains, but is not Keras's stops the build: no file, exit code 78, and the figures."""
    monkeypatch.setattr(ops.Relu, "forward", lambda self, x, parameters: (x * 0.99, x))
    assert main(["model", "build", "--keras", "mlp", "--out", str(tmp_path / "out.tflite")]) == EXIT_CONFIG
    assert "differs from the Keras model" in capsys.readouterr().err
    assert not (tmp_path / "out.tflite").exists()


def test_equal_values_in_a_pool_give_one_the_gradient():
    """Where a block holds its maximum twice, one place takes the gradient, as in TensorFlow: it is never doubled."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, padding="same"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    tflite = TfliteModel(build_tflite(model))
    x = np.ones((4, 6, 6, 1), np.float32)
    y = np.array([0, 1, 0, 1], np.int32)
    expected = np.concatenate([grad.ravel() for grad in compute_gradients(model, x, y)])
    np.testing.assert_allclose(tflite.grad(x, y), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_refuses_all_at_once():
    """Unsupported layers and options are refused in one error that names each of them."""
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(2, 3, strides=2, activation="elu"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop"),
            layers.MaxPooling2D(3, strides=1),
            layers.Flatten(),
            layers.Dense(4, activation="relu", kernel_regularizer="l2"),
            layers.Dense(4),
        ]
    )
    with pytest.raises(ConfigError) as caught:
        read_chain(model)
    told = "\n".join(caught.value.problems)
    for word in ("strides (2, 2)", "activation elu", "norm", "drop", "strides (1, 1)", "kernel_regularizer", "softmax"):
        assert word in told, word
    assert len(caught.value.problems) == 7


def test_refuses_what_is_no_chain():
    """A model that branches is refused: its layers are not each fed by the one before."""
    inputs = keras.Input((4,))
    left, right = layers.Dense(3, name="left")(inputs), layers.Dense(3, name="right")(inputs)
    model = keras.Model(inputs, layers.Softmax()(layers.Add()([left, right])))
    with pytest.raises(ConfigError, match="not a simple chain"):
        read_chain(model)


def test_refuses_frozen_layers_and_layers_used_twice():
    """Weights that are frozen or shared between places have no place in one vector of trained parameters."""
    frozen = keras.Sequential([keras.Input((4,)), layers.Dense(3, trainable=False), layers.Dense(2, "softmax")])
    with pytest.raises(ConfigError, match="trainable=False"):
        read_chain(frozen)
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    with pytest.raises(ConfigError, match="not a simple chain"):
        read_chain(keras.Model(inputs, layers.Softmax()(shared(shared(inputs)))))


@pytest.mark.parametrize("build", [build_padded_series, build_padded_image])
def test_build_from_a_file(build: Callable[[], Any], tmp_path, capsys):
    """`flchain model build` takes a saved Keras model with its own weights and prints what it made."""
    keras.utils.set_random_seed(5)
    model = build()
    model.save(tmp_path / "mine.keras")
    out = tmp_path / "mine.tflite"
    assert main(["model", "build", "--keras", str(tmp_path / "mine.keras"), "--out", str(out)]) == 0
    built = TfliteModel(out.read_bytes())
    assert built.get_weights().tobytes() == np.concatenate([w.ravel() for w in model.get_weights()]).tobytes()
    assert f"parameters  {model.count_params()}" in capsys.readouterr().out


def test_build_says_what_is_wrong(tmp_path, capsys):
    """An unknown name and a file that is no Keras model end with exit code 78 and a reason."""
    (tmp_path / "bad.keras").write_bytes(b"garbage")
    for source in ("perceptron", str(tmp_path / "bad.keras")):
        assert main(["model", "build", "--keras", source, "--out", str(tmp_path / "out.tflite")]) == EXIT_CONFIG
        assert source in capsys.readouterr().err
    assert not (tmp_path / "out.tflite").exists()
