"""Training on the device, on whichever runtime is installed here."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flchain.base.errors import ConfigError
from flchain_edge.children.native_lines import leave_out
from flchain_edge.model import tflite
from flchain_edge.model.tflite import EVALUATE_BATCH, SIGNATURES, TfliteModel
from flchain_edge.process.command_line import EXIT_CONFIG
from tools.cli import main
from tools.modelbuilder.reference import build_inputs

ROOT = Path(__file__).resolve().parents[3]
MODELS = {name: ROOT / "tools" / "models" / f"{name}.tflite" for name in ("mlp", "cnn", "cnn1d")}
SHAPES = {"mlp": ((784,), 10, 101_770), "cnn": ((28, 28, 1), 10, 20_522), "cnn1d": ((100, 6), 7, 12_519)}
RUNTIME: Any = tflite._INTERPRETER
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
# Of a tensor's largest entry. Measured: at most 2e-6 on tflite-runtime 2.14 and ai-edge-litert 2.3.
GRADIENT_ERROR_MAX = 1e-5


@pytest.fixture(params=sorted(MODELS))
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return TfliteModel(MODELS[name].read_bytes())


def make_separable(model: TfliteModel, count: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Examples whose class shows: noise around one random pattern a class, steady in time for a series."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, model.classes, count).astype(np.int32)
    is_series = len(model.input_shape) == 2
    shape = (1, model.input_shape[1]) if is_series else model.input_shape
    patterns = rng.uniform(-1.0, 1.0, (model.classes, *shape))
    return (patterns[y] + 0.1 * rng.standard_normal((count, *model.input_shape))).astype(np.float32), y


def test_describes_itself(name, model):
    """Input shape, classes and parameter count are read from the file, whichever runtime reads it."""
    assert (model.input_shape, model.classes, model.parameters_count) == SHAPES[name]
    assert tflite.RUNTIME_NAME in ("tflite_runtime", "ai_edge_litert")
    assert tflite.read_runtime_version()


def test_weights_round_trip_bit_exact(model):
    """What is restored is saved again bit for bit: a hash over the weights survives the device."""
    weights = np.random.default_rng(1).standard_normal(model.parameters_count).astype(np.float32)
    weights[:4] = (0.0, -0.0, np.float32(1e-42), np.finfo(np.float32).max)
    model.set_weights(weights)
    assert model.get_weights().tobytes() == weights.tobytes()


def test_outputs_are_copies(model):
    """What was returned does not change when the model trains on."""
    x, y = make_separable(model, 8)
    weights, grad, probabilities = model.get_weights(), model.grad(x, y), model.infer(x)
    kept = weights.tobytes(), grad.tobytes(), probabilities.tobytes()
    for _ in range(3):
        model.train_step(x, y, 0.1)
    model.get_weights(), model.grad(x, y), model.infer(x)
    assert (weights.tobytes(), grad.tobytes(), probabilities.tobytes()) == kept


def test_loss_falls(model):
    """Training on examples that can be told apart makes the loss fall and the examples known."""
    x, y = make_separable(model, 64)
    before_correct, before_loss = model.evaluate(x, y)
    for _ in range(60):
        for start in range(0, 64, 32):
            model.train_step(x[start : start + 32], y[start : start + 32], 0.05)
    correct, loss = model.evaluate(x, y)
    assert loss < 0.5 * before_loss
    assert correct > before_correct


def test_step_is_momentum_sgd(model):
    """Two steps are what the stated rule gives from the model's own gradients; restoring forgets the momentum."""
    x, y = make_separable(model, 16)
    start, rate = model.get_weights(), np.float32(0.01)
    first = model.grad(x, y)
    model.train_step(x, y, float(rate))
    after_one = model.get_weights()
    np.testing.assert_allclose(after_one, start - rate * first, rtol=0, atol=1e-6)
    second = model.grad(x, y)
    model.train_step(x, y, float(rate))
    np.testing.assert_allclose(
        model.get_weights(), after_one - rate * (np.float32(0.9) * first + second), rtol=0, atol=1e-6
    )
    model.set_weights(start)
    model.train_step(x, y, float(rate))
    assert model.get_weights().tobytes() == after_one.tobytes()


def test_init_restores_the_file(model):
    """`init` brings back the weights that the file was built with, from any state."""
    start = model.get_weights()
    model.set_weights(np.full(model.parameters_count, np.nan, np.float32))
    model.init()
    assert model.get_weights().tobytes() == start.tobytes()


