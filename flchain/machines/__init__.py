"""What the machines of agent and miner have in common: the events that both take, and the effects that both ask for."""
