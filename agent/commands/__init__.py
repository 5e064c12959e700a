"""What the agent's command line does besides `run`: doctor, status, resync and the like."""
