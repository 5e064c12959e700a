"""What touches the world outside and is shared by agent and miner: model runtime, broker, database, keys, config files.

Import contract: `agent | miner > flchain_edge > flchain`. Nothing here decides a rule of the protocol.
"""
