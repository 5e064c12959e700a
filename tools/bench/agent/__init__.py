"""`flchain bench agent`: shares of the CPU, memory in a round, CPU when idle."""
