"""Whatever a sensor sends, parsers give values or say InvalidReading, and nothing else."""

from __future__ import annotations

import contextlib
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.edge.sensors.mqtt import Messages, MqttSensorSettings
from agent.edge.sensors.serial_lines import SerialSettings, build_parser
from agent.edge.sensors.source import ChannelSettings, SourceContext
from agent.sensing import nmea
from agent.sensing.blocks import DamagedBlock, decode_block, encode_block
from agent.sensing.gpsd_reports import UNITS, parse_report
from agent.sensing.home_assistant import parse_config
from agent.sensing.iio_format import STORAGE_BITS, ScanChannel, ScanType, build_layout, decode_records, parse_type
from agent.sensing.json_values import read_json
from agent.sensing.labels import parse_intervals
from agent.sensing.samples import InvalidReading
from agent.sensing.text_lines import LINE_BYTES_MAX, LineSplitter
from flchain_edge.mqtt.inbox import Received
from tests.support.floats import floats
from tools.emulators.iio_tree import encode_record

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
CHANNELS = (
    ChannelSettings("a", path="a[0].b"),
    ChannelSettings("b"),
    ChannelSettings("c", path=".", texts=("x", "y")),
    ChannelSettings("d", path="3"),
)


def with_checksum(body: str) -> str:
    return f"${body}*{nmea.compute_checksum(body):02X}"


fields = st.text(st.sampled_from("0123456789.,-NSEWAV"), max_size=60)


@given(
    st.text(max_size=80)
    | st.builds(lambda kind, text: with_checksum(f"GP{kind},{text}"), st.sampled_from(["GGA", "RMC", "VTG"]), fields)
)
def test_nmea_gives_finite_values_in_range_or_refuses(line: str) -> None:
    """A correct checksum over nonsense is still no position outside of the world."""
    with contextlib.suppress(InvalidReading):
        values = nmea.parse_sentence(line)
        assert values.keys() <= nmea.UNITS.keys()
        assert all(math.isfinite(value) for value in values.values())
        assert abs(values.get("lat", 0)) <= 90
        assert abs(values.get("lon", 0)) <= 180


@given(st.lists(st.binary(max_size=2 * LINE_BYTES_MAX), max_size=8))
def test_the_splitter_keeps_a_bounded_rest(chunks: list[bytes]) -> None:
    """Bytes without a line end never pile up, and no line is longer than the limit."""
    splitter = LineSplitter()
    for chunk in chunks:
        assert all(len(line) <= LINE_BYTES_MAX for line in splitter.feed(chunk))
        assert len(splitter._rest) <= LINE_BYTES_MAX


@given(json_values)
def test_reports_and_discovery_of_any_json(document: object) -> None:
    """gpsd and Home Assistant may send any JSON."""
    with contextlib.suppress(InvalidReading):
        assert (
            parse_report({"class": "TPV", **document} if isinstance(document, dict) else document).keys()
            <= UNITS.keys()
        )
    with contextlib.suppress(InvalidReading):
        parse_config("x", {"state_topic": "t", **document} if isinstance(document, dict) else document)


@given(
    st.binary(max_size=60) | st.builds(lambda value: json.dumps(value).encode(), json_values),
    st.booleans(),
    st.text(max_size=30),
)
def test_any_message_makes_a_sample_or_is_refused(payload: bytes, retained: bool, topic: str) -> None:
    """Payloads and topics of strangers, discovery ones among them, never raise anything else."""
    settings_ = MqttSensorSettings(("#",), CHANNELS, time_path="b", discovery="ha")
    messages = Messages(settings_, SourceContext("s"))
    for name in (topic, "ha/sensor/x/config", "ha/sensor/x/config", "t"):
        with contextlib.suppress(InvalidReading):
            sample, _, _ = messages.process(Received(name, payload, retained))
            assert sample is None or (sample.values and sample.values.keys() == sample.units.keys())


@pytest.mark.parametrize("form", ["csv", "json", "nmea"])
@given(line=st.text(max_size=60) | st.builds(json.dumps, json_values))
def test_any_line_makes_values_or_is_refused(form: str, line: str) -> None:
    """A noisy wire gives lines of any kind."""
    channels = () if form == "nmea" else (ChannelSettings("a", path="1"), ChannelSettings("b"))
    parse, units = build_parser(SerialSettings(Path("x"), form=form, channels=channels))
    with contextlib.suppress(InvalidReading):
        assert parse(line).keys() <= units.keys()


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_json_of_any_bytes(raw: bytes | str) -> None:
    """Deep nesting and broken text are refused, not a crash."""
    with contextlib.suppress(InvalidReading):
        read_json(raw)


def test_json_that_is_nested_without_end_is_refused() -> None:
    """A stack is no bound."""
    with pytest.raises(InvalidReading):
        read_json("[" * 60_000)


@st.composite
def scan_types(draw: st.DrawFn) -> ScanType:
    storage = draw(st.sampled_from(STORAGE_BITS))
    shift = draw(st.integers(0, storage - 1))
    bits = draw(st.integers(1, storage - shift))
    return ScanType(draw(st.sampled_from(["big", "little"])), draw(st.booleans()), bits, storage, 1, shift)


@given(st.lists(scan_types(), min_size=1, max_size=6), st.data())
def test_iio_records_decode_to_what_was_encoded(types: list[ScanType], data: st.DataObject) -> None:
    """Any legal set of channels: every number comes back, and every element lies at a multiple of its size."""
    layout = build_layout([ScanChannel(f"c{n}", n, kind) for n, kind in enumerate(types)])
    raw = {}
    for channel, offset in layout.places:
        kind = channel.type
        low, high = (-(1 << kind.bits - 1), (1 << kind.bits - 1) - 1) if kind.is_signed else (0, (1 << kind.bits) - 1)
        raw[channel.name] = data.draw(st.integers(low, high))
        assert offset % (kind.storage_bits // 8) == 0
    assert decode_records(layout, encode_record(layout, raw) * 2 + b"x"[:1])[0][:2] == [raw, raw]


@given(st.text(max_size=20))
def test_any_scan_type_is_read_or_refused(text: str) -> None:
    """What a driver writes is one of the two."""
    with contextlib.suppress(ValueError):
        parse_type(text)


@given(
    st.lists(st.integers(0, 2**50), min_size=1, max_size=30),
    st.lists(floats(width=32), min_size=1, max_size=3),
    st.binary(max_size=40),
)
def test_blocks_come_back_and_damage_is_seen(times: list[int], row: list[float], garbage: bytes) -> None:
    """What was encoded decodes to the same; other bytes are DamagedBlock."""
    units = ["deg" if n % 2 else "" for n in range(len(row))]
    block = encode_block(sorted(times), [[value] * len(times) for value in row], units)
    found, columns = decode_block(block, len(times), units)
    assert found.tolist() == sorted(times)
    np.testing.assert_array_equal([column[0] for column in columns], row)
    with pytest.raises(DamagedBlock):
        decode_block(block, len(times) + 1, units)
    with contextlib.suppress(DamagedBlock):
        decode_block(garbage, len(times), units)


@settings(max_examples=50)
@given(st.lists(st.text(st.sampled_from("0123456789.,-:TZ#ab"), max_size=40), max_size=6))
def test_any_interval_file_is_read_or_refused(lines: list[str]) -> None:
    """A person writes these by hand."""
    with contextlib.suppress(ValueError):
        intervals = parse_intervals(lines, ("a", "b"))
        assert all(before.last_us <= after.first_us for before, after in pairwise(intervals))
