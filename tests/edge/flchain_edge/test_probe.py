"""Trying a model that nobody knows in a process apart, before it is trusted with a round."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError
from flchain_edge.children.ends import ProcessEnd
from flchain_edge.model import tflite
from flchain_edge.model.tflite import SIGNATURES, ModelRefused, TfliteModel, probe_model

ROOT = Path(__file__).resolve().parents[3]
MODELS = {name: ROOT / "tools" / "models" / f"{name}.tflite" for name in ("mlp", "cnn", "cnn1d")}


def rename(content: bytes, old: bytes, new: bytes) -> bytes:
    """The same file with a string of the same length changed: signature keys and tensor names are plain text."""
    assert len(old) == len(new) and old in content
    mark = len(old).to_bytes(4, "little")
    return content.replace(mark + old + b"\0", mark + new + b"\0")


@pytest.mark.parametrize("name", sorted(MODELS))
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


def test_probe_refuses_a_model_that_does_not_learn(monkeypatch):
    """A training step that changes nothing is found out: the model is refused before a round is lost on it."""
    monkeypatch.setattr(TfliteModel, "train_step", lambda self, x, y, learning_rate: self.evaluate(x, y)[1])
    with pytest.raises(ConfigError, match="changes nothing"):
        tflite._try_model(TfliteModel(MODELS["mlp"].read_bytes()))