def test_recovers_from_divergence(model):
    """After a run that ended in NaN, restored weights train as if it had never been."""
    x, y = make_separable(model, 8)
    start = model.get_weights()
    first = model.train_step(x, y, 0.01)
    expected = model.get_weights()
    model.set_weights(np.full(model.parameters_count, np.nan, np.float32))
    model.train_step(x, y, 1.0)
    model.set_weights(start)
    assert model.train_step(x, y, 0.01) == first
    assert model.get_weights().tobytes() == expected.tobytes()


@pytest.mark.parametrize("count", [1, EVALUATE_BATCH, EVALUATE_BATCH + 1, 3 * EVALUATE_BATCH - 5])
def test_evaluate_matches_infer(model, count):
    """Correct answers and mean loss of `evaluate` are those of `infer`'s probabilities, for any number of examples."""
    x, y = make_separable(model, count)
    for _ in range(3):
        model.train_step(x, y, 0.01)
    probabilities = model.infer(x)
    assert probabilities.shape == (count, model.classes)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-5)
    correct, loss = model.evaluate(x, y)
    assert correct == int((probabilities.argmax(1) == y).sum())
    assert loss == pytest.approx(float(-np.log(probabilities[np.arange(count), y]).mean()), rel=1e-4, abs=1e-5)


def test_gradient_is_of_the_mean(model):
    """The gradient of a batch is the mean of its examples' gradients, and changes nothing in the model."""
    x, y = make_separable(model, 5)
    start = model.get_weights()
    each = np.mean([model.grad(x[i : i + 1], y[i : i + 1]) for i in range(5)], axis=0)
    together = model.grad(x, y)
    assert np.abs(together - each).max() <= 1e-5 * np.abs(together).max()
    assert model.get_weights().tobytes() == start.tobytes()


def test_gradients_are_tensorflows(name, model):
    """The gradient on this runtime is TensorFlow's, tensor by tensor: a falling loss would not show a wrong kernel."""
    reference = np.load(ROOT / "tests" / "vectors" / "gradients" / f"{name}.npz")
    grad = model.grad(*build_inputs(model.input_shape, model.classes))
    error = np.abs(grad[reference["index"]] - reference["gradient"]) / reference["scale"]
    assert error.max() <= GRADIENT_ERROR_MAX


def test_extreme_examples_give_finite_loss(model):
    """Sensor values far out of range saturate the softmax, and loss and gradient stay finite numbers."""
    x, y = make_separable(model, 4)
    correct, loss = model.evaluate(x * np.float32(1e4), y)
    assert np.isfinite(loss) and 0 <= correct <= 4
    assert np.isfinite(model.grad(x * np.float32(1e4), y)).all()


