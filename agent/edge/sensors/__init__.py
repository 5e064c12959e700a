"""Sources of samples, by name. A new kind is a section of settings, a check, and an iterator of samples."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from agent.edge.sensors.gpsd import GpsdSettings, check_gpsd, get_gpsd_channels, read_gpsd
from agent.edge.sensors.iio import IioSettings, check_iio, get_iio_channels, read_iio
from agent.edge.sensors.mavlink import MavlinkSettings, check_mavlink, get_mavlink_channels, read_mavlink
from agent.edge.sensors.mqtt import MqttSensorSettings, check_mqtt, get_mqtt_channels, read_mqtt
from agent.edge.sensors.replay import ReplaySettings, check_replay, get_replay_channels, read_replay
from agent.edge.sensors.serial_lines import SerialSettings, check_serial, get_serial_channels, read_serial
from agent.edge.sensors.source import SensorKind
from agent.sensing.samples import NAME_FORM, NAME_PATTERN

SENSORS: dict[str, SensorKind] = {
    "iio": SensorKind(read_iio, check_iio, get_iio_channels),
    "mqtt": SensorKind(read_mqtt, check_mqtt, get_mqtt_channels),
    "serial": SensorKind(read_serial, check_serial, get_serial_channels),
    "gpsd": SensorKind(read_gpsd, check_gpsd, get_gpsd_channels),
    "mavlink": SensorKind(read_mavlink, check_mavlink, get_mavlink_channels),
    "replay": SensorKind(read_replay, check_replay, get_replay_channels),
}


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
        metadata={"choices": tuple(SENSORS), "help": "kind of source; its section has the same name", "example": "iio"}
    )
    iio: IioSettings | None = field(default=None, metadata={"help": "Linux Industrial I/O"})
    mqtt: MqttSensorSettings | None = field(default=None, metadata={"help": "JSON by MQTT, Home Assistant's discovery"})
    serial: SerialSettings | None = field(default=None, metadata={"help": "lines from a serial port"})
    gpsd: GpsdSettings | None = field(default=None, metadata={"help": "position and speed from gpsd"})
    mavlink: MavlinkSettings | None = field(default=None, metadata={"help": "a UAV's telemetry; needs flchain[uav]"})
    replay: ReplaySettings | None = field(default=None, metadata={"help": "a recording, as if it were live"})

    def __post_init__(self) -> None:
        given = [
            entry.name for entry in fields(self) if entry.name in SENSORS and getattr(self, entry.name) is not None
        ]
        if given != [self.kind]:
            raise ValueError(f'kind: "{self.kind}" needs a section [sensors.{self.kind}] and no other, has {given}')

    def get_section(self) -> Any:
        """Return the settings of its kind."""
        return getattr(self, self.kind)
