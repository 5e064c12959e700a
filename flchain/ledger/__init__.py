"""What the chain knows: parameters, genesis, state, its tree, snapshots and certificates."""
