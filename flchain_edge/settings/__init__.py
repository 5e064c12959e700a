"""Configuration: `config` reads a TOML file into dataclasses, `node` has the settings that agent and miner share."""
