"""The device: train on data that never leaves, publish updates, compute the global model itself."""
