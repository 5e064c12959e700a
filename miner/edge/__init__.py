"""The miner's I/O: ledger, scorer, and the long packets that it has sent."""
