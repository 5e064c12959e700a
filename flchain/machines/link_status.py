"""The state of a node's link to its brokers, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkStatus:
    """As of now. No peer ever sees it, so it is not a struct of the wire."""

    broker: str
    """host:port of the broker in use, or of the one that is tried."""
    brokers: tuple[str, ...]
    """All configured brokers, the preferred one first."""
    is_connected: bool
    for_s: float
    """Seconds since it was connected, or since it was lost."""
    trouble: str
    """Why there is no connection; empty while there is one, and before the first attempt has failed."""
    connections: int
    """Since the process started."""
    bytes_sent: int
    bytes_received: int
