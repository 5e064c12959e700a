"""Input and output that agent and miner share: model runtime, broker, database, keys, configuration files.

Import contract: `agent | miner > flchain_edge > flchain`. Nothing here decides a rule of the protocol.
"""
