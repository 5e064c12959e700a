"""Certificates from the operator's registrar.

`actions` adds `enroll` and `renew` to a program, `renewal` renews while a node runs, `enrol` does both jobs,
`messages` is what node and registrar send each other. `client` and `commands` are parts of these.
"""
