"""The FLchain protocol: pure rules that agent, miner, simulator and tests all run."""
