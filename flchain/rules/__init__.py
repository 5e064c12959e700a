"""The rules: what a block does to the state."""
