"""paho's client without a system call for each byte of a packet's head.

Nothing else of paho is touched, and without this override it works as well, only slower.
"""

from __future__ import annotations

import paho.mqtt.client as paho

READ_BYTES = 16_384
"""Asked of the socket at once; a TLS record is no longer. A long packet is asked for as far as it is still to come."""


class BufferedClient(paho.Client):
    """paho's client, which takes what the socket has and gives paho as many bytes of it as it asks for."""

    _unread = b""
    _offset = 0

    @property
    def has_unread(self) -> bool:
        """True if bytes wait here for which the socket does not become readable again."""
        return self._offset < len(self._unread)

    def _sock_recv(self, bufsize: int) -> bytes:
        """Return at least one byte and at most `bufsize`; none at the end. Raise BlockingIOError if none is there."""
        if self._offset >= len(self._unread):
            self._unread, self._offset = b"", 0  # the call below may raise
            self._unread = super()._sock_recv(max(bufsize, READ_BYTES))
        start = self._offset
        self._offset = min(start + bufsize, len(self._unread))
        return self._unread[start : self._offset]
