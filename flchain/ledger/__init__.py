"""What the chain knows: parameters, genesis, state, its tree, snapshots, blocks and certificates."""
