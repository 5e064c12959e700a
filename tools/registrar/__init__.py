"""`flchain registrar`: the operator's small authority. It enrols boards and miners, revokes them, and sets brokers up.

`authority` signs, `register` remembers, `enroller` decides, `server` listens, `broker_files` renders.
"""
