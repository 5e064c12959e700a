"""gpsd's JSON reports (gpsd_json(5)): TPV, position and speed, and SKY, the number of satellites."""

from __future__ import annotations

from typing import Any

from agent.sensing.json_values import to_number
from agent.sensing.samples import InvalidReading

WATCH = b'?WATCH={"enable":true,"json":true};\n'
UNITS = {
    "mode": "",
    "lat": "deg",
    "lon": "deg",
    "alt": "m",
    "speed": "m/s",
    "course": "deg",
    "climb": "m/s",
    "eph": "m",
    "satellites": "",
    "hdop": "",
}
_TPV = {"mode": "mode", "lat": "lat", "lon": "lon", "speed": "speed", "track": "course", "climb": "climb", "eph": "eph"}


def parse_report(report: Any) -> dict[str, float]:
    """Return channel values of a decoded report; {} for another class. Raises InvalidReading if it is not a report.

    Altitude is above mean sea level (`altMSL`; `alt` of releases before 3.20).
    """
    if not isinstance(report, dict) or not isinstance(report.get("class"), str):
        raise InvalidReading("not a report of gpsd")
    if report["class"] == "TPV":
        values = {ours: number for key, ours in _TPV.items() if (number := to_number(report.get(key))) is not None}
        altitude = to_number(report.get("altMSL", report.get("alt")))
        return values if altitude is None else {**values, "alt": altitude}
    if report["class"] == "SKY":
        return _read_sky(report)
    return {}


def _read_sky(report: dict[str, Any]) -> dict[str, float]:
    values = {}
    used = to_number(report.get("uSat"))
    satellites = report.get("satellites")
    if used is None and isinstance(satellites, list):  # releases before 3.23 do not count the satellites
        used = float(
            sum(1 for satellite in satellites if isinstance(satellite, dict) and satellite.get("used") is True)
        )
    if used is not None:
        values["satellites"] = used
    if (hdop := to_number(report.get("hdop"))) is not None:
        values["hdop"] = hdop
    return values
