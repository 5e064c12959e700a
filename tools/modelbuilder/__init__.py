"""From a Keras model to a .tflite file that trains on the device with builtin operators only.

TensorFlow is imported by `build`, `ops`, `trainable` and `reference` alone, never by a device: all else reads
the finished file through `flchain_edge.model.tflite`.
"""
