"""The sensors of a running agent: sources that fail apart, health that can be read, configuration told in full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cli import main
from agent.edge.data import sensing
from agent.edge.data.dataset import load_dataset
from agent.edge.data.ring_reader import open_ring, read_channels, read_rows
from agent.edge.data.sensing import Sensing
from agent.edge.data.sensor_checks import find_sensor_problems
from agent.edge.data.settings import RING_FILE, SampleSettings, fits_model
from agent.edge.sensors import SENSORS, SensorSettings
from agent.edge.sensors.gpsd import GpsdSettings
from agent.edge.sensors.iio import IioSettings
from agent.edge.sensors.replay import ReplaySettings
from agent.edge.sensors.source import Samples, SourceContext
from agent.sensing.samples import Sample
from agent.settings import AgentSettings
from flchain.base.errors import ConfigError
from flchain_edge.settings.config import load_config, render_example
from tests.support.networks.mqtt_link import until
from tools.emulators.iio_tree import write_tree
from tools.network.datasets import load_watch


def write_recording(folder: Path, rows: int = 100) -> Path:
    path = folder / "r.csv"
    path.write_text("time,a [m],label\n" + "".join(f"{n / 10},{n},{n // 50}\n" for n in range(rows)))
    return path


def make_sensors(folder: Path) -> tuple[SensorSettings, ...]:
    write_tree(folder / "iio")
    return (
        SensorSettings("rec", "replay", replay=ReplaySettings(write_recording(folder), speed=10_000.0)),
        SensorSettings("imu", "iio", iio=IioSettings("adxl345", rate_hz=100.0, root=folder / "iio")),
        SensorSettings("gone", "iio", iio=IioSettings("lis3dh", root=folder / "iio")),
    )


def test_one_failing_source_stops_neither_the_others_nor_the_agent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing chip is tried again and again, said once; the others run, and a recording ends in peace."""
    caplog.set_level("INFO")

    async def scenario() -> None:
        running = Sensing(make_sensors(tmp_path), SampleSettings(), tmp_path / "data")
        await running.start()
        recording, imu, gone = running.health
        await until(lambda: gone.failures >= 3 and imu.samples >= 5 and recording.state == "ended")
        assert (gone.state, imu.state) == ("failed", "running")
        await running.stop()

    asyncio.run(scenario())
    assert sum("source is failed" in record.message for record in caplog.records) == 1
    with open_ring(tmp_path / "data" / RING_FILE) as db:
        health = {row["name"]: row for row in read_rows(db, "SELECT * FROM sources")}
        content = read_channels(db, ["rec.a", "imu.accel_z"])
    assert health["gone"]["failures"] >= 3
    assert "no IIO device 'lis3dh'" in health["gone"]["detail"]
    assert len(content.series[1]["rec.a"].times_us) == 100
    assert content.units == {"rec.a": "m", "imu.accel_z": "m/s2"}


def test_a_fault_of_ours_in_a_source_is_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a source raises, it alone is started again."""

    async def broken(section: object, context: SourceContext) -> AsyncGenerator[Samples, None]:
        if section is not None:
            raise ZeroDivisionError
        yield ()

    monkeypatch.setitem(SENSORS, "gpsd", replace(SENSORS["gpsd"], read=broken))
    sensors = (SensorSettings("x", "gpsd", gpsd=GpsdSettings()), make_sensors(tmp_path)[1])

    async def scenario() -> None:
        running = Sensing(sensors, SampleSettings(), tmp_path / "data")
        await running.start()
        await until(lambda: running.health[0].failures >= 2 and running.health[1].samples > 3)
        await running.stop()

    asyncio.run(scenario())


def test_silence_is_a_state_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that runs and gives nothing is called silent, and running again with its next sample."""
    gate = asyncio.Event()

    async def quiet(section: object, context: SourceContext) -> AsyncGenerator[Samples, None]:
        await gate.wait()
        yield [Sample(context.clock.read_us(), context.name, {"a": 1.0}, {"a": ""})]
        await asyncio.Event().wait()

    monkeypatch.setitem(SENSORS, "gpsd", replace(SENSORS["gpsd"], read=quiet))
    monkeypatch.setattr(sensing, "CHECK_S", 0.01)

    async def scenario() -> None:
        sensors = (SensorSettings("x", "gpsd", gpsd=GpsdSettings()),)
        running = Sensing(sensors, SampleSettings(silent_s=0.05), tmp_path / "data")
        await running.start()
        await until(lambda: running.health[0].state == "silent")
        gate.set()
        await until(lambda: running.health[0].samples == 1)
        await until(lambda: running.health[0].state == "silent")
        await running.stop()

    asyncio.run(scenario())


