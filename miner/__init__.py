"""The edge server: ingest updates, score them, agree on blocks."""
