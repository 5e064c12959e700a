"""The checks that both doctors run.

`checkup` runs checks and prints findings; the others are checks: of the broker, the clock, keys and certificates, and
the machine.
"""
