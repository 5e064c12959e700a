"""Read a Keras model as a chain of layers, or refuse it with every reason at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flchain.base.errors import ConfigError
from tools.modelbuilder import ops

REFUSED_OPTIONS = (
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


@dataclass(frozen=True)
class Chain:
    """A chain of layers: the layers, shapes without batch, and the parameters as one vector (P,)."""

    ops: tuple[ops.Op, ...]
    input_shape: tuple[int, ...]
    classes: int
    start: NDArray[np.float32]


@dataclass
class _Reader:
    """Steps and problems found while walking the layers; `shape` is the next layer's input, without batch."""

    shape: tuple[int, ...]
    steps: list[ops.Op] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def refuse(self, layer: Any, why: str) -> None:
        self.problems.append(f"layer {layer.name} ({type(layer).__name__}): {why}")


def read_chain(model: Any) -> Chain:
    """Translate a Keras model. Raises ConfigError with every layer and option that a device cannot train."""
    shape = tuple(model.input_shape[1:]) if isinstance(model.input_shape, tuple) else ()
    if not 1 <= len(shape) <= 3 or any(not isinstance(size, int) for size in shape):
        raise ConfigError((f"input shape {model.input_shape}: must be one input with 1 to 3 known dimensions",))
    reader = _Reader(shape)
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    if len(shape) == 2:
        reader.steps.append(ops.Reshape(shape, (1, *shape)))
    is_chain = _check_chain(model, layers, reader)
    for position, layer in enumerate(layers):
        read = _READERS.get(type(layer).__name__) if type(layer).__module__.startswith("keras.") else None
        if read is None:
            reader.refuse(layer, f"unsupported layer; supported: {', '.join(sorted(_READERS))}")
        elif is_chain:
            _check_common(layer, reader)
            read(layer, reader, position == len(layers) - 1)
        if is_chain:
            reader.shape = tuple(layer.compute_output_shape((None, *reader.shape))[1:])
    if not layers or not _ends_in_softmax(layers[-1]) or (is_chain and len(reader.shape) != 1):
        reader.problems.append("the last layer must give class probabilities: Dense(activation='softmax') or Softmax")
    if not reader.problems and not any(step.parameter_shapes for step in reader.steps):
        reader.problems.append("the model has no weights to train")
    if reader.problems:
        raise ConfigError(tuple(reader.problems))
    flat = np.concatenate([np.asarray(w, np.float32).ravel() for w in model.get_weights()])
    return Chain(tuple(reader.steps), shape, reader.shape[0], flat)


