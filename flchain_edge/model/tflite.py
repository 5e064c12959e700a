"""The one seam over `tflite_runtime` 2.14 (numpy < 2) and `ai_edge_litert` 2.3 (numpy 2): a .tflite model that trains.

A trainable model (`flchain model build` makes them) holds P float32 parameters; B is any batch size. Its signatures:

    train     x (B, ...) float32, y (B,) int32, learning_rate (1,) -> loss ()    one step of SGD with momentum
    grad      x, y             -> gradient (P,)                     of the mean loss; changes nothing
    infer     x                -> probabilities (B, classes)
    evaluate  x, y             -> correct () int32, loss_sum ()
    init                       -> parameters_count ()               the file's own weights, no momentum
    save                       -> weights (P,)
    restore   weights (P,)     -> parameters_count ()               no momentum

A file may declare learning_rate as (), as those of `flchain model build` do. It is still given as (1,): no value
of shape () ever enters a runtime (see `_call`).
"""

from __future__ import annotations

import errno
import importlib
import json
import signal
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from flchain.base.errors import ConfigError
from flchain_edge.children.apart import answer_as_program, run_apart
from flchain_edge.children.native_lines import leave_out
from flchain_edge.model.float_state import keep_float_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flchain_edge.model.seam import OpenModel, SignatureRunner

    FloatArray = NDArray[np.float32]

# Signature -> inputs, outputs. Several exports of one model differ in more; these are the names that are called.
SIGNATURES: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    "train": (frozenset({"x", "y", "learning_rate"}), frozenset({"loss"})),
    "grad": (frozenset({"x", "y"}), frozenset({"gradient"})),
    "infer": (frozenset({"x"}), frozenset({"probabilities"})),
    "evaluate": (frozenset({"x", "y"}), frozenset({"correct", "loss_sum"})),
    "init": (frozenset(), frozenset({"parameters_count"})),
    "save": (frozenset(), frozenset({"weights"})),
    "restore": (frozenset({"weights"}), frozenset({"parameters_count"})),
}
EVALUATE_BATCH: Final = 64  # rows in one call: larger batches need more memory and are not faster
PROBE_TIMEOUT_S: Final = 120.0  # an emulated board is some 20 times slower than a real one
PROBE_PROGRAM: Final = "from flchain_edge.model.tflite import run_probe_program; run_probe_program()"
MODEL_FILE_BYTES_MAX: Final = 64 * 1024 * 1024
_FILE_IDENTIFIER: Final = b"TFL3"  # bytes 4 to 8 of every .tflite file
_CREATED: Final = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."  # ai-edge-litert, once in a process

_RUNTIMES: Final = (
    ("tflite_runtime", "tflite-runtime", "tflite_runtime.interpreter"),
    ("ai_edge_litert", "ai-edge-litert", "ai_edge_litert.interpreter"),
)


def _find_runtime() -> tuple[str, OpenModel | None]:
    """Return name and Interpreter class of the first runtime that works here, or an empty name and None."""
    for name, _, module in _RUNTIMES:
        if name == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
            continue  # it imports beside numpy 2, then fails on the first model
        try:
            with keep_float_state():
                found: OpenModel = importlib.import_module(module).Interpreter
                return name, found
        except ImportError:
            continue
    return "", None


RUNTIME_NAME, _INTERPRETER = _find_runtime()


def read_runtime_version() -> str:
    """Return the version of the installed runtime; empty if there is none."""
    import importlib.metadata  # 2 MB, which a worker on a board does not need

    distribution = {name: package for name, package, _ in _RUNTIMES}.get(RUNTIME_NAME, "")
    return importlib.metadata.version(distribution) if distribution else ""


