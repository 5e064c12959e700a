"""Convert a Keras model to a trainable .tflite file. Needs TensorFlow."""

from __future__ import annotations

import tempfile
from typing import Any

from flchain.base.errors import ConfigError
from flchain_edge.model.tflite import RUNTIME_NAME, probe_model, read_runtime_version
from tools.modelbuilder.keras_models import require_tensorflow
from tools.modelbuilder.reference import measure_errors

ERROR_MAX = 1e-4  # 32-bit sums in another order differ by 1e-6; a fault that was seen differed by 4e-2


def verify_built(model: Any, content: bytes) -> None:
    """Compare a built file with its Keras model on the runtime installed here.

    The converter and the runtimes have known faults that silently change results (see `ops`), and the loss falls even
    with a wrong gradient. Raises ConfigError if probabilities or gradients differ from TensorFlow's.
    """
    probe_model(content)
    by_probability, by_gradient = measure_errors(model, content)
    if not max(by_probability, by_gradient) <= ERROR_MAX:
        raise ConfigError(
            (
                f"on {RUNTIME_NAME} {read_runtime_version()} the built model differs from the Keras model: "
                f"probabilities by {by_probability:.2g}, gradients by {by_gradient:.2g} of their size (at most "
                f"{ERROR_MAX:g})",
            )
        )


def build_tflite(model: Any) -> bytes:
    """Return the .tflite file of a Keras model; see `flchain_edge.model.tflite` for its signatures.

    Raises ConfigError with every unsupported layer, or with the converter's message.
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
