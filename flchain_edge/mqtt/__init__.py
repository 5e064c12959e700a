"""The link to the broker.

`seam` is what a node needs of it, with a fake; `link` keeps up the real one. `inbox` has the events that a link hands
over and a queue for them, `settings` its section of the configuration, `tls_errors` the words for a failed handshake.
The others are parts of `link`: one connection, the choice among brokers, long packets in chunks, the measured rate.
"""
