"""The status as a person reads it: units, alignment, and what is shouted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.commands.status_format import format_view
from agent.status.values import StatusRecord, StatusView
from flchain_edge.formatting import format_bytes, format_moment, format_span, format_table
from tests.support.builders.status import BOARD, NOW, ROUND, VIEW

WANTED = """\
The agent RUNS, for 3 d 4 h (process 812), as of 2 s ago
  device     abababababababababababababababababababab, chain cdcdcdcdcdcdcdcd
  round      128, commit for 12 s; training 45% done
  model      of round 127, hash 45b06ac86732f1df, height 512
  broker     edge-2.lan:8883, connected for 2 h 3 min (2 of 2); a miner's last receipt 40 s ago; miner efefefef
  outbox     empty
  scheduler  training 64%, mining 36%: update worth 0.9 by 14:10 needs 1.9 core; mining earns 0.642/h
  CPU        taken: training 61%, mining 35%, others 12%; 4 cores, shares by cgroup2
  board      61 C, 4.8 W measured, battery 83% 41 Wh, on battery, 512 MB memory free
  sensor     watch (mqtt) running, 12,345 samples, newest 0 s ago
  sensor     gps (gpsd) silent, 3 samples, newest 1 min 35 s ago; nothing for 30 s
  earned     12,000 coins by updates; 12 rounds scored, worth about 300 coins
  refused    2 bad-signature
  card       148 MB written a day
  profile    rpi-4 (Raspberry Pi 4 Model B)
  versions   python 3.11.7, flchain 0.1.0

  round  accepted          up     down  training           energy  of it training
    126  took no part  1.3 kB  10.0 kB         -       unmeasured               -
    127  yes           1.3 kB  10.0 kB    1.02 s  12.3 J measured           9.9 J"""


def show(view: dict[str, Any]) -> str:
    return format_view(msgspec.convert(view, StatusView))


def test_a_healthy_board() -> None:
    """Every line of docs/operating.md's example, as it is printed."""
    assert show(VIEW) == WANTED
    page = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
    assert "\n".join(f"    {line}".rstrip() for line in WANTED.splitlines()) in page


def change(**changes: Any) -> str:
    return show({**VIEW, "now": {**NOW, **changes}})


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"is_mismatch": True}, "!! THIS DEVICE COMPUTED ANOTHER MODEL"),
        ({"is_expired": True}, "!! it was away for too long"),
        ({"is_synced": False}, "behind the chain"),
        ({"is_held": True}, "training 45% done, held"),
        ({"is_time_known": False}, "waiting for the first header from a miner, to know the time"),
        ({"outbox": [{"round": 128, "bytes": 682}]}, "1 waiting for a miner's receipt, 682 B"),
        ({"scores_due": 7}, "7 models to score"),
        (
            {"update": {"release": 7, "state": 1, "detail": "battery 20%, begins above 30%"}},
            "update     release 7: waiting; battery 20%, begins above 30%",
        ),
        ({"update": {"release": 7, "state": 0, "detail": "switched off in [update]"}}, "release 7: left out; switched"),
        (
            {"link": {**NOW["link"], "is_connected": False, "trouble": "refused", "for_s": 90.0}},
            "NOT CONNECTED for 1 min 30 s; trying edge-2.lan:8883: refused",
        ),
        (
            {"board": {**BOARD, "is_throttled": True, "is_undervolted": True}},
            "THROTTLED by the firmware, UNDER-VOLTAGE",
        ),
        ({"board": {**BOARD, "temperature_c": None, "power_w": None}}, "unmeasured: temperature, power"),
        ({"board": None}, "not measured yet"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], wanted: str) -> None:
    """Each trouble stands in the text, in words."""
    assert wanted in change(**changes)


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        ({"state": "never started"}, "was never started"),
        ({"state": "stopped", "since_ms": 1_800_014_400_000, "age_s": 9.0}, "stopped at 2027-01-15 12:00 UTC"),
        (
            {"state": "killed", "since_ms": 1_800_014_400_000, "age_s": 9.0},
            "killed, or lost power, soon after 2027-01-15",
        ),
        ({"state": "unknown", "since_ms": None}, "Whether the agent runs cannot be read"),
        ({"state": "running", "pid": 1, "age_s": 400.0}, "!! its last status is 6 min 40 s old"),
    ],
)
def test_whether_it_runs_is_said_first(node: dict[str, Any], wanted: str) -> None:
    """The first lines say whether it runs, and since when not."""
    now = None if node["state"] in ("never started", "unknown") else NOW
    view = {**VIEW, "node": node, "now": now, "history": {"rounds": [], "fault": "no such file"}}
    assert wanted in "\n".join(show(view).splitlines()[:2])
    assert "No rounds to show: no such file" in show(view)


def test_the_status_reaches_a_program_under_its_old_names() -> None:
    """What is written comes back the same, and JSON's names and nesting are those that programs read."""
    view = msgspec.convert(VIEW, StatusView)
    assert msgspec.json.decode(msgspec.json.encode(view), type=StatusView) == view
    shown = json.loads(msgspec.json.encode(view))
    assert shown["now"] == NOW and shown["history"]["rounds"][-1] == ROUND
    assert set(shown) == {"node", "now", "history", "disk_bytes_per_day", "profile", "versions"}


def test_a_status_of_another_form_is_refused() -> None:
    """A field that is missing, or of another type, is an error of the file and no guess."""
    writer = {"is_running": True, "pid": 1, "start_ticks": 3, "boot": "b", "written_boot_s": 1.0, "written_ms": 1}
    assert msgspec.convert({"writer": writer, "status": NOW}, StatusRecord).status.round == 128
    for changed in ({**NOW, "round": "128"}, {key: value for key, value in NOW.items() if key != "link"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"writer": writer, "status": changed}, StatusRecord)


def test_words_for_numbers() -> None:
    """Two units of a duration, decimal bytes, instants in UTC, columns as wide as their widest."""
    assert [format_span(s) for s in (0, 0.4, 59, 60, 61, 3_600, 90_061, 86_400)] == [
        "0 s", "0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 d 1 h", "1 d",
    ]  # fmt: skip
    assert [format_bytes(b) for b in (None, 0, 999, 1_000, 99_949, 150_000, 5_100_000, 2e11)] == [
        "-", "0 B", "999 B", "1.0 kB", "99.9 kB", "150 kB", "5.1 MB", "200 GB",
    ]  # fmt: skip
    assert format_moment(0) == "1970-01-01 00:00 UTC"
    assert format_table([("a", "bb"), ("ccc", "d")], right=frozenset({1})) == ["a    bb", "ccc   d"]
