"""Sensors that publish by MQTT: JSON on given topics, or as Home Assistant's discovery announces. We only listen."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from agent.edge.sensors.source import (
    ChannelSettings,
    Samples,
    SensorKind,
    SourceContext,
    check_channels,
)
from agent.sensing.home_assistant import Entity, get_channel, get_discovery_filters, parse_config
from agent.sensing.json_values import follow, parse_path, read_json, to_number
from agent.sensing.samples import CHANNELS_MAX, InvalidReading, Sample
from agent.sensing.timestamps import SenderClock
from flchain.base.errors import ConfigError
from flchain_edge.mqtt.inbox import Inbox, LinkDown, LinkEvent, Received
from flchain_edge.mqtt.link import MqttLink
from flchain_edge.mqtt.settings import MqttSettings, build_tls_context
from flchain_edge.newer_python import timeout

INBOX_MESSAGES_MAX, INBOX_BYTES_MAX = 2048, 4 * 1024 * 1024
BATCH_MAX = 256
ASK_AGAIN_S = 5.0
"""The broker is asked for its retained sensors this often until one is found: a message that arrives while we
subscribe can be missed (seen with NATS, which stores it a moment after delivering it)."""
WHOLE = "."
"""Path for a payload that is a number or a text, not JSON."""


@dataclass(frozen=True)
class MqttSensorSettings:
    """A section [sensors.mqtt]."""

    topics: tuple[str, ...] = field(
        default=(),
        metadata={"max": 64, "help": "filters to subscribe to; + and # as in MQTT", "example": ["watch/imu"]},
    )
    channels: tuple[ChannelSettings, ...] = field(
        default=(), metadata={"help": 'which values of the JSON; a payload that is only a number or a text: path "."'}
    )
    time_path: str = field(
        default="",
        metadata={"help": "path of the sender's own time, Unix or any other seconds; empty: time of arrival"},
    )
    discovery: str = field(
        default="",
        metadata={
            "max": 64,
            "pattern": "[^+#]*",
            "form": "a topic without + and #",
            "help": "prefix of Home Assistant's discovery, homeassistant; empty: off",
        },
    )
    include: tuple[str, ...] = field(
        default=("*",),
        metadata={"max": 64, "help": "discovery: only channels that match one of these; * and ? as for file names"},
    )
    broker: MqttSettings = field(default_factory=MqttSettings)


class Messages:
    """Turn messages into samples: of configured channels, and of entities as they are discovered."""

    def __init__(self, settings: MqttSensorSettings, context: SourceContext) -> None:
        self._settings = settings
        self._context = context
        self._channels = [
            (channel, None if channel.path == WHOLE else parse_path(channel.path or channel.name))
            for channel in settings.channels
        ]
        self._time_path = parse_path(settings.time_path) if settings.time_path else None
        self._sender = SenderClock()
        self._entities: dict[str, Entity] = {}
        self._last_us = 0

    @property
    def has_entities(self) -> bool:
        """True if any sensor was discovered."""
        return bool(self._entities)

    def process(self, event: Received) -> tuple[Sample | None, str | None, str | None]:
        """Return a sample if the message holds one, and topics to subscribe to and to unsubscribe from.

        A retained reading gives none: its time is unknown. A retained label does: it still holds. Raises
                InvalidReading for what cannot be read.
        """
        prefix = self._settings.discovery
        if prefix and (channel := get_channel(event.topic, prefix)) is not None:
            return (None, *self._discover(channel, event.payload))
        document, fault = _try_json(event.payload)
        text = event.payload.decode(errors="replace").strip('" \n')
        values, units = self._read_entities(event.topic, document, text)
        for settings, path in self._channels if not values else ():
            number = to_number(text if path is None else follow(document, path), settings.texts)
            if number is not None and not (event.retained and not settings.texts):
                values[settings.name], units[settings.name] = number, settings.unit
        if values:
            return Sample(self._date(document), self._context.name, values, units), None, None
        if event.retained:
            return None, None, None
        raise InvalidReading(f"{event.topic[:60]}: {fault or 'holds none of the channels'}: {text[:40]!r}")

    def _discover(self, channel: str, payload: bytes) -> tuple[str | None, str | None]:
        if not payload:  # an empty retained message removes a sensor
            return None, self._leave(self._entities.pop(channel, None))
        if not any(fnmatch.fnmatchcase(channel, pattern) for pattern in self._settings.include):
            return None, None
        entity = parse_config(channel, read_json(payload))
        before = self._entities.get(channel)
        if before is None and len(self._entities) >= CHANNELS_MAX:
            raise InvalidReading(f"more than {CHANNELS_MAX} sensors were announced: narrow them by `include`")
        self._entities[channel] = entity
        return entity.state_topic, self._leave(before)

    def _leave(self, entity: Entity | None) -> str | None:
        """Return its topic, if no other sensor and no configured filter needs it."""
        if entity is None or any(other.state_topic == entity.state_topic for other in self._entities.values()):
            return None
        return None if entity.state_topic in self._settings.topics else entity.state_topic

    def _read_entities(self, topic: str, document: Any, text: str) -> tuple[dict[str, float], dict[str, str]]:
        values, units = {}, {}
        for entity in self._entities.values():
            if entity.state_topic == topic:
                number = to_number(text if entity.path is None else follow(document, entity.path))
                if number is not None:
                    values[entity.channel], units[entity.channel] = number, entity.unit
        return values, units

    def _date(self, document: Any) -> int:
        """Return the instant: the sender's if it gives one; always later than the one before."""
        now_us = self._context.clock.read_us()
        if self._time_path is not None and (said := to_number(follow(document, self._time_path))) is not None:
            now_us = self._sender.date(said, now_us)
        self._last_us = max(self._last_us + 1, now_us)
        return self._last_us


