"""The ledger on disk: blocks, certificates, and this node's own votes."""
