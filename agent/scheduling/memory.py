"""How much memory training takes by the size of its model, and so which models fit a board. Pure.

The figures are of `flchain bench agent --model FILE` with perceptrons of 0.1, 1.0 and 3.0 million parameters: 78, 179
and 402 MB for agent and worker together, each shared page counted once. docs/boards.md has the table.
"""

from __future__ import annotations

from flchain.wire.fields import UPDATE_BYTES_MAX

BASE_BYTES = 80_000_000
"""Interpreter, runtime, data and a small model, in agent and worker together."""
PARAMETER_BYTES = 115
"""More for each parameter: the model as file, tensors, gradients, vectors in both processes, and what is on its way."""
WORKER_PARAMETER_BYTES = 90
"""Of that in the worker, which `[cpu] memory_max_mb` limits."""
SYSTEM_BYTES = 200_000_000
"""Left to the operating system and all other programs."""
MODEL_PARAMETERS_MAX = UPDATE_BYTES_MAX // 4
"""More do not fit into the protocol's messages, four bytes each."""


def compute_memory_need(parameters: int) -> int:
    """Return the bytes that an agent that trains a model of so many parameters takes, its worker included."""
    return BASE_BYTES + PARAMETER_BYTES * parameters


def compute_worker_need(parameters: int) -> int:
    """Return the bytes of data that the training worker needs."""
    return WORKER_PARAMETER_BYTES * parameters


def compute_parameters_max(memory_bytes: int) -> int:
    """Return the largest model that a board with so much memory trains; 0 if none."""
    room = memory_bytes - SYSTEM_BYTES - BASE_BYTES
    return max(0, min(MODEL_PARAMETERS_MAX, room // PARAMETER_BYTES))
