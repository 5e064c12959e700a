"""A UAV's telemetry: MAVLink 1 and 2 over UDP, as autopilots and their routers send it. We only listen.

A thread reads the socket: otherwise a burst would be lost while the loop is busy with a block of the chain (of 800
datagrams in a row, 256 were kept without a reader).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.edge.sensors.source import Samples, SensorKind, SourceContext, SourceFailed
from agent.sensing.mavlink_fields import FIELDS, read_fields
from agent.sensing.samples import Sample

DATAGRAMS_MAX = 4096
"""Datagrams that may wait for the loop; when full, a new one is dropped and counted."""
DATAGRAM_BYTES_MAX = 65536
RECEIVE_BUFFER_BYTES = 1 << 20
POLL_S = 0.5


@dataclass(frozen=True)
class MavlinkSettings:
    """A section [sensors.mavlink]."""

    host: str = field(
        default="127.0.0.1", metadata={"min": 1, "max": 253, "help": "address to listen on; 0.0.0.0: all"}
    )
    port: int = field(default=14550, metadata={"min": 0, "max": 65535, "help": "UDP port that the autopilot sends to"})
    system: int = field(default=0, metadata={"min": 0, "max": 255, "help": "id of the vehicle; 0: any"})
    messages: tuple[str, ...] = field(
        default=tuple(FIELDS), metadata={"choices": tuple(FIELDS), "min": 1, "help": "which messages become samples"}
    )


class Receiver:
    """A UDP socket that is drained by a thread of its own into a bounded queue."""

    def __init__(self, host: str, port: int, read_us: Callable[[], int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_us = read_us
        self._waiting: list[tuple[int, bytes]] = []
        self._lost = 0
        self._lock = threading.Lock()
        self._filled = asyncio.Event()
        self._stop = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.bind((host, port))
            self._socket.settimeout(POLL_S)
        except OSError as error:
            self._socket.close()
            raise SourceFailed(f"UDP {host}:{port}: {error.strerror or error}") from error
        threading.Thread(target=self._drain, name="mavlink", daemon=True).start()

    def _drain(self) -> None:
        while not self._stop.is_set():
            try:
                data = self._socket.recv(DATAGRAM_BYTES_MAX)
            except TimeoutError:
                continue
            except OSError:
                break
            with self._lock:
                if len(self._waiting) < DATAGRAMS_MAX:
                    self._waiting.append((self._read_us(), data))
                else:
                    self._lost += 1
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._filled.set)
        self._socket.close()

    async def get(self) -> tuple[list[tuple[int, bytes]], int]:
        """Return all waiting datagrams with their instants, and how many were dropped since the last call."""
        await self._filled.wait()
        self._filled.clear()
        with self._lock:
            taken, self._waiting = self._waiting, []
            lost, self._lost = self._lost, 0
        return taken, lost

    def stop(self) -> None:
        """Ask the thread to close the socket, which it does within POLL_S."""
        self._stop.set()


def _build_decoder() -> Any:
    from pymavlink.dialects.v20 import common  # the extra "uav"

    decoder = common.MAVLink(None)
    decoder.robust_parsing = True  # broken bytes come out as BAD_DATA and end nothing
    return decoder


async def read_mavlink(settings: MavlinkSettings, context: SourceContext) -> AsyncGenerator[Samples, None]:
    """Yield samples of each message in `messages`. Raises SourceFailed if the port cannot be opened."""
    decoder = await asyncio.to_thread(_build_decoder)
    receiver = Receiver(settings.host, settings.port, context.clock.read_us)
    try:
        while True:
            datagrams, lost = await receiver.get()
            if lost:
                context.drop("datagrams came faster than they were read", lost)
            yield [
                sample
                for time_us, data in datagrams
                for sample in decode_datagram(decoder, data, time_us, settings, context)
            ]
    finally:
        receiver.stop()


def decode_datagram(
    decoder: Any, data: bytes, time_us: int, settings: MavlinkSettings, context: SourceContext
) -> list[Sample]:
    """Return samples of the messages in one datagram; count broken bytes."""
    try:
        messages = decoder.parse_buffer(data) or []
    except Exception as error:  # a stranger's bytes may break the parser in any way
        context.drop(f"{type(error).__name__}: {error}")
        return []
    samples = []
    for place, message in enumerate(messages):
        kind = message.get_type()
        if kind == "BAD_DATA":
            context.drop("bytes that are not a MAVLink message")
            continue
        if kind not in settings.messages or settings.system not in (0, message.get_srcSystem()):
            continue
        values, units = read_fields(kind, partial(_get_field, message))
        if values:
            samples.append(Sample(time_us + place, context.name, values, units))
    return samples


def _get_field(message: Any, name: str) -> Any:
    return getattr(message, name, None)


def check_mavlink(settings: MavlinkSettings) -> list[str]:
    if importlib.util.find_spec("pymavlink") is None:
        return ["pymavlink is not installed: pip install 'flchain[uav]'"]
    return []


def get_mavlink_channels(settings: MavlinkSettings) -> tuple[str, ...]:
    return tuple({field.channel for kind in settings.messages for field in FIELDS[kind].values()})


MAVLINK = SensorKind(
    "mavlink", "a UAV's telemetry; needs flchain[uav]", read_mavlink, check_mavlink, get_mavlink_channels
)
