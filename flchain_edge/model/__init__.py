"""TFLite models: the runtime behind one seam, and the files they come in."""
