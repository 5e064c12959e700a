"""The device's input and output: workers, CPU shares, data, store, sensors, power."""
