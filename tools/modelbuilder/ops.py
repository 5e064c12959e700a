"""The layers of a chain with explicit gradients, in operators that are built into TensorFlow Lite.

TensorFlow's own gradients of ReLU, pooling and convolution convert only to Flex operators, which small runtimes do not
have; so each layer here has its own forward and backward pass. Images are (batch, height, width, channels); a series
is an image of height 1. Every `backward` takes the gradient of the loss by the layer's output and returns the gradient
by its input and those by its parameters, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

Tensor = Any
Shape = tuple[int, ...]


class Op(Protocol):
    """One step of the chain. `saved` is what `forward` keeps for its own `backward`."""

    @property
    def parameter_shapes(self) -> tuple[Shape, ...]: ...

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]: ...

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients: ...


@dataclass(frozen=True)
class Gradients:
    """The gradients by the input (None if no earlier layer learns) and by each parameter."""

    by_input: Tensor | None
    by_parameters: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Reshape:
    """Reshapes all but the batch: Flatten, and the height of 1 for a series."""

    shape_in: Shape
    shape_out: Shape
    parameter_shapes: tuple[Shape, ...] = ()

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
        return tf.reshape(x, (-1, *self.shape_out)), None

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients:
        return Gradients(tf.reshape(grad, (-1, *self.shape_in)))


@dataclass(frozen=True)
class Rescale:
    """y = x * scale + offset with constants per channel, never learned: the model takes raw sensor units."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    parameter_shapes: tuple[Shape, ...] = ()

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
        return x * tf.constant(self.scale, tf.float32) + tf.constant(self.offset, tf.float32), None

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients:
        return Gradients(grad * tf.constant(self.scale, tf.float32))


@dataclass(frozen=True)
class Relu:
    """max(x, 0), with its gradient by a mask; 0 at 0, as in TensorFlow.

    `is_masked` is for an input that is a bare matrix product: the converter of TensorFlow 2.21 fuses a ReLU into
    BATCH_MATMUL, which cannot hold one, and so silently drops it. It leaves a product with the mask alone.
    """

    is_masked: bool = False
    parameter_shapes: tuple[Shape, ...] = ()

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
        y = x * tf.cast(x > 0.0, tf.float32) if self.is_masked else tf.nn.relu(x)
        return y, y

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients:
        return Gradients(grad * tf.cast(saved > 0.0, tf.float32))


@dataclass(frozen=True)
class Dense:
    """y = x W + b on (batch, inputs)."""

    inputs: int
    outputs: int
    has_bias: bool

    @property
    def parameter_shapes(self) -> tuple[Shape, ...]:
        return ((self.inputs, self.outputs), (self.outputs,))[: 1 + self.has_bias]

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
        y = tf.matmul(x, parameters[0])
        return (y + parameters[1] if self.has_bias else y), x

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients:
        by_input = tf.matmul(grad, parameters[0], transpose_b=True) if needs_input else None
        by_weights = tf.matmul(saved, grad, transpose_a=True)
        return Gradients(by_input, (by_weights, tf.reduce_sum(grad, 0))[: 1 + self.has_bias])


@dataclass(frozen=True)
class Conv:
    """Convolution with stride 1 over (batch, height, width, channels); `padding` is top, bottom, left, right."""

    kernel: tuple[int, int]
    channels: int
    filters: int
    shape_in: tuple[int, int]
    padding: tuple[int, int, int, int]
    has_bias: bool

    @property
    def parameter_shapes(self) -> tuple[Shape, ...]:
        return ((*self.kernel, self.channels, self.filters), (self.filters,))[: 1 + self.has_bias]

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
        top, bottom, left, right = self.padding
        if any(self.padding):
            x = tf.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        y = tf.nn.conv2d(x, parameters[0], 1, "VALID")
        return (y + parameters[1] if self.has_bias else y), x

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients:
        by_filter = self._by_filter(grad, saved)
        by_bias = (tf.reduce_sum(grad, (0, 1, 2)),) if self.has_bias else ()
        return Gradients(self._by_input(grad, saved, parameters[0]) if needs_input else None, (by_filter, *by_bias))

    def _by_filter(self, grad: Tensor, padded: Tensor) -> Tensor:
        # One product of all shifted inputs by the output's gradient. Channels first, so that a shift copies whole
        # rows: as fast as a convolution over transposed tensors, which does not convert with an open batch size.
        rows, columns = (int(size) for size in grad.shape[1:3])
        first = tf.transpose(padded, (3, 0, 1, 2))
        shifts = [(i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1])]
        shifted = tf.concat([first[:, :, i : i + rows, j : j + columns] for i, j in shifts], 0)
        by_filter = tf.matmul(
            tf.reshape(shifted, (len(shifts) * self.channels, -1)), tf.reshape(grad, (-1, self.filters))
        )
        return tf.reshape(by_filter, self.parameter_shapes[0])

    def _by_input(self, grad: Tensor, padded: Tensor, weights: Tensor) -> Tensor:
        by_padded = tf.nn.conv2d_transpose(grad, weights, tf.shape(padded), 1, "VALID")
        if not any(self.padding):
            return by_padded
        height, width = self.shape_in
        return tf.slice(by_padded, (0, self.padding[0], self.padding[2], 0), (-1, height, width, self.channels))


