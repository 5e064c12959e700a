"""Industrial I/O, MQTT and recordings against the real thing, or an emulator; `test_sensor_links` has the others."""

from __future__ import annotations

import asyncio
import functools
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.edge.sensors import SENSORS, SensorSettings
from agent.edge.sensors.gpsd import GpsdSettings
from agent.edge.sensors.iio import IioSettings
from agent.edge.sensors.mqtt import Messages, MqttSensorSettings
from agent.edge.sensors.replay import ReplaySettings, load_recording
from agent.edge.sensors.source import ChannelSettings, Clock, SourceContext, SourceFailed
from flchain_edge.mqtt.inbox import Received
from flchain_edge.mqtt.settings import MqttSettings
from tests.support.sensor_source import DEADLINE_S, get_values, take
from tools.emulators.iio_tree import BufferNode, encode_record, read_layout, write_tree
from tools.emulators.mqtt_sensors import Target, run_watch, run_weather
from tools.network.broker import Broker, start_broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker("nats", tmp_path_factory.mktemp("broker")) as running:
        yield running


def test_each_kind_has_its_section() -> None:
    """A kind of SENSORS is also a key of [[sensors]]; an entry with the section of another kind is refused."""
    assert set(SENSORS) <= set(SensorSettings.__dataclass_fields__)
    SensorSettings("x", "gpsd", gpsd=GpsdSettings())
    for wrong in ({}, {"iio": IioSettings("a")}, {"gpsd": GpsdSettings(), "iio": IioSettings("a")}):
        with pytest.raises(ValueError, match="needs a section"):
            SensorSettings("x", "gpsd", **wrong)


# ------------------------------------------------------------------------------------------------ iio


def test_iio_polls_real_layouts_in_si_units(tmp_path: Path) -> None:
    """MPU6050, BME280 and ADXL345 as their drivers show them: raw, offset and scale, or processed values."""
    write_tree(tmp_path)

    def poll(device: str, *channels: str) -> dict[str, float]:
        settings = IioSettings(device, rate_hz=1000.0, channels=channels, root=tmp_path)
        return dict(asyncio.run(take("iio", settings, 1))[0].values)

    assert poll("bme280") == pytest.approx({"humidityrelative": 41.532, "pressure": 95312.617187, "temp": 23.87})
    adxl = poll("adxl345")
    assert adxl == pytest.approx({"accel_x": -3 * 0.0383, "accel_y": 12 * 0.0383, "accel_z": 254 * 0.0383})
    mpu = poll("iio:device0", "temp", "accel_z")
    assert mpu == pytest.approx({"temp": (-2400 + 12420) * 2.941176 / 1000, "accel_z": 0.0})


def test_iio_says_what_is_there_instead(tmp_path: Path) -> None:
    """A missing chip, a missing channel, a driver without a buffer: each names what there is."""
    write_tree(tmp_path)
    for settings, text in (
        (IioSettings("lis3dh", root=tmp_path), r"no IIO device 'lis3dh'.*there: mpu6050"),
        (IioSettings("bme280", root=tmp_path / "none"), "there: none"),
        (IioSettings("bme280", channels=("gas",), root=tmp_path), "no channel gas; it has: humidityrelative"),
        (IioSettings("bme280", mode="buffer", root=tmp_path), "no buffer"),
        (IioSettings("mpu6050", mode="buffer", channels=("temp",), root=tmp_path), "has no temp; it has: accel_x"),
    ):
        with pytest.raises(SourceFailed, match=text):
            asyncio.run(take("iio", settings, 1))


