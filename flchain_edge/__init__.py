"""Input and output that agent and miner share. Each folder's docstring says which of its modules others use.

Import contract: `agent | miner > flchain_edge > flchain`. Nothing here decides a rule of the protocol.
"""