@dataclass(frozen=True)
class MaxPool:
    """Maximum over blocks that do not overlap; rows and columns that fill no block are dropped.

    First along the width, then along the height, each by a reshape to at most 4 dimensions (6 abort tflite-runtime
    2.14), a split and pairwise maxima. Of equal values the first in row-major order takes the gradient, as in Keras.
    """

    pool: tuple[int, int]
    shape_in: Shape
    parameter_shapes: tuple[Shape, ...] = ()

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
        height, width, channels = self.shape_in
        rows, columns = height // self.pool[0], width // self.pool[1]
        if (rows * self.pool[0], columns * self.pool[1]) != (height, width):
            x = tf.slice(x, (0, 0, 0, 0), (-1, rows * self.pool[0], columns * self.pool[1], channels))
        wide = tf.reshape(x, (-1, rows * self.pool[0], columns, self.pool[1] * channels))
        y, masks_wide = _maximum_of_parts(wide, self.pool[1], 3)
        high = tf.reshape(y, (-1, rows, self.pool[0], columns * channels))
        y, masks_high = _maximum_of_parts(high, self.pool[0], 2)
        return tf.reshape(y, (-1, rows, columns, channels)), (masks_wide, masks_high)

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients:
        height, width, channels = self.shape_in
        rows, columns = height // self.pool[0], width // self.pool[1]
        masks_wide, masks_high = saved
        grad = _gradient_of_parts(tf.reshape(grad, (-1, rows, 1, columns * channels)), masks_high, 2)
        grad = tf.reshape(grad, (-1, rows * self.pool[0], columns, channels))
        grad = _gradient_of_parts(grad, masks_wide, 3)
        grad = tf.reshape(grad, (-1, rows * self.pool[0], columns * self.pool[1], channels))
        rest = (height - rows * self.pool[0], width - columns * self.pool[1])
        if any(rest):
            grad = tf.pad(grad, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))
        return Gradients(grad)


def _maximum_of_parts(x: Tensor, parts: int, axis: int) -> tuple[Tensor, list[Tensor]]:
    """Return the maximum over equal parts of an axis, and a mask for each part after the first: 1.0 where it won."""
    first, *others = tf.split(x, parts, axis)
    masks = []
    for other in others:
        masks.append(tf.cast(other > first, tf.float32))
        first = tf.maximum(first, other)
    return first, masks


def _gradient_of_parts(grad: Tensor, masks: list[Tensor], axis: int) -> Tensor:
    """Undo `_maximum_of_parts`: from the last part to the first, each takes the gradient where it won."""
    by_part = []
    for mask in reversed(masks):
        taken = grad * mask
        by_part.append(taken)
        grad = grad - taken
    by_part.append(grad)
    return tf.concat(by_part[::-1], axis) if masks else grad


@dataclass(frozen=True)
class Average:
    """Mean over height and width: (batch, height, width, channels) -> (batch, channels)."""

    shape_in: Shape
    parameter_shapes: tuple[Shape, ...] = ()

    def forward(self, x: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
        return tf.reduce_mean(x, (1, 2)), None

    def backward(self, grad: Tensor, saved: Any, parameters: Sequence[Tensor], needs_input: bool) -> Gradients:
        height, width, channels = self.shape_in
        share = tf.constant(1.0 / (height * width), tf.float32, (1, height, width, 1))
        return Gradients(tf.reshape(grad, (-1, 1, 1, channels)) * share)