@pytest.mark.parametrize(("device", "channels"), [("mpu6050", ("accel_z", "anglvel_x")), ("adxl345", ())])
def test_iio_buffers_are_set_up_and_decoded(tmp_path: Path, device: str, channels: tuple[str, ...]) -> None:
    """The agent enables the channels it wants; records come back as they were measured, at their own times."""
    folder = write_tree(tmp_path / "devices", (device,))[device]
    node = BufferNode.make(tmp_path / folder.name)
    clock = Clock()
    settings = IioSettings(device, "buffer", 100.0, channels, "", 128, tmp_path / "devices", tmp_path)
    began_us = clock.read_us()

    async def measure() -> None:
        while (folder / "buffer/enable").read_text() != "1":
            await asyncio.sleep(0.002)
        layout = read_layout(folder)
        assert layout is not None
        for n in range(20):
            raw = {name: n - 10 for name in ("accel_x", "accel_y", "accel_z", "anglvel_x")}
            raw["timestamp"] = (began_us + n * 10) * 1000
            node.write(encode_record(layout, raw))
        await asyncio.sleep(DEADLINE_S)

    samples = asyncio.run(take("iio", settings, 20, when_running=measure))
    scale = {"mpu6050": 0.000598, "adxl345": 0.0383}[device]
    assert get_values(samples, "accel_z") == pytest.approx([(n - 10) * scale for n in range(20)])
    assert samples[0].values.keys() == (set(channels) or {"accel_x", "accel_y", "accel_z"})
    assert samples[0].units["accel_z"] == "m/s2"
    steps = np.diff([sample.time_us for sample in samples])
    assert (steps > 0).all()
    if device == "mpu6050":  # its driver stamps the records
        assert (folder / "current_timestamp_clock").read_text() == "boottime"
        assert steps.tolist() == [10] * 19
    assert (folder / "buffer/length").read_text() == "128"
    assert (folder / "buffer/enable").read_text() == "0", "it is switched off again"
    node.close()


# ----------------------------------------------------------------------------------------------- mqtt


def test_mqtt_topics_with_json(broker: Broker) -> None:
    """The emulated watch: six channels by path into its arrays, in order of time, labels by name."""
    address = MqttSettings(host=broker.host, port=broker.port)
    names = ("acc[0]", "acc[1]", "acc[2]", "gyr[0]", "gyr[1]", "gyr[2]")
    imu = MqttSensorSettings(
        ("w1/imu",), tuple(ChannelSettings(f"c{n}", path, "g") for n, path in enumerate(names)), "t", broker=address
    )
    label = MqttSensorSettings(
        ("w1/label",), (ChannelSettings("label", ".", texts=("none", "ER", "IR")),), broker=address
    )
    target = Target(broker.host, broker.port, "w1")

    async def scenario() -> None:
        watch = functools.partial(run_watch, target, 0, seconds=0, speed=1.0, seed=1, recording_s=0.2)
        samples, labels = await asyncio.gather(take("mqtt", imu, 40, when_running=watch), take("mqtt", label, 1))
        assert samples[0].values.keys() == {f"c{n}" for n in range(6)}
        assert (np.diff([sample.time_us for sample in samples]) > 0).all()
        assert len(labels[0].values) == 1

    asyncio.run(scenario())


def test_mqtt_discovery(broker: Broker) -> None:
    """A weather station that announces itself is read without a word of configuration, with its units."""
    address = MqttSettings(host=broker.host, port=broker.port)
    settings = MqttSensorSettings(discovery="ha", include=("attic_*",), broker=address)
    target = Target(broker.host, broker.port, "attic")
    station = functools.partial(run_weather, target, seconds=0, rate_hz=20.0, seed=1, discovery="ha")
    samples = asyncio.run(take("mqtt", settings, 5, until=lambda s: len(s.values) == 3, when_running=station))
    last = samples[-1]
    assert last.values.keys() == {"attic_temperature", "attic_humidity", "attic_pressure"}
    assert last.units["attic_temperature"] == "°C"
    assert 900 < last.values["attic_pressure"] < 1100


def test_a_retained_reading_is_no_measurement_but_a_label_is() -> None:
    """What the broker kept from yesterday is not of this instant; what somebody said yesterday still holds."""
    channels = (ChannelSettings("t"), ChannelSettings("label", "label", texts=("a", "b")))
    messages = Messages(MqttSensorSettings(("x",), channels), SourceContext("s"))
    sample, _, _ = messages.process(Received("x", b'{"t": 5, "label": "b"}', True))
    assert sample is not None
    assert sample.values == {"label": 1.0}
    assert messages.process(Received("x", b'{"t": 5}', True))[0] is None
    live, _, _ = messages.process(Received("x", b'{"t": 5}', False))
    assert live is not None
    assert live.values == {"t": 5.0}


