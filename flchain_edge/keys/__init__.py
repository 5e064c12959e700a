"""Keys on disk: signing keys, TLS keys, and files that only their owner may read."""
