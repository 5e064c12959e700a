"""Each kind of source against the real thing, or an emulator that speaks as it does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.edge.sensors import SENSORS, SensorSettings
from agent.edge.sensors.gpsd import GpsdSettings
from agent.edge.sensors.iio import IioSettings
from agent.edge.sensors.mavlink import MavlinkSettings
from agent.edge.sensors.mqtt import Messages, MqttSensorSettings
from agent.edge.sensors.replay import ReplaySettings, load_recording
from agent.edge.sensors.serial_lines import SerialSettings
from agent.edge.sensors.source import ChannelSettings, Clock, SourceContext, SourceFailed
from flchain_edge.inbox import Received
from flchain_edge.mqtt_settings import MqttSettings
from tests.support.mqtt_link import until
from tests.support.sensor_source import DEADLINE_S, get_values, take
from tools.broker import Broker, find_free_port, start_broker
from tools.emulators.flight import HOME, compute_flight
from tools.emulators.iio_tree import BufferNode, encode_record, read_layout, write_tree
from tools.emulators.mqtt_sensors import Target, run_watch, run_weather
from tools.emulators.receiver import format_sentences, open_terminal


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
        async with asyncio.TaskGroup() as group:
            readings = group.create_task(take("mqtt", imu, 40, when_running=watch))
            labels = group.create_task(take("mqtt", label, 1))
        samples = readings.result()
        assert samples[0].values.keys() == {f"c{n}" for n in range(6)}
        assert (np.diff([sample.time_us for sample in samples]) > 0).all()
        assert len(labels.result()[0].values) == 1

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


# --------------------------------------------------------------------------------------------- serial


def test_serial_nmea_over_a_pseudo_terminal() -> None:
    """Positions along the emulated flight, from bytes that arrive in pieces; noise between them is counted."""
    context = SourceContext("gps")

    async def scenario(master: int, path: str) -> None:
        async def send() -> None:
            os.write(master, b"\xff\xfegarbage\r\n$GPGGA,broken*00\r\n")
            for second in range(10):
                text = format_sentences(compute_flight(15.0 + second), second).encode()
                for start in range(0, len(text), 50):
                    os.write(master, text[start : start + 50])
                    await asyncio.sleep(0)
            await asyncio.sleep(DEADLINE_S)

        settings = SerialSettings(Path(path), 9600, "nmea")
        samples = await take("serial", settings, 30, context=context, when_running=send)
        assert get_values(samples, "lat")[0] == pytest.approx(compute_flight(15.0).latitude, abs=1e-6)
        assert get_values(samples, "alt")[0] == pytest.approx(HOME[2] + 30.0)
        assert max(get_values(samples, "speed")) == pytest.approx(8.0, abs=0.01)
        assert context.dropped == 2
        assert termios.tcgetattr(master)[4] == termios.B9600

    with open_terminal(None) as (master, path):
        asyncio.run(scenario(master, path))


def test_serial_columns_and_json_lines() -> None:
    """A header names the columns, numbers do as well; JSON lines take paths; a bad line costs itself only."""

    async def read(form: str, channels: tuple[ChannelSettings, ...], text: bytes, count: int) -> list[dict[str, float]]:
        with open_terminal(None) as (master, path):

            async def send() -> None:
                os.write(master, text)
                await asyncio.sleep(DEADLINE_S)

            settings = SerialSettings(Path(path), 115200, form, channels)
            return [dict(sample.values) for sample in await take("serial", settings, count, when_running=send)]

    named = (ChannelSettings("t", "temp"), ChannelSettings("l", "state", texts=("off", "on")))
    text = b"time,temp,state\n1,20.5,on\n2,x,off\n3,21,off\n"
    assert asyncio.run(read("csv", named, text, 2)) == [{"t": 20.5, "l": 1.0}, {"t": 21.0, "l": 0.0}]
    numbered = (ChannelSettings("a", "0"), ChannelSettings("b", "2"))
    assert asyncio.run(read("csv", numbered, b"1 2 3\n4 5 6\n", 2)) == [{"a": 1, "b": 3}, {"a": 4, "b": 6}]
    paths = (ChannelSettings("x", "imu.acc[0]"),)
    assert asyncio.run(read("json", paths, b'{"imu": {"acc": [0.25]}}\n{}\n{"imu": {"acc": ["1"]}}\n', 2)) == [
        {"x": 0.25},
        {"x": 1.0},
    ]


def test_an_unplugged_port_is_a_failure_with_its_name(tmp_path: Path) -> None:
    """A port that is not there, is no port, or is pulled out while it is read."""
    for settings, text in (
        (SerialSettings(tmp_path / "ttyUSB0", 9600, "nmea"), "ttyUSB0: No such file"),
        (SerialSettings(Path("/dev/null"), 9600, "nmea"), "no serial port"),
    ):
        with pytest.raises(SourceFailed, match=text):
            asyncio.run(take("serial", settings, 1))

    async def scenario() -> None:
        master, slave = os.openpty()
        path = Path(os.ttyname(slave))
        os.close(slave)

        async def pull() -> None:
            await asyncio.sleep(0)
            os.close(master)

        with pytest.raises(SourceFailed, match=path.name):
            await take("serial", SerialSettings(path, 9600, "nmea"), 1, when_running=pull)

    asyncio.run(scenario())


# ----------------------------------------------------------------------------------------------- gpsd

SESSION = (
    b'{"class":"VERSION","release":"3.22","rev":"3.22","proto_major":3,"proto_minor":14}\r\n'
    b'{"class":"DEVICES","devices":[]}\r\n{"class":"WATCH","enable":true,"json":true}\r\nnoise\r\n'
    b'{"class":"TPV","device":"/dev/pts/0","mode":3,"lat":48.117300000,"lon":11.516666667,"altMSL":545.4,"speed":11.5}\r\n'
    b'{"class":"SKY","device":"/dev/pts/0","hdop":0.90,"uSat":8}\r\n'
)


def test_gpsd_of_a_recorded_session() -> None:
    """What gpsd says on its socket becomes samples; when it hangs up, that is a failure to be tried again."""

    async def scenario() -> None:
        asked = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readline())
            writer.write(SESSION)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        settings = GpsdSettings(port=server.sockets[0].getsockname()[1])
        context = SourceContext("gps")
        samples = await take("gpsd", settings, 2, context=context)
        assert dict(samples[0].values) == {"mode": 3, "lat": 48.1173, "lon": 11.516666667, "alt": 545.4, "speed": 11.5}
        assert dict(samples[1].values) == {"satellites": 8, "hdop": 0.9}
        assert context.dropped == 1
        assert asked == [b'?WATCH={"enable":true,"json":true};\n']
        with pytest.raises(SourceFailed, match="hung up"):
            await take("gpsd", settings, 99)
        server.close()
        await server.wait_closed()
        with pytest.raises(SourceFailed, match="gpsd at"):
            await take("gpsd", settings, 1)

    asyncio.run(scenario())


GPSD = shutil.which("gpsd", path=os.environ["PATH"] + ":/usr/sbin")


@pytest.mark.skipif(GPSD is None, reason="gpsd is not installed")
def test_a_real_gpsd_with_the_emulated_receiver(tmp_path: Path) -> None:
    """gpsd itself reads the emulated receiver's port and gives its position on."""
    assert GPSD is not None
    port = find_free_port()

    async def scenario(master: int, path: str) -> None:
        async def send() -> None:
            second = 0
            while True:
                with contextlib.suppress(BlockingIOError):
                    os.write(master, format_sentences(compute_flight(15.0), second).encode())
                second += 1
                await asyncio.sleep(0.05)

        async def read() -> float:
            while True:
                with contextlib.suppress(SourceFailed):
                    for sample in await take("gpsd", GpsdSettings(port=port), 1, when_running=send):
                        if "lat" in sample.values:
                            return sample.values["lat"]
                await asyncio.sleep(0.05)

        async with asyncio.timeout(DEADLINE_S):
            assert await read() == pytest.approx(compute_flight(15.0).latitude, abs=1e-5)

    with open_terminal(None) as (master, path):
        # -N: in the foreground, -n: at once, -b: read only
        process = subprocess.Popen(
            [GPSD, "-N", "-n", "-b", "-S", str(port), path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            asyncio.run(scenario(master, path))
        finally:
            process.terminate()
            process.wait()


# -------------------------------------------------------------------------------------------- mavlink


def is_udp_port_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def test_mavlink_from_a_real_sender() -> None:
    """pymavlink's own sender, 400 steps in one burst while the loop is busy: none is lost, all are in SI units."""
    pytest.importorskip("pymavlink")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = MavlinkSettings(port=port, system=7)
    context = SourceContext("uav")
    # another process, so that the burst comes while this one's loop does nothing for it
    burst = (
        "import sys; from pymavlink.dialects.v20 import common; from tools.emulators.uav import _Wire, send_instant\n"
        "from tools.emulators.flight import compute_flight\n"
        f"wire = _Wire(('127.0.0.1', {port}))\n"
        "wire.write(b'no message at all')\n"
        "other, mav = common.MAVLink(wire, srcSystem=9), common.MAVLink(wire, srcSystem=7)\n"
        "other.attitude_send(0, 9.0, 9.0, 9.0, 0, 0, 0)\n"
        "for step in range(400): send_instant(mav, compute_flight(20 + step / 50), step)\n"
    )

    async def send() -> None:
        await until(lambda: is_udp_port_taken(port))  # what comes before is lost, as in the field
        subprocess.run([sys.executable, "-c", burst], check=True, cwd=Path(__file__).parents[2])
        await asyncio.sleep(DEADLINE_S)

    samples = asyncio.run(take("mavlink", settings, 536, context=context, when_running=send))
    assert len(get_values(samples, "acc_z")) == 400
    assert len(get_values(samples, "roll")) == 80
    assert get_values(samples, "lat")[0] == pytest.approx(compute_flight(20).latitude, abs=1e-6)
    assert get_values(samples, "v_east")[0] == pytest.approx(compute_flight(20).east_m_s, abs=0.01)
    assert 9.0 not in get_values(samples, "roll"), "another vehicle's"
    assert samples[0].units["acc_z"] == "m/s2"
    assert context.dropped > 0, "bytes that are no message"


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
