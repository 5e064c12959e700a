"""The miner as a pure machine: events in, the next state and effects out."""
