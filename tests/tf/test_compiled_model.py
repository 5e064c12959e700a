"""ai-edge-litert's newer interface, CompiledModel, behind our seam: the same bits, should it ever be of use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, HardwareAccelerator, Options

from flchain_edge.model import tflite
from flchain_edge.model.seam import Interpreter, SignatureRunner
from flchain_edge.model.tflite import TfliteModel

MODELS = Path(__file__).resolve().parents[2] / "tools" / "models"
OPEN = {"x": 0, "y": 0, "probabilities": 0}
"""Inputs and outputs, and their axis whose size is the batch's."""


class CompiledRunner(SignatureRunner):
    """A signature of a compiled model; its buffers are made anew for another batch size."""

    def __init__(self, model: CompiledModel, name: str, known: Mapping[str, list[str]]) -> None:
        self._model, self._name, self._known = model, name, known
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        shapes = {name: np.shape(value) for name, value in inputs.items()}
        if shapes != self._shapes or not self._outputs:
            for name in inputs:
                if name in OPEN:
                    self._model.resize_input_tensor_by_name(self._name, name, shapes[name])
            make_input, make_output = self._model.create_input_buffer_by_name, self._model.create_output_buffer_by_name
            self._inputs = {name: make_input(self._name, name) for name in self._known["inputs"]}
            self._outputs = {name: make_output(self._name, name) for name in self._known["outputs"]}
            self._shapes = shapes
        for name, value in inputs.items():
            self._inputs[name].write(np.asarray(value))
        self._model.run_by_name(self._name, self._inputs, self._outputs)
        return {name: self._read(buffer) for name, buffer in self._outputs.items()}

    def _read(self, buffer: Any) -> Any:
        details = buffer.get_tensor_details()
        shape = tuple(details["shape"])
        return buffer.read(int(np.prod(shape)), np.dtype(details["dtype"]).type).reshape(shape)

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        return self._describe(self._model.get_input_tensor_details(self._name))

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        return self._describe(self._model.get_output_tensor_details(self._name))

    def _describe(self, details: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        found = {name: list(each["shape"]) for name, each in details.items()}
        for name, shape in found.items():
            if name in OPEN:
                shape[OPEN[name]] = -1
        return {name: {"shape_signature": np.array(shape)} for name, shape in found.items()}


class CompiledInterpreter(Interpreter):
    """A model that is compiled for the CPU."""

    def __init__(self, *, model_content: bytes, num_threads: int) -> None:
        cpu = CpuOptions(num_threads=num_threads)
        options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=cpu)
        self._model = CompiledModel.from_buffer(model_content, options=options)

    def get_signature_list(self) -> dict[str, dict[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = self._model.get_signature_list()
        return found

    def get_signature_runner(self, name: str) -> SignatureRunner:
        return CompiledRunner(self._model, name, self.get_signature_list()[name])


def train(model: bytes) -> list[bytes]:
    """Everything that a device lets a model do, in several batch sizes; what came of it, as bytes."""
    runner = TfliteModel(model)
    x = np.random.default_rng(1).random((70, *runner.input_shape), np.float32)
    y = (np.arange(70) * 3 % runner.classes).astype(np.int32)
    found = [runner.get_weights().tobytes()]
    for rows in (32, 32, 7, 1):
        loss = runner.train_step(x[:rows], y[:rows], 0.05)
        found += [np.float64(loss).tobytes(), runner.get_weights().tobytes()]
    found += [runner.grad(x[:9], y[:9]).tobytes(), runner.infer(x).tobytes(), repr(runner.evaluate(x, y)).encode()]
    runner.set_weights(np.frombuffer(found[2], np.float32))
    return [*found, runner.get_weights().tobytes()]


@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn1d"])
def test_both_interfaces_give_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, weights, gradients and scores of a built model are equal to the last bit through either interface."""
    assert tflite.RUNTIME_NAME == "ai_edge_litert"
    model = (MODELS / f"{name}.tflite").read_bytes()
    expected = train(model)
    monkeypatch.setattr(tflite, "_INTERPRETER", CompiledInterpreter)
    assert train(model) == expected