def test_a_sensor_that_is_taken_away_is_unsubscribed() -> None:
    """An empty discovery message ends it; a topic that another sensor shares stays."""
    messages = Messages(MqttSensorSettings(discovery="ha"), SourceContext("s"))

    def announce(name: str, payload: bytes) -> tuple[str | None, str | None]:
        return messages.process(Received(f"ha/sensor/{name}/config", payload, True))[1:]

    assert announce("a", b'{"stat_t": "x", "val_tpl": "{{ value_json.a }}"}') == ("x", None)
    assert announce("b", b'{"stat_t": "x", "val_tpl": "{{ value_json.b }}"}') == ("x", None)
    assert announce("a", b"") == (None, None)
    assert announce("b", b'{"stat_t": "y"}') == ("y", "x")


# --------------------------------------------------------------------------------------------- replay


def test_replay_of_csv_and_npz(tmp_path: Path) -> None:
    """Columns with units and times, missing values, and arrays: the recording comes out as it went in."""
    csv = tmp_path / "r.csv"
    csv.write_text("time;acc_x [g];label\n10.0;0.5;1\n10.25;;0\n10.5;0.75;0\n")
    samples = asyncio.run(take("replay", ReplaySettings(csv, speed=1000.0), 3))
    assert get_values(samples, "acc_x") == pytest.approx([0.5, float("nan"), 0.75], nan_ok=True)
    assert np.diff([sample.time_us for sample in samples]).tolist() == [250_000, 250_000]
    assert samples[0].units == {"acc_x": "g", "label": ""}
    np.savez(tmp_path / "r.npz", values=np.arange(6.0).reshape(3, 2), channels=["a", "b"], units=["m", ""])
    looped = ReplaySettings(tmp_path / "r.npz", rate_hz=10.0, speed=1000.0, loop=True)
    samples = asyncio.run(take("replay", looped, 7))
    assert get_values(samples, "a")[:7] == [0.0, 2.0, 4.0, 0.0, 2.0, 4.0, 0.0]
    assert np.diff([sample.time_us for sample in samples]).tolist()[:6] == [100_000] * 6
    assert samples[0].units["a"] == "m"


def test_replay_of_parquet(tmp_path: Path) -> None:
    """The same from Parquet, where pyarrow is installed."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"time": [0.0, 0.5], "a [m]": [1.0, 2.0]}), tmp_path / "r.parquet")
    samples = asyncio.run(take("replay", ReplaySettings(tmp_path / "r.parquet", speed=1000.0), 2))
    assert (get_values(samples, "a"), samples[0].units) == ([1.0, 2.0], {"a": "m"})


def test_replay_goes_on_behind_what_it_gave_before(tmp_path: Path) -> None:
    """After a restart of the agent the recording plays again, later; no two runs lie on each other."""
    csv = tmp_path / "r.csv"
    csv.write_text("a\n1\n2\n")
    context = SourceContext("r", resume_us=Clock().read_us() + 10**12)
    samples = asyncio.run(take("replay", ReplaySettings(csv, speed=100.0), 2, context=context))
    assert samples[0].time_us == context.resume_us + 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"", "rows"),
        ("a.csv", b"time,a\n1,2\n0,3\n", "backwards"),
        ("a.csv", b"a,a\n1,2\n", "one name"),
        ("a.csv", b"a,b\n1\n", "line 2: 1 columns"),
        ("a.csv", b"time\n1\n", "0 channels"),
        ("a.npz", b"PK\x03\x04nonsense", "a.npz"),
        ("a.npz", b"text", "a.npz"),
        ("a.txt", b"", "not one of .csv, .npz, .parquet"),
        ("none.csv", None, "No such file"),
    ],
)
def test_a_recording_that_cannot_be_played_says_why(
    tmp_path: Path, name: str, content: bytes | None, text: str
) -> None:
    """Broken and foreign files are a failure of the source with the file's name."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceFailed, match=text):
        load_recording(ReplaySettings(path))


def test_each_kind_of_sensor_is_one_row() -> None:
    """A kind's module says all about it: its name is that of its section, and its settings are that section's."""
    assert list(SENSORS) == ["iio", "mqtt", "serial", "gpsd", "mavlink", "replay"]
    hints = typing.get_type_hints(SensorSettings)
    for name, kind in SENSORS.items():
        assert kind.name == name and kind.help
        (settings,) = (one for one in typing.get_args(hints[name]) if one is not type(None))
        for function in (kind.read, kind.check, kind.get_channels):
            assert settings in typing.get_type_hints(function).values(), function
