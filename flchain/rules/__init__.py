"""What a block does to the state."""
