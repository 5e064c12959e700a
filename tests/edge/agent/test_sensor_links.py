"""Sources behind a cable or a socket: serial lines, gpsd, MAVLink; each against an emulator or the real sender."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from agent.edge.sensors.gpsd import GpsdSettings
from agent.edge.sensors.mavlink import MavlinkSettings
from agent.edge.sensors.serial_lines import SerialSettings
from agent.edge.sensors.source import ChannelSettings, SourceContext, SourceFailed
from flchain_edge.newer_python import timeout
from tests.support.networks.mqtt_link import until
from tests.support.sensor_source import DEADLINE_S, get_values, take
from tools.emulators.flight import HOME, compute_flight
from tools.emulators.receiver import format_sentences, open_terminal
from tools.network.broker import find_free_port

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
        (SerialSettings(Path("/dev/null"), 9600, "nmea"), "not a serial port"),
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
        with pytest.raises(SourceFailed, match="closed the connection"):
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

        async with timeout(DEADLINE_S):
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
        subprocess.run([sys.executable, "-c", burst], check=True, cwd=Path(__file__).parents[3])
        await asyncio.sleep(DEADLINE_S)

    samples = asyncio.run(take("mavlink", settings, 536, context=context, when_running=send))
    assert len(get_values(samples, "acc_z")) == 400
    assert len(get_values(samples, "roll")) == 80
    assert get_values(samples, "lat")[0] == pytest.approx(compute_flight(20).latitude, abs=1e-6)
    assert get_values(samples, "v_east")[0] == pytest.approx(compute_flight(20).east_m_s, abs=0.01)
    assert 9.0 not in get_values(samples, "roll"), "another vehicle's"
    assert samples[0].units["acc_z"] == "m/s2"
    assert context.dropped > 0, "bytes that are no message"
