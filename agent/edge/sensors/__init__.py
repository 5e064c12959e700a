"""Sources of samples, by name.

A new kind is a module with its settings, a check and an iterator of samples, told as its SensorKind, and a row of
SensorSettings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from agent.edge.sensors.gpsd import GPSD, GpsdSettings
from agent.edge.sensors.iio import IIO, IioSettings
from agent.edge.sensors.mavlink import MAVLINK, MavlinkSettings
from agent.edge.sensors.mqtt import MQTT, MqttSensorSettings
from agent.edge.sensors.replay import REPLAY, ReplaySettings
from agent.edge.sensors.serial_lines import SERIAL, SerialSettings
from agent.edge.sensors.source import SensorKind
from agent.sensing.samples import NAME_FORM, NAME_PATTERN

SENSORS: dict[str, SensorKind] = {}
"""The kinds by name, in order of the rows of SensorSettings, from which they are filled in below."""


@dataclass(frozen=True)
class SensorSettings:
    """One entry of [[sensors]]: its name, its kind, and the section of that kind."""

    name: str = field(
        metadata={
            "pattern": NAME_PATTERN,
            "form": NAME_FORM,
            "help": "any name; its channels are NAME.CHANNEL",
            "example": "imu",
        }
    )
    kind: str = field(
        metadata={"choices": SENSORS, "help": "kind of source; its section has the same name", "example": "iio"}
    )
    iio: IioSettings | None = field(default=None, metadata=IIO.row)
    mqtt: MqttSensorSettings | None = field(default=None, metadata=MQTT.row)
    serial: SerialSettings | None = field(default=None, metadata=SERIAL.row)
    gpsd: GpsdSettings | None = field(default=None, metadata=GPSD.row)
    mavlink: MavlinkSettings | None = field(default=None, metadata=MAVLINK.row)
    replay: ReplaySettings | None = field(default=None, metadata=REPLAY.row)

    def __post_init__(self) -> None:
        given = [
            entry.name for entry in fields(self) if entry.name in SENSORS and getattr(self, entry.name) is not None
        ]
        if given != [self.kind]:
            has = ", ".join(given) or "none"
            raise ValueError(f'kind: "{self.kind}" needs a section [sensors.{self.kind}] and no other, has {has}')

    def get_section(self) -> Any:
        """Return the settings of its kind."""
        return getattr(self, self.kind)


SENSORS.update((entry.name, entry.metadata["sensor"]) for entry in fields(SensorSettings) if "sensor" in entry.metadata)
