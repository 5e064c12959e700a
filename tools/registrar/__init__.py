"""`flchain registrar`: the operator's small authority, which enrols and revokes boards and miners and sets up brokers.

`authority` signs, `register` remembers, `enroller` decides, `server` listens, `broker_files` writes what a broker
needs, `topic_files` the rules in it.
"""
