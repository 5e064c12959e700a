"""Benchmarks: `flchain bench NAME [--quick] [--json] [--out DIR]`."""
