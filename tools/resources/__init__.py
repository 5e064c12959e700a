"""Simulated boards for the scheduler's comparisons: traces, power, and CPU."""
