"""Simulated networks under proof of work, for the comparisons that the literature makes."""
