"""What sensors send, against examples from their manuals."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from agent.sensing.gpsd_reports import parse_report
from agent.sensing.home_assistant import get_channel, parse_config, parse_template
from agent.sensing.iio_format import ScanChannel, build_layout, decode_records, get_unit, parse_type
from agent.sensing.json_values import follow, parse_path, to_number
from agent.sensing.mavlink_fields import read_fields
from agent.sensing.nmea import parse_sentence
from agent.sensing.samples import InvalidReading
from agent.sensing.text_lines import LINE_BYTES_MAX, LineSplitter
from agent.sensing.timestamps import SenderClock


@pytest.mark.parametrize(
    ("text", "raw", "number"),
    [
        ("le:s12/16>>4", bytes([0x10, 0x80]), -2047),  # 0x8010 >> 4 = 0x801
        ("be:s16/16>>0", bytes([0xFF, 0xFE]), -2),
        ("be:u24/32>>8", bytes([0x12, 0x34, 0x56, 0x78]), 0x123456),
        ("le:s13/16>>0", bytes([0xFD, 0x1F]), -3),
        ("le:s64/64>>0", (1_700_000_000_000_000_000).to_bytes(8, "little"), 1_700_000_000_000_000_000),
        ("le:u8/8X4>>0", bytes([7, 8, 9, 10]), 7),
        ("le:s16/16", bytes([0x00, 0x80]), -32768),
    ],
)
def test_iio_types_decode_as_the_kernel_documents(text: str, raw: bytes, number: int) -> None:
    """Byte order, sign, shift and padding of a scan element are read from its type."""
    layout = build_layout([ScanChannel("x", 0, parse_type(text))])
    assert decode_records(layout, raw) == ([{"x": number}], b"")


@pytest.mark.parametrize("text", ["", "le:s12/17>>4", "le:s16/16>>1", "xx:s8/8", "le:s0/8", "le:q8/8", "le:s8/8>>-1"])
def test_iio_types_outside_the_abi_are_refused(text: str) -> None:
    """A type that no driver may give is an error, not a wrong number."""
    with pytest.raises(ValueError, match="scan type"):
        parse_type(text)


def test_iio_records_are_aligned_as_in_memory() -> None:
    """Three 16-bit axes and a 64-bit timestamp make 16 bytes: the timestamp begins at 8; a part stays for later."""
    axes = [ScanChannel(name, index, parse_type("le:s16/16>>0")) for index, name in enumerate("xyz")]
    layout = build_layout([ScanChannel("timestamp", 3, parse_type("le:s64/64>>0")), *axes])
    assert [offset for _, offset in layout.places] == [0, 2, 4, 8]
    assert layout.record_bytes == 16
    record = bytes([1, 0, 2, 0, 3, 0, 0xEE, 0xEE]) + (99).to_bytes(8, "little")
    records, rest = decode_records(layout, record + record[:5])
    assert records == [{"x": 1, "y": 2, "z": 3, "timestamp": 99}]
    assert rest == record[:5]
    # one 16-bit channel before a 32-bit one is padded, and the record is a multiple of the largest
    two = build_layout([ScanChannel("a", 0, parse_type("le:s16/16")), ScanChannel("b", 1, parse_type("le:s32/32"))])
    assert two.record_bytes == 8


def test_iio_units_become_si() -> None:
    """kPa, milli degrees, Gauss and mV are what the ABI gives, not what a dataset card should show."""
    assert get_unit("pressure") == ("Pa", 1e3)
    assert get_unit("temp_ambient") == ("degC", 1e-3)
    assert get_unit("voltage0-voltage1") == ("V", 1e-3)
    assert get_unit("somethingnew") == ("", 1.0)


def test_nmea_sentences_of_the_manual() -> None:
    """Positions, heights, speeds and courses of the well-known example sentences, in degrees, m and m/s."""
    gga = parse_sentence("$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47")
    assert gga == pytest.approx(
        {"fix": 1, "lat": 48.1173, "lon": 11.516667, "satellites": 8, "hdop": 0.9, "alt": 545.4}, abs=1e-6
    )
    rmc = parse_sentence("$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A")
    assert rmc["speed"] == pytest.approx(22.4 * 0.514444, rel=1e-5)
    assert rmc["course"] == 84.4
    vtg = parse_sentence("$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K*48")
    assert vtg == pytest.approx({"course": 54.7, "speed": 5.5 * 0.514444}, rel=1e-5)
    south_west = parse_sentence("$GNRMC,123519,A,3351.500,S,07040.250,W,,,230394,,,A*66")
    assert (south_west["lat"], south_west["lon"]) == pytest.approx((-33.858333, -70.670833), abs=1e-6)


def test_nmea_without_a_fix_gives_no_position() -> None:
    """Void sentences say that there is no fix, and nothing else; other kinds are passed over."""
    assert parse_sentence("$GPGGA,123519,,,,,0,00,,,M,,M,,*6B") == {"fix": 0.0}
    assert parse_sentence("$GPRMC,123519,V,,,,,,,230394,,*33") == {}
    assert parse_sentence("$GPGSA,A,3,04,05,,09,12,,,24,,,,,2.5,1.3,2.1*39") == {}


@pytest.mark.parametrize(
    "line",
    [
        "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*46",
        "$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,",
        "GPGGA*00",
        "$GPRMC,1,A,9999.000,N,01131.000,E,1,1,1*1F",
    ],
)
def test_nmea_with_a_wrong_checksum_or_place_is_refused(line: str) -> None:
    """A damaged sentence never becomes a position."""
    with pytest.raises(InvalidReading):
        parse_sentence(line)


def test_gpsd_reports() -> None:
    """TPV and SKY of old and new releases give the same channels; other classes give none."""
    tpv = {"class": "TPV", "mode": 3, "lat": 1.5, "lon": -2, "alt": 9, "altMSL": 8, "speed": 0.2, "track": 10, "eph": 3}
    assert parse_report(tpv) == {"mode": 3, "lat": 1.5, "lon": -2, "alt": 8, "speed": 0.2, "course": 10, "eph": 3}
    assert parse_report({"class": "TPV", "mode": 1}) == {"mode": 1}
    old = {"class": "SKY", "hdop": 1.1, "satellites": [{"used": True}, {"used": False}, {"used": True}, 5]}
    assert parse_report(old) == {"satellites": 2, "hdop": 1.1}
    assert parse_report({"class": "SKY", "uSat": 7}) == {"satellites": 7}
    assert parse_report({"class": "VERSION"}) == {}
    with pytest.raises(InvalidReading):
        parse_report([])


def test_home_assistant_discovery() -> None:
    """Long and short keys, a base topic, and the templates that name a place; anything else is refused by name."""
    assert get_channel("homeassistant/sensor/0x00158d/temperature/config", "homeassistant") == "0x00158d_temperature"
    assert get_channel("homeassistant/sensor/attic/config", "homeassistant") == "attic"
    assert get_channel("homeassistant/light/attic/config", "homeassistant") is None
    entity = parse_config(
        "t", {"~": "z/attic", "stat_t": "~/state", "val_tpl": "{{ value_json.t }}", "unit_of_meas": "°C"}
    )
    assert (entity.state_topic, entity.path, entity.unit) == ("z/attic/state", ("t",), "°C")
    assert parse_template("{{ value_json.ENERGY['Total'] | float(0) | round(2) }}") == ("ENERGY", "Total")
    assert parse_template("{{value_json['a b'][0].c}}") == ("a b", 0, "c")
    assert parse_template("{{ value }}") is None
    assert parse_template("") is None
    for template in ("{{ states('x') }}", "{% if 1 %}{% endif %}", "{{ value_json.a }}{{ value }}", "x {{ value }}"):
        with pytest.raises(InvalidReading):
            parse_template(template)
    broken: tuple[Any, ...] = ([], {}, {"state_topic": 5}, {"state_topic": "a/#"}, {"state_topic": "a", "val_tpl": [1]})
    for document in broken:
        with pytest.raises(InvalidReading):
            parse_config("x", document)


def test_json_paths_and_numbers() -> None:
    """A path finds what is there and None for what is not; texts become classes, and only then."""
    document = {"a": {"b": [1, {"c": "2.5"}]}, "on": True}
    assert follow(document, parse_path("a.b[1].c")) == "2.5"
    assert follow(document, parse_path("a.b.0")) == 1
    assert follow(document, parse_path("a.x.y")) is None
    assert follow(document, parse_path("a.b[7]")) is None
    assert [to_number(value) for value in ("2.5", True, 3, "x", None, float("nan"), 10**400)] == [
        2.5,
        1.0,
        3.0,
        None,
        None,
        None,
        None,
    ]
    assert to_number("walk", ("rest", "walk")) == 1.0
    assert math.isnan(to_number("", ("rest", "walk")) or 0.0)
    for text in ("a..b", ".a", "a[", "a[x]", "a.", ".".join("abcdefghi")):
        with pytest.raises(ValueError, match="path"):
            parse_path(text)


def test_mavlink_fields_are_in_si_units() -> None:
    """Scaled integers become SI; the values that mean "not known" become nothing."""
    values, units = read_fields("GLOBAL_POSITION_INT", {"lat": 481372220, "alt": 550_000, "hdg": 65535, "vx": -150}.get)
    assert values == pytest.approx({"lat": 48.137222, "alt": 550.0, "v_north": -1.5})
    assert units["lat"] == "deg"
    assert read_fields("SCALED_IMU", {"zacc": -1000, "xmag": 210}.get)[0] == pytest.approx(
        {"acc_z": -9.80665, "mag_x": 21.0}
    )
    assert read_fields("BATTERY_STATUS", {"battery_remaining": -1, "current_battery": -1}.get)[0] == {}
    assert read_fields("HEARTBEAT", dict[str, Any]().get) == ({}, {})


def test_lines_are_cut_out_of_any_pieces() -> None:
    """However the bytes are cut, the same lines come; one that is too long is dropped whole, the next one is read."""
    stream = b"one\r\ntwo\n\n" + b"x" * (2 * LINE_BYTES_MAX) + b"\nthree\n\xff\xfe\nfour"
    for size in (1, 3, 7, 500, len(stream)):
        splitter = LineSplitter()
        lines = [line for start in range(0, len(stream), size) for line in splitter.feed(stream[start : start + size])]
        assert lines == ["one", "two", "three", "\ufffd\ufffd"]
        assert splitter.dropped == 1


def test_a_senders_clock_gives_steps_and_not_dates() -> None:
    """Bursts keep the sender's steps, delays do not accumulate, a sender that starts anew is followed."""
    clock = SenderClock()
    arrived = [0, 21_000, 95_000, 95_100, 95_200, 100_000]  # steps of 20 ms; three came in one burst
    dated = [clock.date(1000 + n * 0.02, 5_000_000 + at) for n, at in enumerate(arrived)]
    steps = [after - before for before, after in pairwise(dated)]
    assert all(abs(step - 20_000) < 100 for step in steps), steps
    assert all(when <= 5_000_000 + at for when, at in zip(dated, arrived, strict=True))
    assert clock.date(0.0, 9_000_000) == 9_000_000