class TfliteModel:
    """One model with its parameters and optimiser state, in memory only.

    Do not call it from two threads at once. Every call runs without the GIL, so a step may run in a thread beside an
    event loop. All arrays returned are copies. Raise ConfigError on construction if no runtime is installed or the
    file is not a trainable model; a file from elsewhere goes through `probe_model` first, as some abort the process.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        open_model = _check_file(model)
        try:
            self._interpreter = open_model(model_content=model, num_threads=threads)
            signatures = self._interpreter.get_signature_list()
        except (ValueError, RuntimeError) as error:
            raise ConfigError((f"model: the {RUNTIME_NAME} runtime cannot load it: {error}",)) from error
        _check_signatures(signatures)
        self._runners: dict[str, SignatureRunner] = {}
        infer = self._get_runner("infer")
        shape_in = _get_shape(infer.get_input_details()["x"])
        shape_out = _get_shape(infer.get_output_details()["probabilities"])
        weights = _get_shape(self._get_runner("restore").get_input_details()["weights"])
        if len(weights) != 1 or weights[0] < 1 or len(shape_out) != 2 or len(shape_in) < 2 or min(shape_in[1:]) < 1:
            raise ConfigError((f"model: weights {weights}, x {shape_in}, probabilities {shape_out}: not as expected",))
        self._parameters_count = weights[0]
        self._input_shape = shape_in[1:]
        self._classes = shape_out[1]
        with leave_out(_CREATED):  # it is written at the first call
            self.init()

    @property
    def parameters_count(self) -> int:
        """Return P, the length of the flat weight vector."""
        return self._parameters_count

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one example, without the batch."""
        return self._input_shape

    @property
    def classes(self) -> int:
        """Return the number of classes; labels are 0 to one less."""
        return self._classes

    def init(self) -> None:
        """Restore the weights that the file was built with, and no momentum."""
        self._call("init")

    def get_weights(self) -> FloatArray:
        """Return all parameters, (P,) float32."""
        return np.array(self._call("save")["weights"], np.float32)

    def set_weights(self, flat: FloatArray) -> None:
        """Replace all parameters by `flat` (P,) and forget the momentum. Raise ValueError on another shape."""
        weights = np.ascontiguousarray(flat, np.float32)
        if weights.shape != (self._parameters_count,):
            raise ValueError(f"weights of shape {weights.shape}; this model has ({self._parameters_count},)")
        self._call("restore", weights=weights)

    def train_step(self, x: FloatArray, y: NDArray[np.int32], learning_rate: float) -> float:
        """Make one step of SGD with momentum on a batch; return the mean loss (nats) before the step."""
        x, y = self._check_batch(x, y)
        return float(self._call("train", x=x, y=y, learning_rate=np.float32(learning_rate))["loss"])

    def grad(self, x: FloatArray, y: NDArray[np.int32]) -> FloatArray:
        """Return the gradient of the batch's mean loss by all parameters, (P,). Change nothing."""
        x, y = self._check_batch(x, y)
        return np.array(self._call("grad", x=x, y=y)["gradient"], np.float32)

    def infer(self, x: FloatArray) -> FloatArray:
        """Return class probabilities (B, classes) of x (B, ...), B >= 1, computed in batches."""
        x = self._check_examples(x)
        parts = (self._call("infer", x=x[i : i + EVALUATE_BATCH]) for i in range(0, len(x), EVALUATE_BATCH))
        return np.concatenate([np.array(part["probabilities"], np.float32) for part in parts])

    def evaluate(self, x: FloatArray, y: NDArray[np.int32]) -> tuple[int, float]:
        """Return how many of x (B, ...), B >= 1, are classified as y says, and the mean loss (nats)."""
        x, y = self._check_batch(x, y)
        correct, loss_sum = 0, 0.0
        for start in range(0, len(x), EVALUATE_BATCH):
            rows = slice(start, start + EVALUATE_BATCH)
            result = self._call("evaluate", x=x[rows], y=y[rows])
            correct += int(result["correct"])
            loss_sum += float(result["loss_sum"])
        return correct, loss_sum / len(x)

    def _get_runner(self, signature: str) -> SignatureRunner:
        """Return a signature's runner, made on first use: a signature that is never called costs no memory."""
        if signature not in self._runners:
            self._runners[signature] = self._interpreter.get_signature_runner(signature)
        return self._runners[signature]

    def _call(self, signature: str, **inputs: Any) -> dict[str, Any]:
        """Run a signature; return its outputs by name.

        A scalar is given as one element: ai-edge-litert 2.3 on AArch64 resizes each input to its value's shape, and
        for the shape () it writes past the end of an empty vector and dies. The results are the same bits.
        """
        shaped = {name: np.atleast_1d(value) for name, value in inputs.items()}
        return self._get_runner(signature)(**shaped)

    def _check_examples(self, x: FloatArray) -> FloatArray:
        examples = np.ascontiguousarray(x, np.float32)
        if examples.ndim < 1 or examples.shape[1:] != self._input_shape or not len(examples):
            raise ValueError(f"x of shape {examples.shape}; this model takes B >= 1 times {self._input_shape}")
        return examples

    def _check_batch(self, x: FloatArray, y: NDArray[np.int32]) -> tuple[FloatArray, NDArray[np.int32]]:
        examples = self._check_examples(x)
        labels = np.ascontiguousarray(y, np.int32)
        if labels.shape != examples.shape[:1]:
            raise ValueError(f"y of shape {labels.shape} for {len(examples)} examples")
        # The kernels accept any number as a label and count it as no class, which is silently wrong.
        if labels.min() < 0 or labels.max() >= self._classes:
            raise ValueError(
                f"labels {labels.min()} to {labels.max()}; this model has classes 0 to {self._classes - 1}"
            )
        return examples, labels


class ModelRefused(ConfigError):
    """The probe's findings. `may_lack_memory`: the machine or a limit may be too small for the model."""

    def __init__(self, problems: tuple[str, ...], *, may_lack_memory: bool = False) -> None:
        super().__init__(problems)
        self.may_lack_memory = may_lack_memory


