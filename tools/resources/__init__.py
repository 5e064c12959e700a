"""Simulated boards for comparisons of schedulers: traces, power, and CPU."""
