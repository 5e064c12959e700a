"""Benchmarks. Each is `flchain bench NAME [--quick] [--json] [--out DIR]`."""
