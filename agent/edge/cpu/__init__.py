"""Shares of the CPU: control groups, duty cycles, and the probe that says which of them work here."""
