"""The checks that both doctors run."""
