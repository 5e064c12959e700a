"""Convert a Keras model to a trainable .tflite file. Needs TensorFlow; nothing else in FLchain does."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from flchain.errors import ConfigError
from flchain_edge.tflite import RUNTIME_NAME, probe_model, read_runtime_version
from tools.modelbuilder.zoo import ARCHITECTURES

SEED_DEFAULT = 0
ERROR_MAX = 1e-4  # 32-bit sums in another order differ by 1e-6; a fault seen differed by 4e-2


def load_keras(source: str, seed: int = SEED_DEFAULT) -> Any:
    """A built-in architecture with weights drawn from `seed`, or the model in a .keras file with its own weights.

    Raises ConfigError if TensorFlow is missing, or the name or file is not one.
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


def verify_built(model: Any, content: bytes) -> None:
    """Hold a built file against its Keras model on the runtime installed here.

    The converter and the runtimes have known faults that change results in silence (see `ops`), and the loss falls with
    a wrong gradient too. Raises ConfigError if probabilities or gradients are not TensorFlow's.
    """
    from tools.modelbuilder.reference import measure_errors

    probe_model(content)
    by_probability, by_gradient = measure_errors(model, content)
    if not max(by_probability, by_gradient) <= ERROR_MAX:
        raise ConfigError(
            (
                f"the built model is not the Keras model on {RUNTIME_NAME} {read_runtime_version()}: probabilities "
                f"differ by {by_probability:.2g}, gradients by {by_gradient:.2g} of their size (at most {ERROR_MAX:g})",
            )
        )


def require_tensorflow() -> None:
    """Raises ConfigError that says what to install."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notes say nothing to an operator
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ConfigError((f'building a model needs TensorFlow: pip install "flchain[model]" ({error})',)) from error


def build_tflite(model: Any) -> bytes:
    """The .tflite file of a Keras model; see `flchain_edge.tflite` for its signatures.

    Raises ConfigError with every unsupported layer, or what the converter says.
    """
    require_tensorflow()
    import tensorflow as tf

    from tools.modelbuilder.chain import read_chain
    from tools.modelbuilder.trainable import Trainable

    chain = read_chain(model)
    trainable = Trainable(chain.ops, chain.input_shape, chain.classes, chain.start)
    signatures = trainable.build_signatures()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(trainable.module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = True
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter has no error class of its own
            raise ConfigError((f"the TensorFlow Lite converter refuses the model: {error}",)) from error
