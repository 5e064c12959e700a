"""Convert a Keras model to a trainable .tflite file. Needs TensorFlow; nothing else in FLchain does."""

from __future__ import annotations

import tempfile
from typing import Any

from flchain.base.errors import ConfigError
from flchain_edge.model.tflite import RUNTIME_NAME, probe_model, read_runtime_version
from tools.modelbuilder.keras_models import require_tensorflow
from tools.modelbuilder.reference import measure_errors

ERROR_MAX = 1e-4  # 32-bit sums in another order differ by 1e-6; a fault seen differed by 4e-2


def verify_built(model: Any, content: bytes) -> None:
    """Hold a built file against its Keras model on the runtime installed here.

    The converter and the runtimes have known faults that change results in silence (see `ops`), and the loss falls with
    a wrong gradient too. Raises ConfigError if probabilities or gradients are not TensorFlow's.
    """
    probe_model(content)
    by_probability, by_gradient = measure_errors(model, content)
    if not max(by_probability, by_gradient) <= ERROR_MAX:
        raise ConfigError(
            (
                f"the built model is not the Keras model on {RUNTIME_NAME} {read_runtime_version()}: probabilities "
                f"differ by {by_probability:.2g}, gradients by {by_gradient:.2g} of their size (at most {ERROR_MAX:g})",
            )
        )


def build_tflite(model: Any) -> bytes:
    """The .tflite file of a Keras model; see `flchain_edge.model.tflite` for its signatures.

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
