"""A status as an agent writes it, and all that `flchain-agent status` shows of it."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.status.values import AgentStatus

BOARD = {
    "free_memory_bytes": 512_000_000,
    "temperature_c": 61.4,
    "is_throttled": False,
    "is_undervolted": False,
    "power_w": 4.83,
    "is_power_estimated": False,
    "is_on_battery": True,
    "battery_fraction": 0.83,
    "battery_wh": 41.2,
}
SENSOR = {"state": "running", "samples": 3, "dropped": 0, "failures": 0, "age_s": 95.0, "detail": ""}
NOW: dict[str, Any] = {
    "version": 1,
    "address": "ab" * 20,
    "chain": "cd" * 32,
    "round": 128,
    "phase": "commit",
    "phase_s": 12.0,
    "height": 512,
    "model_round": 127,
    "model_hash": "45b06ac86732f1df" * 4,
    "is_synced": True,
    "is_mismatch": False,
    "is_expired": False,
    "is_time_known": True,
    "chain_time_ms": 1_800_014_400_000,
    "chain_time_age_s": 3.0,
    "followed": "ef" * 20,
    "is_held": False,
    "has_update": False,
    "has_failed_training": False,
    "is_mining": True,
    "scores_due": 0,
    "outbox": [],
    "up_s": 273_600.0,
    "receipt_age_s": 40.0,
    "heard_age_s": 2.0,
    "training": {"is_running": True, "steps_done": 90, "steps": 200, "core_s": 4.0, "usual_core_s": 9.0},
    "scheduler": {
        "policy": "profit",
        "asked": {"train": 0.64, "mine": 0.36},
        "is_mining_allowed": True,
        "explanation": "training 64%, mining 36%: update worth 0.9 by 14:10 needs 1.9 core; mining earns 0.642/h",
        "given": {"train": 0.61, "mine": 0.35},
        "period_s": 5,
    },
    "board": BOARD,
    "earned": {"update_coins": 12_000, "score_coins": 300, "scored_rounds": 12, "acceptance": 0.96},
    "cpu": {"mechanism": "cgroup2", "cores": 4, "others": 0.12},
    "link": {
        "broker": "edge-2.lan:8883",
        "brokers": ["edge-1.lan:8883", "edge-2.lan:8883"],
        "is_connected": True,
        "for_s": 7_380.0,
        "trouble": "",
        "connections": 2,
        "bytes_sent": 1_322,
        "bytes_received": 10_022,
    },
    "sensors": [
        {**SENSOR, "name": "watch", "kind": "mqtt", "samples": 12_345, "age_s": 0.4},
        {**SENSOR, "name": "gps", "kind": "gpsd", "state": "silent", "detail": "nothing for 30 s"},
    ],
    "refused": {"bad-signature": 2},
    "disk_bytes": 470_000_000,
    "update": {"release": 0, "state": 0, "detail": ""},
}
ROUND = {
    "round": 127,
    "is_accepted": True,
    "samples": 250,
    "training_ms": 1_024,
    "bytes_up": 1_322,
    "bytes_down": 10_022,
    "energy_j": 12.34,
    "training_j": 9.9,
    "energy_source": "measured",
}
ABSENT = {**ROUND, "round": 126, "is_accepted": False, "training_ms": 0, "energy_j": None, "training_j": None}
VIEW: dict[str, Any] = {
    "node": {"state": "running", "pid": 812, "age_s": 2.0},
    "now": NOW,
    "history": {"rounds": [{**ABSENT, "energy_source": "unmeasured"}, ROUND], "fault": "", "outbox": 0},
    "disk_bytes_per_day": 148_000_000,
    "profile": "rpi-4 (Raspberry Pi 4 Model B)",
    "versions": {"python": "3.11.7", "flchain": "0.1.0"},
}


def build_status() -> AgentStatus:
    """The same, typed."""
    return msgspec.convert(NOW, AgentStatus)
