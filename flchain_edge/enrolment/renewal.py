"""Renew a running node's certificate before it ends, once the time is known and not only assumed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from flchain.base.crypto import Identity
from flchain.base.errors import FlchainError
from flchain.base.types import UnixMillis
from flchain_edge.keys.tls_key import Validity, read_validity
from flchain_edge.process.aside import call_aside
from flchain_edge.settings.node import NodeSettings

log = logging.getLogger(__name__)

FIRST_CHECK_S = 60.0
CHECK_S = 3_600.0
"""Also the time between two attempts: a registrar that is down for a week is asked 168 times."""
RENEW_FRACTION = 3
"""With less than a third of its life left a certificate is renewed."""


def is_due(validity: Validity, time_ms: UnixMillis) -> bool:
    """Return whether it is time for a new certificate."""
    life_s = validity.not_after_s - validity.not_before_s
    return validity.not_after_s - time_ms // 1_000 < life_s // RENEW_FRACTION


class RenewalKeeper:
    """Checks the certificate once an hour. `get_time_ms` returns None while this node does not know what time it is.

    The new certificate is for the same key and takes the old one's place in one step; the next connection uses it.
    """

    def __init__(
        self, settings: NodeSettings, identity: Identity, get_time_ms: Callable[[], UnixMillis | None]
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._get_time_ms = get_time_ms

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Keep checking while the block runs."""
        task = asyncio.create_task(self._run(), name="renewal")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        if self._settings.enrolment.endpoint is None or self._settings.mqtt.tls_certificate is None:
            return
        await asyncio.sleep(FIRST_CHECK_S)
        while True:
            await self.check()
            await asyncio.sleep(CHECK_S)

    async def check(self) -> bool:
        """Renew if it is due, and return whether it was done. Raise nothing: the old one is as good as it was."""
        time_ms, path = self._get_time_ms(), self._settings.mqtt.tls_certificate
        registrar = self._settings.enrolment.endpoint
        if time_ms is None or path is None or registrar is None:
            return False
        from flchain_edge.enrolment.enrol import format_time, renew  # what a running agent needs once a month

        try:
            if not is_due(read_validity(path.read_text()), time_ms):
                return False
            enrolment = self._settings.enrolment
            fingerprint = bytes.fromhex(enrolment.fingerprint)
            known = self._settings.mqtt, registrar, fingerprint, self._identity, enrolment.operators
            ends_s = await call_aside(lambda: renew(*known), "renewal")
        except (FlchainError, OSError, ValueError) as error:
            log.warning("the certificate could not be renewed", extra={"cause": str(error)})
            return False
        log.info("certificate renewed", extra={"until": format_time(ends_s)})
        return True
