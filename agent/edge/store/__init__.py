"""The agent's SQLite store: outbox, model, secrets of the open round, and the status file."""
