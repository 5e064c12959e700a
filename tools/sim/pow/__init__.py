"""Proof of work under the same simulator, for the comparisons the literature makes."""
