"""`flchain model`: convert a Keras model to a .tflite file that a device trains with builtin operators only.

Only `build`, `ops`, `trainable` and `reference` import TensorFlow, and no device does: everything else reads the
finished file through `flchain_edge.model.tflite`.
"""
