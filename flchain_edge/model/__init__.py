"""Models and examples.

`tflite` runs a trainable model on either TFLite runtime; `model_files` reads models and examples, and scores.
"""
