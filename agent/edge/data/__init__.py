"""The device's data set: the ring of samples from sensors, and the examples made of it."""
