"""What the miner's command line does besides `run`: doctor, export, import, prune, resync."""
