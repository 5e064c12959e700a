"""The ledger on disk: blocks, certificates, and this miner's own votes."""