def _try_json(payload: bytes) -> tuple[Any, str]:
    """Return the document, or None and the reason: a plain number or text is not a fault of the sender."""
    try:
        return read_json(payload), ""
    except InvalidReading as fault:
        return None, str(fault)


async def read_mqtt(settings: MqttSensorSettings, context: SourceContext) -> AsyncGenerator[Samples, None]:
    """Yield samples as messages arrive; the link reconnects by itself. Raises ConfigError for unusable TLS files."""
    inbox = Inbox(INBOX_MESSAGES_MAX, INBOX_BYTES_MAX)
    link = MqttLink(settings.broker, inbox.put)
    discovery = get_discovery_filters(settings.discovery) if settings.discovery else ()
    link.subscribe(*settings.topics, *discovery)
    messages = Messages(settings, context)
    dropped, loop = 0, asyncio.get_running_loop()
    ask_again_s = loop.time() + ASK_AGAIN_S
    context.last_fault = f"no connection to the broker {settings.broker.host}:{settings.broker.port} yet"
    await link.start()
    try:
        while True:
            batch = []
            if discovery and loop.time() >= ask_again_s:
                ask_again_s = float("inf") if messages.has_entities else loop.time() + ASK_AGAIN_S
                link.subscribe(*discovery)
            try:
                async with timeout(ASK_AGAIN_S):
                    event: LinkEvent | None = await inbox.get()
            except TimeoutError:
                continue
            while event is not None:
                if isinstance(event, Received):
                    sample = _take(link, messages, event, context)
                    batch += [sample] if sample is not None else []
                else:
                    context.last_fault = (
                        f"cut off from the broker: {event.reason}" if isinstance(event, LinkDown) else ""
                    )
                event = inbox.get_nowait() if len(batch) < BATCH_MAX else None
            if link.counters.dropped > dropped:
                context.drop("messages came faster than they were read", link.counters.dropped - dropped)
                dropped = link.counters.dropped
            yield batch
    finally:
        await link.stop()


def _take(link: MqttLink, messages: Messages, event: Received, context: SourceContext) -> Sample | None:
    try:
        sample, wanted, unwanted = messages.process(event)
    except InvalidReading as fault:
        context.drop(str(fault))
        return None
    if wanted is not None:
        link.subscribe(wanted)
    if unwanted is not None:
        link.unsubscribe(unwanted)
    return sample


def check_mqtt(settings: MqttSensorSettings) -> list[str]:
    channels = tuple(channel for channel in settings.channels if channel.path != WHOLE)
    problems = check_channels(settings.channels, paths=False) + [
        p for p in check_channels(channels, paths=True) if "path" in p
    ]
    if not settings.topics and not settings.discovery:
        problems.append("topics: give at least one, or discovery")
    if settings.topics and not settings.channels:
        problems.append("channels: topics need at least one")
    for topic in settings.topics:
        levels = topic.split("/")
        if not topic or "#" in levels[:-1] or any(len(level) > 1 and set(level) & set("+#") for level in levels):
            problems.append(f"topics: {topic!r} is not a topic filter")
    try:
        parse_path(settings.time_path)
    except ValueError as error:
        problems.append(f"time_path: {error}")
    try:
        build_tls_context(settings.broker)
    except ConfigError as error:
        problems += [problem.replace("[mqtt]", "broker:") for problem in error.problems]
    return problems


def get_mqtt_channels(settings: MqttSensorSettings) -> tuple[str, ...] | None:
    return None if settings.discovery else tuple(channel.name for channel in settings.channels)


MQTT = SensorKind("mqtt", "JSON by MQTT, Home Assistant's discovery", read_mqtt, check_mqtt, get_mqtt_channels)
