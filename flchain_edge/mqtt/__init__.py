"""The link to the broker: session, fail-over, uploads in chunks, measured rate."""
