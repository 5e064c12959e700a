"""Training on the device, on whichever runtime is installed here."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flchain.base.errors import ConfigError
from flchain_edge.children.ends import ProcessEnd
from flchain_edge.children.native_lines import leave_out
from flchain_edge.model import tflite
from flchain_edge.model.tflite import EVALUATE_BATCH, SIGNATURES, ModelRefused, TfliteModel, probe_model
from tools.modelbuilder.cli import main
from tools.modelbuilder.reference import build_inputs

ROOT = Path(__file__).resolve().parents[3]
MODELS = {name: ROOT / "tools" / "models" / f"{name}.tflite" for name in ("mlp", "cnn", "cnn1d")}
SHAPES = {"mlp": ((784,), 10, 101_770), "cnn": ((28, 28, 1), 10, 20_522), "cnn1d": ((100, 6), 7, 12_519)}
RUNTIME = tflite._INTERPRETER
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


def rename(content: bytes, old: bytes, new: bytes) -> bytes:
    """The same file with a string of the same length changed: signature keys and tensor names are plain text."""
    assert len(old) == len(new) and old in content
    mark = len(old).to_bytes(4, "little")
    return content.replace(mark + old + b"\0", mark + new + b"\0")


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


def test_probe_accepts_the_built_in_models(name):
    """Every committed model passes the probe on this runtime."""
    probe_model(MODELS[name].read_bytes())


@pytest.mark.parametrize("content", [b"", b"not a model at all", bytes(4096), b"\x1c\0\0\0TFL3" + bytes(64)])
def test_probe_refuses_garbage(content):
    """A file that is not a model is a ConfigError, and this process survives."""
    with pytest.raises(ConfigError, match="model"):
        probe_model(content)


def test_probe_refuses_a_truncated_model():
    """Half a file, as a broken download leaves it, is a ConfigError."""
    content = MODELS["cnn1d"].read_bytes()
    with pytest.raises(ConfigError):
        probe_model(content[: len(content) // 2])


@pytest.mark.parametrize("signature", sorted(SIGNATURES))
def test_probe_names_a_missing_signature(signature):
    """A model without one of the signatures is refused, and the message names it."""
    content = MODELS["cnn1d"].read_bytes()
    broken = rename(content, signature.encode(), signature[:-1].encode() + b"_")
    with pytest.raises(ConfigError, match=f"signature {signature} is missing"):
        probe_model(broken)
    with pytest.raises(ConfigError, match=f"signature {signature} is missing"):
        TfliteModel(broken)


def test_probe_names_a_missing_input():
    """A signature with another input than expected is refused, and both names are given."""
    content = rename(MODELS["cnn1d"].read_bytes(), b"learning_rate", b"learning_pace")
    with pytest.raises(ConfigError, match=r"train: missing \['learning_rate'\], not expected \['learning_pace'\]"):
        probe_model(content)


def probe(kind: str, patch: str, options: str = "") -> tuple[str, bool]:
    """Return what a probe of a good model says, and whether it may be memory, while `patch` is in force in the child.

    In a new interpreter with one thread, so that it forks, or with two, so that it starts a program. There a warning is
    an error, and what is written to stderr is one too.
    """
    program = f"import os, pathlib, signal, threading\nfrom flchain_edge.model import tflite\n{patch}\n"
    script = (
        f"{program}tflite.PROBE_PROGRAM = {program + 'tflite.run_probe_program()'!r}\n"
        f"if {kind == 'program'}: threading.Thread(target=signal.pause, daemon=True).start()\n"
        f"content = pathlib.Path({str(MODELS['mlp'])!r}).read_bytes()\n"
        f"try: tflite.probe_model(content, {options})\n"
        "except tflite.ModelRefused as error: print(int(error.may_lack_memory), error)\n"
        "else: print('0 accepted')"
    )
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = (sys.executable, "-W", "error", "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ, cwd=ROOT)
    assert done.stderr == ""
    is_memory, _, text = done.stdout.strip().partition(" ")
    return text, is_memory == "1"


KINDS = ("fork", "program")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("number", "is_memory"), [(signal.SIGABRT, False), (signal.SIGSEGV, False), (signal.SIGKILL, True)]
)
def test_probe_names_the_signal_that_ended_it(kind, number, is_memory):
    """A model that ends its process takes only the child along; the message names the signal, and SIGKILL's cause."""
    text, may_lack_memory = probe(
        kind, f"tflite._try_model = lambda model: (os.write(2, b'the last word'), os.kill(os.getpid(), {int(number)}))"
    )
    assert f"kills the process that tries it ({number.name}" in text and text.endswith(": the last word")
    assert (may_lack_memory, "memory" in text) == (is_memory, is_memory)