def probe_model(model: bytes, timeout_s: float = PROBE_TIMEOUT_S, memory_bytes_max: int = 0) -> None:
    """Load and try a model in a child process: init, save, restore, one step, one evaluation, and gradients.

    `memory_bytes_max` is the limit that this process has, 0 if it has none. Raise ModelRefused if it is not a
    trainable model, gives nonsense, ends its process or takes too long.
    """
    _check_file(model)
    try:
        outcome = run_apart(_answer_probe, PROBE_PROGRAM, model, timeout_s)
    except OSError as error:
        text = f"model: no process can be started to try it in: {error.strerror}"
        raise ModelRefused((text,), may_lack_memory=error.errno == errno.ENOMEM) from error
    if outcome.answer is None:
        raise ModelRefused((f"model: no result within {timeout_s:g} s",))
    end = outcome.end
    may_lack_memory = end.may_lack_memory(memory_bytes_max)
    if not outcome.answer:
        why = ", as the kernel does when memory runs out" if end.code == -signal.SIGKILL else ""
        said = f": {outcome.words.splitlines()[-1][:300]}" if outcome.words else ""
        text = f"model: on {RUNTIME_NAME} it kills the process that tries it ({end}{why}){said}"
        raise ModelRefused((text,), may_lack_memory=may_lack_memory)
    found = json.loads(outcome.answer)
    if found["problems"]:
        is_short = found["is_out_of_memory"] or (found["is_failed"] and may_lack_memory)
        raise ModelRefused(tuple(found["problems"]), may_lack_memory=is_short)


def run_probe_program() -> None:
    """Probe in the program that `probe_model` starts if it may not fork."""
    answer_as_program(_answer_probe)


def _answer_probe(model: bytes) -> bytes:
    return json.dumps(_find_problems(model)).encode()


def _find_problems(model: bytes) -> dict[str, object]:
    """Return the problems as texts, and their kind; what an untrusted model raises is an answer, too."""
    problems: tuple[str, ...] = ()
    is_failed = is_out_of_memory = False
    try:
        _try_model(TfliteModel(model))
    except ConfigError as error:
        problems = error.problems
    except Exception as error:
        is_failed, is_out_of_memory = True, isinstance(error, MemoryError)
        problems = (f"model: trying it failed: {type(error).__name__}: {error}",)
    texts = [text[:1000] for text in problems[:20]]
    return {"problems": texts, "is_failed": is_failed, "is_out_of_memory": is_out_of_memory}


def _try_model(model: TfliteModel) -> None:
    """Raise ConfigError, with everything that a trainable model would not do."""
    problems = []
    x = (np.arange(3 * int(np.prod(model.input_shape)), dtype=np.float32) % 13 / 13).reshape(3, *model.input_shape)
    y = (np.arange(3) % model.classes).astype(np.int32)
    start = model.get_weights()
    if start.shape != (model.parameters_count,) or not np.isfinite(start).all():
        problems.append("model: the initial weights are not finite numbers of the announced count")
    loss = model.train_step(x, y, 0.01)
    after = model.get_weights()
    if not np.isfinite(loss) or not np.isfinite(after).all() or np.array_equal(start, after):
        problems.append("model: a training step changes nothing, or gives numbers that are not finite")
    model.set_weights(start)
    if model.get_weights().tobytes() != start.tobytes():
        problems.append("model: saved weights differ from those that were restored")
    if model.grad(x, y).shape != start.shape:
        problems.append("model: the gradient is not as long as the weights")
    correct, mean_loss = model.evaluate(x, y)
    if not 0 <= correct <= 3 or abs(mean_loss - loss) > 1e-3 * max(1.0, abs(loss)):
        problems.append(f"model: evaluation gives loss {mean_loss:.4f} where training had {loss:.4f}")
    if model.infer(x).shape != (3, model.classes):
        problems.append("model: infer does not give one probability for each class")
    if problems:
        raise ConfigError(tuple(problems))


def _check_file(model: bytes) -> OpenModel:
    """Check what can be checked without the runtime, whose parser is not made for hostile bytes; return the runtime."""
    if _INTERPRETER is None:
        wanted = "tflite-runtime 2.14 (with numpy < 2) or ai-edge-litert 2.3"
        raise ConfigError((f"no TensorFlow Lite runtime works here (numpy is {np.__version__}): install {wanted}",))
    if len(model) > MODEL_FILE_BYTES_MAX:
        raise ConfigError((f"model: {len(model)} bytes, more than {MODEL_FILE_BYTES_MAX}",))
    if model[4:8] != _FILE_IDENTIFIER:
        raise ConfigError((f"model: not a .tflite file ({len(model)} bytes, no {_FILE_IDENTIFIER.decode()} mark)",))
    return _INTERPRETER


def _check_signatures(found: dict[str, dict[str, list[str]]]) -> None:
    """Raise ConfigError, which names every signature, input and output that is missing."""
    problems = []
    for name, (inputs, outputs) in SIGNATURES.items():
        if name not in found:
            problems.append(f"model: signature {name} is missing")
            continue
        lacking = sorted(inputs - set(found[name]["inputs"])) + sorted(outputs - set(found[name]["outputs"]))
        surplus = sorted(set(found[name]["inputs"]) - inputs)
        if lacking or surplus:
            problems.append(f"model: signature {name}: missing {lacking}, not expected {surplus}")
    if problems:
        raise ConfigError(tuple(problems))


def _get_shape(details: Mapping[str, Any]) -> tuple[int, ...]:
    """Return a shape, with -1 where a size is open."""
    return tuple(int(size) for size in details["shape_signature"])
