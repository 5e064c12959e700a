"""Debian packages of agent, miner and tools, each with a Python environment of its own from locked wheels."""
