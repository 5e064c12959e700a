"""The device's I/O: trainer and store."""
