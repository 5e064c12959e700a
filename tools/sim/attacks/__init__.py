"""Validators and devices that break the rules."""
