"""What a node tells systemd, over a real datagram socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flchain_edge.mqtt.inbox import LinkDown, LinkUp
from flchain_edge.process.event_loop import EventQueue
from flchain_edge.process.sd_notify import STATUS_BYTES_MAX, Notifier, ServiceReport


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.settimeout(10)
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000", "WATCHDOG_PID": str(os.getpid())}

    def receive(self) -> list[str]:
        return self.sock.recv(4096).decode().split("\n")

    def receive_until(self, line: str) -> list[str]:
        """All lines up to the datagram that holds this one."""
        lines = self.receive()
        while line not in lines:
            lines += self.receive()
        return lines


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@flchain-test-{tmp_path}"[:100])
    yield made
    made.sock.close()


def test_ready_status_watchdog_stopping(manager: Manager) -> None:
    """READY once with the first connection, the status when it changes, the watchdog in time, and the end."""
    queue: EventQueue[str] = EventQueue()

    async def scenario() -> None:
        notifier = Notifier(manager.environ)
        assert notifier.watchdog_s == 0.4
        report = ServiceReport(notifier, queue)
        relay = report.relay(queue.on_link_event)
        owner = asyncio.create_task(drain())
        async with report.reporting(lambda: "round 1\nREADY=1"):
            first = await asyncio.to_thread(manager.receive)
            assert first == ["STATUS=no broker; round 1 READY=1", "EXTEND_TIMEOUT_USEC=60000000"]
            relay(LinkUp())
            lines = await asyncio.to_thread(manager.receive_until, "STATUS=round 1 READY=1")
            assert lines.count("READY=1") == 1 and "WATCHDOG=1" not in lines[: lines.index("READY=1")]
            lines = await asyncio.to_thread(manager.receive_until, "WATCHDOG=1")
            lines += await asyncio.to_thread(manager.receive_until, "WATCHDOG=1")
            assert not [line for line in lines if line.startswith("STATUS")], "said once"
            relay(LinkDown("x"))
            await asyncio.to_thread(manager.receive_until, "STATUS=no broker; round 1 READY=1")
            relay(LinkUp())
        owner.cancel()
        lines = await asyncio.to_thread(manager.receive_until, "STATUS=stopping")
        assert "READY=1" not in lines and lines[-2:] == ["STOPPING=1", "STATUS=stopping"]

    async def drain() -> None:
        while True:
            await queue.get()

    asyncio.run(scenario())


def test_a_node_that_hangs_is_not_fed() -> None:
    """While the owner waits, or takes events, it gets on; while it hangs in one event, it does not."""

    async def scenario() -> None:
        queue: EventQueue[str] = EventQueue()
        report = ServiceReport(Notifier({}), queue)
        hang = asyncio.Event()

        async def owner() -> None:
            while True:
                if await queue.get() == "hang":
                    await hang.wait()

        task = asyncio.create_task(owner())
        await asyncio.sleep(0)
        assert report.is_getting_on() and report.is_getting_on(), "it waits for events"
        queue.post("hang")
        for _ in range(3):
            await asyncio.sleep(0)
        assert report.is_getting_on(), "one event taken"
        assert not report.is_getting_on() and not report.is_getting_on(), "and not come back"
        queue.post("more")
        await asyncio.sleep(0)
        assert not report.is_getting_on(), "that events come is not progress"
        hang.set()
        for _ in range(3):
            await asyncio.sleep(0)
        assert report.is_getting_on()
        task.cancel()

    asyncio.run(scenario())


def test_no_manager_and_another_process_watchdog(tmp_path: Path) -> None:
    """Without a manager, or with one that is gone, nothing is sent and nothing raised; children inherit nothing."""
    assert not Notifier({}).send("READY=1")
    environ = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    notifier = Notifier(environ)
    assert environ == {} and notifier.watchdog_s == 0.0
    assert notifier.is_heard and not notifier.send("READY=1")


def test_a_long_status_is_cut(manager: Manager) -> None:
    """A status of any length and any characters is one line of at most STATUS_BYTES_MAX bytes."""
    report = ServiceReport(Notifier(manager.environ), EventQueue())

    async def scenario() -> None:
        async with report.reporting(lambda: "ü\n" * 5000):
            line = (await asyncio.to_thread(manager.receive))[0]
            assert len(line.encode()) <= len("STATUS=") + STATUS_BYTES_MAX

    asyncio.run(scenario())


def test_ready_is_said_until_it_is_heard(tmp_path: Path) -> None:
    """A manager that is too busy to take READY=1 (the kernel holds ten datagrams at a boot) hears it at the next tick.

    One that never heard it would end the start by its time-out and restart a node in good order.
    """
    manager = Manager(str(tmp_path / "notify"))
    notifier = Notifier(manager.environ)
    report = ServiceReport(notifier, EventQueue())
    relay = report.relay(lambda event: True)
    while notifier.send("X=1"):
        pass  # full
    relay(LinkUp())
    relay(LinkDown("x"))
    manager.sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while manager.receive() == ["X=1"]:
            pass
    report.tell()
    assert manager.receive()[0] == "READY=1"
    report.tell()
    with pytest.raises(BlockingIOError):
        while "READY=1" not in manager.receive():
            pass
    manager.sock.close()
