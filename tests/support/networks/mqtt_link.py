"""Waiting for an MQTT link in tests: for a condition, for an event, for its subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from flchain_edge.mqtt.inbox import Inbox, LinkEvent
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings
from flchain_edge.newer_python import timeout
from tools.network.broker import Broker

DEADLINE_S = 30.0
Event = TypeVar("Event", bound=LinkEvent)
LinkT = TypeVar("LinkT", bound=MqttLink)


def settings_for(broker: Broker, client_id: str = "") -> MqttSettings:
    return MqttSettings(host=broker.host, port=broker.port, client_id=client_id)


class InboxLink(MqttLink):
    """A link whose events wait in an inbox until a test reads them."""

    def __init__(self, settings: MqttSettings, inbox: Inbox | None = None, **options: Any) -> None:
        self.events = Inbox() if inbox is None else inbox
        super().__init__(settings, self.events.put, **options)


async def until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; fail when it does not in DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


async def wait_for(link: InboxLink, kind: type[Event]) -> Event:
    """The next event of `kind`; others before it are passed over."""
    async with timeout(DEADLINE_S):
        while not isinstance(event := await link.events.get(), kind):
            pass
        return event


@contextlib.asynccontextmanager
async def started(link: LinkT, *filters: str) -> AsyncIterator[LinkT]:
    """A link that is connected and whose subscriptions the broker has acknowledged."""
    link.subscribe(*filters)
    await link.start()
    try:
        await until(lambda: link.is_subscribed)
        yield link
    finally:
        await link.stop()
