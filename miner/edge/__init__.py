"""The miner's I/O: ledger and scorer."""