def test_threads_share_nothing(model):
    """Two models train in two threads to the very weights that each reaches alone: nothing is shared."""
    x, y = make_separable(model, 32)
    content = MODELS[{shape[2]: name for name, shape in SHAPES.items()}[model.parameters_count]].read_bytes()

    def train(results: list[bytes]) -> None:
        own = TfliteModel(content)
        for _ in range(10):
            own.train_step(x, y, 0.01)
        results.append(own.get_weights().tobytes())

    results: list[bytes] = []
    threads = [threading.Thread(target=train, args=(results,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    train(results)
    assert len(set(results)) == 1 and len(results) == 3


def test_wrong_shapes_are_refused(model):
    """A wrong shape of weights, examples or labels, or a label outside the classes, is an error and never an answer."""
    x, y = make_separable(model, 4)
    with pytest.raises(ValueError, match="weights of shape"):
        model.set_weights(np.zeros(model.parameters_count + 1, np.float32))
    with pytest.raises(ValueError, match="x of shape"):
        model.infer(x[..., :-1])
    with pytest.raises(ValueError, match="x of shape"):
        model.evaluate(x[:0], y[:0])
    with pytest.raises(ValueError, match="y of shape"):
        model.train_step(x, y[:-1], 0.1)
    for label in (-1, model.classes):
        with pytest.raises(ValueError, match="labels"):
            model.train_step(x, np.full(4, label, np.int32), 0.1)


class RefusingInterpreter:
    """The runtime installed here, except that it takes no scalar and notes which signatures were called."""

    called: set[str]

    def __init__(self, **arguments: Any) -> None:
        self._inner = RUNTIME(**arguments)

    def get_signature_list(self) -> Any:
        return self._inner.get_signature_list()

    def get_signature_runner(self, signature: str) -> Any:
        return RefusingRunner(signature, self._inner.get_signature_runner(signature), self.called)


class RefusingRunner:
    """As `ai-edge-litert` on AArch64 would die, so it fails here: by the shape of what it is given."""

    def __init__(self, signature: str, inner: Any, called: set[str]) -> None:
        self._signature, self._inner, self._called = signature, inner, called
        self.get_input_details, self.get_output_details = inner.get_input_details, inner.get_output_details

    def __call__(self, **inputs: Any) -> Any:
        scalars = [name for name, value in inputs.items() if np.ndim(value) == 0]
        assert not scalars, f"{self._signature} is given {scalars} of shape ()"
        self._called.add(self._signature)
        return self._inner(**inputs)


def test_no_scalar_enters_a_runtime(name, monkeypatch):
    """Every input of every signature that training, scoring and storing call has at least one dimension."""
    called: set[str] = set()
    monkeypatch.setattr(tflite, "_INTERPRETER", type("Counting", (RefusingInterpreter,), {"called": called}))
    content = MODELS[name].read_bytes()
    careful = TfliteModel(content)
    x, y = make_separable(careful, 8)
    careful.train_step(x, y, 0.05)
    careful.grad(x, y), careful.infer(x), careful.evaluate(x, y)
    careful.set_weights(careful.get_weights())
    assert called == set(SIGNATURES)


@pytest.mark.skipif(
    tflite.RUNTIME_NAME == "ai_edge_litert" and platform.machine() == "aarch64", reason="a scalar kills the process"
)
def test_one_element_trains_as_a_scalar_does(model):
    """Four steps with the rate as (1,) end at the very bits that the runtime gives for a rate of shape ()."""
    x, y = make_separable(model, 16)
    losses = [model.train_step(x, y, 0.05) for _ in range(4)]
    weights = model.get_weights()
    model.init()
    train = model._get_runner("train")
    assert [float(train(x=x, y=y, learning_rate=np.float32(0.05))["loss"]) for _ in range(4)] == losses
    assert model.get_weights().tobytes() == weights.tobytes()


def test_only_the_empty_line_is_left_out(capfd):
    """What is written to stderr meanwhile comes out in its order, without the one line, even if an error ends it."""
    with pytest.raises(KeyError), leave_out(b"INFO: nothing"):
        os.write(2, b"before\nINFO: nothing\nINFO: nothing new\n")
        os.write(2, b"after\n")
        raise KeyError
    os.write(2, b"INFO: nothing\n")
    assert capfd.readouterr().err == "before\nINFO: nothing new\nafter\nINFO: nothing\n"


def test_a_model_says_nothing_by_itself():
    """Loading, training and scoring in a new process write nothing to stderr, and a closed stderr is not an error."""
    script = (
        "import pathlib, numpy as np\nfrom flchain_edge.model.tflite import TfliteModel\n"
        f"model = TfliteModel(pathlib.Path({str(MODELS['cnn1d'])!r}).read_bytes())\n"
        "x, y = np.zeros((2, 100, 6), np.float32), np.zeros(2, np.int32)\n"
        "model.train_step(x, y, 0.1)\nmodel.evaluate(x, y)\nprint('done')"
    )
    command = (sys.executable, "-W", "error", "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("done\n", "")
    closed = subprocess.run(("sh", "-c", 'exec "$@" 2>&-', "sh", *command), capture_output=True, check=True, cwd=ROOT)
    assert closed.stdout == b"done\n"


def test_no_runtime_is_a_config_error(monkeypatch):
    """Without a runtime the message says what to install, and for which numpy."""
    monkeypatch.setattr(tflite, "_INTERPRETER", None)
    with pytest.raises(ConfigError, match=r"install tflite-runtime .* or ai-edge-litert"):
        TfliteModel(MODELS["mlp"].read_bytes())


def test_show_describes_a_model(capsys):
    """`flchain model show` prints what an operator compares: parameters, shapes, signatures, size and hash."""
    assert main(["model", "show", str(MODELS["cnn1d"])]) == 0
    printed = capsys.readouterr().out
    assert "12519" in printed and "100 x 6" in printed and "train grad infer evaluate init save restore" in printed
    readme = (ROOT / "tools" / "models" / "README.md").read_text()
    assert printed.split("sha256")[1].split()[0] in readme


def test_show_names_what_is_wrong(tmp_path, capsys):
    """A missing file and a file that is not a model end with exit code 78 and a reason, without a traceback."""
    assert main(["model", "show", str(tmp_path / "none.tflite")]) == EXIT_CONFIG
    (tmp_path / "bad.tflite").write_bytes(b"garbage")
    assert main(["model", "show", str(tmp_path / "bad.tflite")]) == EXIT_CONFIG
    errors = capsys.readouterr().err
    assert "No such file" in errors and "not a .tflite file" in errors
