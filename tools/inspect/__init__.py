"""Looking at a chain: audit, blocks, stake, and orders by hand."""
