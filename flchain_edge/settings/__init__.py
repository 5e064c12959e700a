"""TOML settings: reading, checking, and the example file."""
