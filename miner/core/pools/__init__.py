"""What a miner keeps until a block carries it: messages of rounds, orders, and the votes of a height."""
