"""The link to the broker: session, fail-over, transfers in chunks, measured rate."""