@pytest.mark.parametrize("kind", KINDS)
def test_probe_is_silent_on_a_good_model(kind):
    """A trial neither writes to stderr, the runtime's own lines included, nor warns, on any version of Python."""
    assert probe(kind, "") == ("accepted", False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_child_is_forked_from_one_thread_only(kind):
    """With one thread the trial runs in a copy of the process, with more in a program that has set up itself."""
    patch = (
        "set_up_by = os.getpid()\n"
        "def tell(model): raise RuntimeError('program' if os.getpid() == set_up_by else 'fork')\n"
        "tflite._try_model = tell"
    )
    assert probe(kind, patch)[0].endswith(f"RuntimeError: {kind}")


@pytest.mark.parametrize(
    ("number", "peak_mb", "limit_mb", "is_plausible"),
    [
        (signal.SIGSEGV, 60, 256, False),  # far below its limit: a fault of the runtime
        (signal.SIGSEGV, 60, 0, False),
        (signal.SIGSEGV, 200, 256, True),  # a runtime that is refused memory dies like this too
        (signal.SIGABRT, 128, 256, True),
        (signal.SIGKILL, 1, 0, True),
    ],
)
def test_memory_is_plausible_near_its_limit(number, peak_mb, limit_mb, is_plausible):
    """Want of memory explains a death if the kernel killed it, or if it held half of what it may, and no other."""
    assert ProcessEnd(-number, peak_mb * 1_000_000).may_lack_memory(limit_mb * 1_000_000) == is_plausible


def test_an_end_is_named():
    """Signals are reported by name, those without one by number, and an exit by its status."""
    names = [str(ProcessEnd(code, 0)) for code in (-11, -40, 0, 3)]
    assert names == ["SIGSEGV", "signal 40", "status 0", "status 3"]


@pytest.mark.parametrize("kind", KINDS)
def test_probe_gives_up_in_time(kind):
    """A model that never answers is given up after the time allowed, and its process is ended."""
    assert probe(kind, "tflite._try_model = lambda model: signal.pause()", "timeout_s=1.0") == (
        "model: no result within 1 s",
        False,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("error", "is_memory"), [("RuntimeError", False), ("MemoryError", True)])
def test_probe_reports_an_exception(kind, error, is_memory):
    """Whatever a model raises while it is tried is the operator's problem; MemoryError means a lack of memory."""
    patch = f"def fail(model): raise {error}('Node number 7 failed')\ntflite._try_model = fail"
    text = f"model: trying it failed: {error}: Node number 7 failed"
    assert probe(kind, patch, "memory_bytes_max=1 << 40") == (text, is_memory)


def test_probe_that_cannot_start_is_an_operators_problem(monkeypatch):
    """A machine that has no room for one more process refuses the model with that reason, and no traceback."""

    def fail(*arguments):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(tflite, "run_apart", fail)
    with pytest.raises(ModelRefused, match=r"no process can be started .* Cannot allocate memory") as refused:
        probe_model(MODELS["mlp"].read_bytes())
    assert refused.value.may_lack_memory


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


def test_probe_refuses_a_model_that_does_not_learn(monkeypatch):
    """A training step that changes nothing is found out: the model is refused before a round is lost on it."""
    monkeypatch.setattr(TfliteModel, "train_step", lambda self, x, y, learning_rate: self.evaluate(x, y)[1])
    with pytest.raises(ConfigError, match="changes nothing"):
        tflite._try_model(TfliteModel(MODELS["mlp"].read_bytes()))


def test_no_runtime_is_a_config_error(monkeypatch):
    """Without a runtime the message says what to install, and for which numpy."""
    monkeypatch.setattr(tflite, "_INTERPRETER", None)
    with pytest.raises(ConfigError, match=r"install tflite-runtime .* or ai-edge-litert"):
        TfliteModel(MODELS["mlp"].read_bytes())


def test_show_describes_a_model(capsys):
    """`flchain model show` prints what an operator compares: parameters, shapes, signatures, size and hash."""
    assert main(["show", str(MODELS["cnn1d"])]) == 0
    printed = capsys.readouterr().out
    assert "12519" in printed and "100 x 6" in printed and "train grad infer evaluate init save restore" in printed
    readme = (ROOT / "tools" / "models" / "README.md").read_text()
    assert printed.split("sha256")[1].split()[0] in readme


def test_show_names_what_is_wrong(tmp_path, capsys):
    """A missing file and a file that is not a model end with exit code 2 and a reason, without a traceback."""
    assert main(["show", str(tmp_path / "none.tflite")]) == 2
    (tmp_path / "bad.tflite").write_bytes(b"garbage")
    assert main(["show", str(tmp_path / "bad.tflite")]) == 2
    errors = capsys.readouterr().err
    assert "No such file" in errors and "not a .tflite file" in errors
