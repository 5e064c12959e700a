"""Models and examples.

`tflite` runs a trainable model on either TFLite runtime, of which `seam` says what it needs; `model_files` reads models
and examples, and scores.
"""