def _check_chain(model: Any, layers: list[Any], reader: _Reader) -> bool:
    """Return True if the only input of each layer is the output of the one before; otherwise note where not."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        reader.problems.append("the model must have one input and one output")
        return False
    if type(model).__name__ == "Sequential":
        return True
    before = model.inputs[0]
    for layer in layers:
        try:
            is_next, before = layer.input is before, layer.output
        except (AttributeError, ValueError):  # a layer that is used twice
            is_next = False
        if not is_next:
            reader.refuse(layer, "not a simple chain: its input is not just the layer before it")
            return False
    return True


def _check_common(layer: Any, reader: _Reader) -> None:
    if getattr(layer, "compute_dtype", "float32") != "float32":
        reader.refuse(layer, f"dtype {layer.compute_dtype}: only float32")
    if layer.weights and not layer.trainable:
        reader.refuse(layer, "trainable=False: all weights are trained and shared")
    for option in REFUSED_OPTIONS:
        if getattr(layer, option, None) is not None:
            reader.refuse(layer, f"{option} is not supported")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        reader.refuse(layer, "data_format: only channels_last")


def _get_activation(layer: Any) -> str:
    return str(getattr(layer.activation, "__name__", layer.activation))


def _ends_in_softmax(layer: Any) -> bool:
    return type(layer).__name__ == "Softmax" or getattr(getattr(layer, "activation", None), "__name__", "") == "softmax"


def _add_relu(reader: _Reader) -> None:
    before = next((step for step in reversed(reader.steps) if not isinstance(step, ops.Reshape)), None)
    reader.steps.append(ops.Relu(is_masked=isinstance(before, ops.Dense) and not before.has_bias))


def _add_activation(layer: Any, reader: _Reader, is_last: bool) -> None:
    name = _get_activation(layer)
    if name == "relu":
        _add_relu(reader)
    elif name == "softmax" and not is_last:
        reader.refuse(layer, "softmax only on the last layer")
    elif name not in ("linear", "softmax"):
        reader.refuse(layer, f"activation {name}: only relu, linear, and softmax at the end")


def _read_dense(layer: Any, reader: _Reader, is_last: bool) -> None:
    if len(reader.shape) != 1:
        reader.refuse(layer, "needs a flat input: put Flatten or GlobalAveragePooling before it")
        return
    reader.steps.append(ops.Dense(reader.shape[0], int(layer.units), bool(layer.use_bias)))
    _add_activation(layer, reader, is_last)


def _read_conv(layer: Any, reader: _Reader, is_last: bool) -> None:
    *spatial, channels = reader.shape
    kernel = tuple(int(size) for size in layer.kernel_size)
    for option, size in (
        ("strides", layer.strides),
        ("dilation_rate", layer.dilation_rate),
        ("groups", (layer.groups,)),
    ):
        if any(step != 1 for step in size):
            reader.refuse(layer, f"{option} {tuple(size)}: only 1")
    if layer.padding not in ("valid", "same"):
        reader.refuse(layer, f"padding {layer.padding}: only valid or same")
    if len(spatial) == 1:
        spatial, kernel = [1, *spatial], (1, *kernel)
    total = [size - 1 if layer.padding == "same" else 0 for size in kernel]
    padding = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    reader.steps.append(
        ops.Conv(
            (kernel[0], kernel[1]),
            channels,
            int(layer.filters),
            (spatial[0], spatial[1]),
            padding,
            bool(layer.use_bias),
        )
    )
    _add_activation(layer, reader, is_last)


def _read_max_pool(layer: Any, reader: _Reader, is_last: bool) -> None:
    if tuple(layer.strides) != tuple(layer.pool_size):
        reader.refuse(layer, f"strides {tuple(layer.strides)}: only equal to the pool size {tuple(layer.pool_size)}")
    if layer.padding != "valid":
        reader.refuse(layer, f"padding {layer.padding}: only valid")
    shape = _get_image_shape(reader)
    pool = tuple(int(size) for size in layer.pool_size)
    reader.steps.append(ops.MaxPool((1, pool[0]) if len(pool) == 1 else (pool[0], pool[1]), shape))


def _read_average(layer: Any, reader: _Reader, is_last: bool) -> None:
    if layer.keepdims:
        reader.refuse(layer, "keepdims is not supported")
    reader.steps.append(ops.Average(_get_image_shape(reader)))


def _read_flatten(layer: Any, reader: _Reader, is_last: bool) -> None:
    shape = _get_image_shape(reader)
    reader.steps.append(ops.Reshape(shape, (int(np.prod(shape)),)))


def _read_relu(layer: Any, reader: _Reader, is_last: bool) -> None:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        reader.refuse(layer, "only plain ReLU: no max_value, negative_slope or threshold")
    _add_relu(reader)


def _read_softmax(layer: Any, reader: _Reader, is_last: bool) -> None:
    if not is_last or layer.axis not in (-1, 1):
        reader.refuse(layer, "softmax only at the end and over the classes")


def _read_activation(layer: Any, reader: _Reader, is_last: bool) -> None:
    _add_activation(layer, reader, is_last)


def _read_rescaling(layer: Any, reader: _Reader, is_last: bool) -> None:
    channels = reader.shape[-1]
    scale, offset = (np.asarray(value, np.float64).ravel() for value in (layer.scale, layer.offset))
    if scale.size not in (1, channels) or offset.size not in (1, channels):
        reader.refuse(layer, f"scale and offset must be one number or one for each of the {channels} channels")
        return
    reader.steps.append(ops.Rescale(tuple(map(float, scale)), tuple(map(float, offset))))


def _get_image_shape(reader: _Reader) -> tuple[int, ...]:
    """Return the shape of the layer's input without batch; a series has height 1."""
    return (1, *reader.shape) if len(reader.shape) == 2 else reader.shape


_READERS: dict[str, Callable[[Any, _Reader, bool], None]] = {
    "Activation": _read_activation,
    "Conv1D": _read_conv,
    "Conv2D": _read_conv,
    "Dense": _read_dense,
    "Flatten": _read_flatten,
    "GlobalAveragePooling1D": _read_average,
    "GlobalAveragePooling2D": _read_average,
    "MaxPooling1D": _read_max_pool,
    "MaxPooling2D": _read_max_pool,
    "ReLU": _read_relu,
    "Rescaling": _read_rescaling,
    "Softmax": _read_softmax,
}