def test_without_sensors_nothing_is_made(tmp_path: Path) -> None:
    """A device that learns from a file has no ring and no task."""

    async def scenario() -> None:
        running = Sensing((), SampleSettings(), tmp_path / "data")
        await running.start()
        assert (running.ring, running.health) == (None, ())
        await running.stop()

    asyncio.run(scenario())
    assert not (tmp_path / "data").exists()


HEAD = 'genesis = "g"\nmodel = "m"\nexamples = "e"\ndata_dir = "data"\n[key]\nfile = "key.pem"\n'


def write_config(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(HEAD + text)
    return path


def test_the_example_names_every_kind_and_loads(tmp_path: Path) -> None:
    """`flchain-agent example` is a valid file without sensors, and shows the section of each kind."""
    example = render_example(AgentSettings)
    (tmp_path / "agent.toml").write_text(example)
    settings = load_config(tmp_path / "agent.toml", AgentSettings, {})
    assert settings.sensors == ()
    assert find_sensor_problems(settings.sensors, settings.dataset) == ()
    for kind in SENSORS:
        assert f"[sensors.{kind}]" in example


def test_all_problems_of_the_sensors_are_told_at_once(tmp_path: Path) -> None:
    """One run names every fault of sensors, dataset and labels, each with the entry it is in."""
    path = write_config(
        tmp_path,
        """
        [dataset]
        channels = ["imu.acc_x", "weather.t", "gps.lat", "gps.nothing"]
        scale = [1.0]
        [dataset.label]
        channel = "person.label"
        [[sensors]]
        name = "imu"
        kind = "mqtt"
        [sensors.mqtt]
        topics = ["a/#/b"]
        channels = [{name = "acc_x", path = "a..b"}, {name = "acc_x"}]
        [[sensors]]
        name = "gps"
        kind = "gpsd"
        [sensors.gpsd]
        [[sensors]]
        name = "gps"
        kind = "replay"
        [sensors.replay]
        file = "none.csv"
        [[sensors]]
        name = "port"
        kind = "serial"
        [sensors.serial]
        device = "/dev/ttyUSB0"
        """,
    )
    settings = load_config(path, AgentSettings, {})
    text = "\n".join(find_sensor_problems(settings.sensors, settings.dataset))
    for part in (
        "[sensors #1 imu] mqtt: channels: acc_x occurs twice",
        "[sensors #1 imu] mqtt: channels: acc_x: 'a..b' is not a path",
        "[sensors #1 imu] mqtt: topics: 'a/#/b' is not a topic filter",
        "[sensors #3 gps] replay: file:",
        "[sensors #4 port] serial: channels: csv needs at least one",
        "name: gps occurs 2 times",
        "[dataset] scale: 1 numbers for 4 channels",
        "[dataset] weather.t: no source weather; [[sensors]] has: imu, gps",
        "[dataset] person.label: no source person",
    ):
        assert part in text, f"{part}\n\n{text}"


def test_unknown_kinds_and_sections_list_the_known_ones(tmp_path: Path) -> None:
    """A misspelt kind or section is refused when the file is read, with what there is."""
    path = write_config(tmp_path, '[[sensors]]\nname = "a"\nkind = "lidar"\n[[sensors]]\nname = "b"\nkind = "iio"\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path, AgentSettings, {})
    text = str(caught.value)
    assert 'kind: must be one of iio, mqtt, serial, gpsd, mavlink, replay, is "lidar"' in text
    assert '[sensors #2] kind: "iio" needs a section [sensors.iio] and no other, has none' in text


DATASET = """
[samples]
flush_s = 1
[dataset]
channels = ["rec.a"]
rate_hz = 10.0
window = 10
step = 10
windows_min = 1
[dataset.label]
channel = "rec.label"
[[sensors]]
name = "rec"
kind = "replay"
[sensors.replay]
file = "r.csv"
speed = 10000.0
"""


def test_sense_prints_what_comes_and_stores_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A person tries a sensor: values with units, an exit code that a script can use, no database."""
    write_recording(tmp_path)
    path = write_config(tmp_path, DATASET)
    assert main(["sense", "--config", str(path), "--seconds", "0.3"]) == 0
    assert "a 99 m" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()
    gone = '[[sensors]]\nname = "gone"\nkind = "iio"\n[sensors.iio]\ndevice = "x"\nroot = "none"\n'
    path.write_text(HEAD + gone)
    assert main(["sense", "--config", str(path), "--seconds", "0.1", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["state"] == "failed"
    assert "nothing came from gone (no IIO device 'x'" in captured.err
    path.write_text(HEAD)
    assert main(["sense", "--config", str(path)]) == 78
    for seconds in ("-1", "0"):
        assert main(["sense", "--config", str(path), "--seconds", seconds]) == 78
    assert "--seconds: must be above 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["sense", "--config", str(path), "--seconds", "nan"])
    assert "argument --seconds: must be a number, is 'nan'" in capsys.readouterr().err


def test_the_dataset_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, balance, units, rates and health, for people and for programs, and the same windows that a round gets."""
    write_recording(tmp_path)
    path = write_config(tmp_path, DATASET)
    assert main(["data", "--config", str(path)]) == 78, "nothing there yet"
    settings = load_config(path, AgentSettings, {})

    async def scenario() -> None:
        running = Sensing(settings.sensors, settings.samples, settings.data_dir)
        await running.start()
        await until(lambda: running.health[0].state == "ended")
        await running.stop()

    asyncio.run(scenario())
    capsys.readouterr()
    assert main(["data", "--config", str(path), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    examples = load_dataset(settings, (10, 1), 2)
    assert card["dataset"]["windows"] == len(examples) >= 8
    assert card["dataset"]["by_class"] == {str(c): int((examples.y == c).sum()) for c in (0, 1)}
    channel = card["channels"]["rec.a"]
    assert (channel["unit"], channel["samples"], channel["rate_hz"], channel["gaps"]) == ("m", 100, 10.0, 0)
    assert channel["mean"] == pytest.approx(49.5)
    assert card["sources"][0]["state"] == "ended"
    assert main(["data", "--config", str(path)]) == 0
    text = capsys.readouterr().out
    for part in ("rec.a", "windows of (10, 1) to train on: enough", "class   0", "ended"):
        assert part in text


def test_the_configuration_of_the_walk_through_is_right(tmp_path: Path) -> None:
    """What docs/sensors.md tells a person to write loads, has no problem, and fits the model it names."""
    lines = (Path(__file__).parents[3] / "docs" / "sensors.md").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("    genesis ="))
    last = next(n for n, line in enumerate(lines) if n > first and line and not line.startswith("    "))
    path = tmp_path / "agent.toml"
    path.write_text("\n".join(line[4:] for line in lines[first:last]))
    settings = load_config(path, AgentSettings, {})
    assert find_sensor_problems(settings.sensors, settings.dataset) == ()
    assert fits_model(settings.dataset, (100, 6))
    assert tuple(settings.sensors[1].get_section().channels[0].texts) == load_watch().class_names
