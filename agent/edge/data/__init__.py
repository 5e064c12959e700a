"""The device's data set: recordings, the ring of samples from sensors, and what is in it."""
