"""The commands of `flchain-miner` besides `run`: doctor, logs, export, import, prune, resync."""
