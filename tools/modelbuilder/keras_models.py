"""The Keras model that a .tflite file is built from. Needs TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flchain.base.errors import ConfigError
from tools.modelbuilder.zoo import ARCHITECTURES

SEED_DEFAULT = 0


def load_keras(source: str, seed: int = SEED_DEFAULT) -> Any:
    """Return a built-in architecture with random weights by `seed`, or the model in a .keras file.

    Raises ConfigError if TensorFlow is missing, or if there is no such name or model file.
    """
    require_tensorflow()
    import keras

    if source in ARCHITECTURES:
        keras.utils.set_random_seed(seed)
        return ARCHITECTURES[source]()
    path = Path(source)
    if not path.is_file():
        raise ConfigError((f"--keras {source}: neither a file nor one of {', '.join(ARCHITECTURES)}",))
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, OSError, TypeError) as error:
        raise ConfigError((f"--keras {source}: Keras cannot read it: {error}",)) from error


def require_tensorflow() -> None:
    """Raise ConfigError that says what to install, if TensorFlow is missing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notes are no use to an operator
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ConfigError((f'building a model needs TensorFlow: pip install "flchain[model]" ({error})',)) from error
