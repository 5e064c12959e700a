"""A chain of layers as a TensorFlow module with the signatures that `flchain_edge.model.tflite` calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tools.modelbuilder.ops import Op, Tensor

MOMENTUM = 0.9


class Trainable:
    """Keeps all parameters in one float32 variable of shape (P,), in the order of the Keras model's trainable weights.

    The loss is the mean cross-entropy over the batch. A step is velocity = MOMENTUM * velocity + gradient, then
    parameters -= learning_rate * velocity. `init` and `restore` reset the velocity to zero.
    """

    def __init__(
        self, ops: Sequence[Op], input_shape: tuple[int, ...], classes: int, start: NDArray[np.float32]
    ) -> None:
        self.ops = tuple(ops)
        self.input_shape = input_shape
        self.classes = classes
        self.start = start
        self.sizes = [math.prod(shape) for op in self.ops for shape in op.parameter_shapes]
        assert start.shape == (sum(self.sizes),), "the caller flattens the same parameters"
        self.module = tf.Module()
        self.module.parameters = tf.Variable(start, name="parameters")
        self.module.velocity = tf.Variable(np.zeros_like(start), name="velocity")

    def build_signatures(self) -> dict[str, Any]:
        """Return the concrete functions by signature name."""
        x = tf.TensorSpec((None, *self.input_shape), tf.float32, name="x")
        y = tf.TensorSpec((None,), tf.int32, name="y")
        rate = tf.TensorSpec((), tf.float32, name="learning_rate")
        weights = tf.TensorSpec(self.start.shape, tf.float32, name="weights")
        traced = {
            "train": tf.function(self._train, input_signature=(x, y, rate)),
            "grad": tf.function(self._grad, input_signature=(x, y)),
            "infer": tf.function(self._infer, input_signature=(x,)),
            "evaluate": tf.function(self._evaluate, input_signature=(x, y)),
            "init": tf.function(self._init, input_signature=()),
            "save": tf.function(self._save, input_signature=()),
            "restore": tf.function(self._restore, input_signature=(weights,)),
        }
        self.module.traced = traced  # keeps the functions alive and saved with their variables
        return {name: function.get_concrete_function() for name, function in traced.items()}

    def _train(self, x: Tensor, y: Tensor, learning_rate: Tensor) -> dict[str, Tensor]:
        parameters = self.module.parameters.read_value()
        loss, grad = self._compute_gradient(parameters, x, y)
        velocity = self.module.velocity.read_value() * MOMENTUM + grad
        self.module.velocity.assign(velocity)
        self.module.parameters.assign(parameters - learning_rate * velocity)
        return {"loss": loss}

    def _grad(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"gradient": self._compute_gradient(self.module.parameters.read_value(), x, y)[1]}

    def _infer(self, x: Tensor) -> dict[str, Tensor]:
        logits, _ = self._forward(self._split(self.module.parameters.read_value()), x)
        return {"probabilities": tf.nn.softmax(logits)}

    def _evaluate(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        logits, _ = self._forward(self._split(self.module.parameters.read_value()), x)
        is_right = tf.equal(tf.argmax(logits, 1, output_type=tf.int32), y)
        losses, _ = self._compute_losses(logits, y)
        return {"correct": tf.reduce_sum(tf.cast(is_right, tf.int32)), "loss_sum": tf.reduce_sum(losses)}

    def _init(self) -> dict[str, Tensor]:
        self.module.parameters.assign(tf.constant(self.start))
        self.module.velocity.assign(tf.zeros_like(self.module.velocity))
        return {"parameters_count": tf.constant(self.start.size, tf.int32)}

    def _save(self) -> dict[str, Tensor]:
        return {"weights": self.module.parameters.read_value()}

    def _restore(self, weights: Tensor) -> dict[str, Tensor]:
        self.module.parameters.assign(weights)
        self.module.velocity.assign(weights * 0.0)
        return {"parameters_count": tf.constant(self.start.size, tf.int32)}

    def _split(self, flat: Tensor) -> list[list[Tensor]]:
        """Return the flat vector as the parameters of each layer."""
        pieces = iter(tf.split(flat, self.sizes))
        return [[tf.reshape(next(pieces), shape) for shape in op.parameter_shapes] for op in self.ops]

    def _forward(self, parameters: list[list[Tensor]], x: Tensor) -> tuple[Tensor, list[Any]]:
        saved = []
        for op, own in zip(self.ops, parameters, strict=True):
            x, kept = op.forward(x, own)
            saved.append(kept)
        return x, saved

    def _compute_losses(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of each row (batch,) and its gradient by the logits (batch, classes)."""
        shifted = logits - tf.reduce_max(logits, 1, keepdims=True)
        powers = tf.exp(shifted)
        total = tf.reduce_sum(powers, 1, keepdims=True)
        wanted = tf.one_hot(y, self.classes, dtype=tf.float32)
        losses = tf.math.log(tf.squeeze(total, 1)) - tf.reduce_sum(shifted * wanted, 1)
        return losses, powers / total - wanted

    def _compute_gradient(self, flat: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss () and its gradient by the flat vector (P,)."""
        parameters = self._split(flat)
        logits, saved = self._forward(parameters, x)
        losses, grad = self._compute_losses(logits, y)
        grad = grad / tf.cast(tf.shape(y)[0], tf.float32)
        first_learning = min(i for i, op in enumerate(self.ops) if op.parameter_shapes)
        collected: list[Tensor] = []
        for i in reversed(range(first_learning, len(self.ops))):
            step = self.ops[i].backward(grad, saved[i], parameters[i], needs_input=i > first_learning)
            collected = [tf.reshape(g, (-1,)) for g in step.by_parameters] + collected
            grad = step.by_input
        return tf.reduce_mean(losses), tf.concat(collected, 0)
