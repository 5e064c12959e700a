"""Sensors over MQTT: a watch that sends real recordings at 50 Hz, and a weather station that announces itself."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from flchain_edge.mqtt.inbox import Inbox, LinkUp
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings
from tools.emulators.pacing import pace
from tools.emulators.recordings import iter_steps
from tools.network.datasets import WATCH_RATE_HZ

DAY_S = 86_400.0
WEATHER = {
    "temperature": ("°C", "temperature", 18.0, 6.0),
    "humidity": ("%", "humidity", 60.0, -15.0),
    "pressure": ("hPa", "atmospheric_pressure", 1013.0, 3.0),
}
"""By name: unit, Home Assistant's device class, mean, and amplitude over a day."""


@dataclass(frozen=True)
class Target:
    """The broker, and the prefix of the topics."""

    host: str
    port: int
    prefix: str


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[MqttLink]:
    inbox = Inbox()
    link = MqttLink(MqttSettings(host=target.host, port=target.port), inbox.put)
    await link.start()
    try:
        while not isinstance(await inbox.get(), LinkUp):
            pass
        yield link
    finally:
        await link.stop()


async def run_watch(
    target: Target, subject: int, *, seconds: float, speed: float, seed: int, recording_s: float
) -> int:
    """Publish PREFIX/imu: {"t": s, "acc": [g], "gyr": [rad/s]}, and PREFIX/label: the exercise, retained, when it
    changes.

    Returns how many readings were sent.
    """
    steps = iter_steps(subject, seed, recording_s=recording_s)
    label, sent = "", 0
    async with _connected(target) as link:
        async for number in pace(WATCH_RATE_HZ * speed, seconds):
            step = next(steps)
            if step.label != label and link.publish(f"{target.prefix}/label", step.label.encode(), retain=True):
                label = step.label
            values = [round(float(value), 5) for value in step.values]
            reading = {"t": number / WATCH_RATE_HZ, "acc": values[:3], "gyr": values[3:]}
            sent += link.publish(f"{target.prefix}/imu", json.dumps(reading).encode(), qos=0)
        link.publish(f"{target.prefix}/label", b"", retain=True)
    return sent


async def run_weather(target: Target, *, seconds: float, rate_hz: float, seed: int, discovery: str) -> int:
    """Publish PREFIX/state: {"temperature": ..., ...}, announced under the prefix `discovery` as Home Assistant
    expects it.

    Returns how many readings were sent.
    """
    rng = np.random.default_rng(seed)
    node = target.prefix.replace("/", "_")
    sent = 0
    async with _connected(target) as link:
        for name, (unit, device_class, _, _) in WEATHER.items():
            config = {
                "name": name,
                "state_topic": f"{target.prefix}/state",
                "value_template": f"{{{{ value_json.{name} }}}}",
                "unit_of_measurement": unit,
                "device_class": device_class,
                "unique_id": f"{node}_{name}",
            }
            link.publish(f"{discovery}/sensor/{node}/{name}/config", json.dumps(config).encode(), retain=True)
        async for number in pace(rate_hz, seconds):
            phase = 2 * math.pi * (number / rate_hz) / DAY_S
            reading = {
                name: round(mean + amplitude * math.sin(phase) + 0.1 * float(rng.standard_normal()), 2)
                for name, (_, _, mean, amplitude) in WEATHER.items()
            }
            sent += link.publish(f"{target.prefix}/state", json.dumps(reading).encode())
    return sent
