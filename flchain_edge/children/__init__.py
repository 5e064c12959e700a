"""Child processes: what they answered, how they ended, and what their libraries write."""
