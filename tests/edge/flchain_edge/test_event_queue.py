"""The one queue of a node: its own events and those of its link, as the machines know them."""

from __future__ import annotations

import asyncio
from typing import get_args

from flchain.machines.events import Connected, PacketReceived
from flchain_edge.mqtt.inbox import LinkDown, LinkEvent, LinkUp, Received
from flchain_edge.process.event_loop import EventQueue


def test_link_events_come_out_as_the_machines_know_them() -> None:
    """A message and a new connection come in order; a link that went down is nothing that a machine acts on."""

    async def scene() -> list[object]:
        queue: EventQueue[str] = EventQueue()
        for event in (
            LinkDown("cut"),
            LinkUp(),
            Received("a/b", b"x", True),
            LinkDown("cut"),
            Received("a/c", b"y", False),
        ):
            queue.on_link_event(event)
        return [await queue.get() for _ in range(3)]

    assert asyncio.run(scene()) == [Connected(), PacketReceived("a/b", b"x"), PacketReceived("a/c", b"y")]


def test_no_own_event_is_dropped_and_it_goes_before_the_links() -> None:
    """Whatever a node posts comes out, of any type, before a burst of messages."""

    async def scene() -> list[object]:
        queue: EventQueue[object] = EventQueue()
        queue.on_link_event(Received("a", b"1", False))
        for event in ("timer", 7, ("result",)):
            queue.post(event)
        return [await queue.get() for _ in range(4)]

    assert asyncio.run(scene()) == ["timer", 7, ("result",), PacketReceived("a", b"1")]


def test_waiting_goes_on_after_a_link_that_went_down() -> None:
    """It wakes nobody: the owner still waits, and gets what comes next."""

    async def scene() -> tuple[bool, object]:
        queue: EventQueue[str] = EventQueue()
        waiting = asyncio.create_task(queue.get())
        while not queue.is_awaited:
            await asyncio.sleep(0)
        queue.on_link_event(LinkDown("cut"))
        for _ in range(5):
            await asyncio.sleep(0)
        is_waiting = not waiting.done()
        queue.post("next")
        return is_waiting, await waiting

    assert asyncio.run(scene()) == (True, "next")


def test_every_link_event_is_known_here() -> None:
    """A new kind of link event has to be given a meaning in the queue, and a line in this file."""
    assert set(get_args(LinkEvent)) == {Received, LinkUp, LinkDown}
