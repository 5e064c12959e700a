"""One miner and one device on a real broker, the device's board a folder that a test writes: heat, battery, memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.commands.status_view import build_view
from agent.edge.power.files import ROOT_VARIABLE
from agent.settings import AgentSettings
from agent.status.values import AgentStatus, StatusView
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.settings.config import load_config
from tests.support.builders.board_trees import plant
from tests.support.networks.field import save_levels
from tests.support.networks.registrar import run_command
from tools.network.broker import Broker, start_broker

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "tools" / "models" / "cnn1d.tflite"
DEADLINE_S = 90.0
"""Longest wait for one condition: no claim about speed, only the end of patience."""
POLL_S = 0.05
SCHEDULER = "[scheduler]\nperiod_s = 1\nhold_s = 1\n"
COOL = {
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    "class/thermal/thermal_zone0/temp": "41000",
    "class/hwmon/hwmon1/name": "rpi_volt",
    "class/hwmon/hwmon1/in0_lcrit_alarm": "0",
}
PROC = {"meminfo": "MemAvailable:    1000000 kB\n"}


@dataclass
class BoardNetwork:
    """The processes and the device's board. `more` goes into agent.toml."""

    out: Path
    broker: Broker
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def agent_config(self) -> Path:
        return self.out / "agent" / "agent.toml"

    @property
    def miner_config(self) -> Path:
        return self.out / "miner" / "miner.toml"

    @property
    def sysfs(self) -> Path:
        return self.out / "board" / "sys"

    @property
    def settings(self) -> AgentSettings:
        return load_config(self.agent_config, AgentSettings)

    def lay_out(self, more: str = SCHEDULER, *, epochs: int = 1, genesis: str = "") -> None:
        """Keys, genesis, examples, configuration, and a board that is cool and on mains."""
        lines = ['name = "board"', 'model = "model.tflite"', 'preset = "minimal"', genesis]
        lines += ["[training]", f"local_epochs = {epochs}"]
        keys = []
        for number, role in enumerate(("miner", "agent")):
            folder = self.out / role
            folder.mkdir(parents=True)
            keys.append(load_or_create_identity(folder / "key.pem", None).public_key.hex())
            save_levels(folder / "examples.npz", number)
        lines += ["[[validators]]", f'public_key = "{keys[0]}"']
        lines += ["[[devices]]", f'public_key = "{keys[1]}"', f'home = "{keys[0]}"']
        shutil.copyfile(MODEL, self.out / "model.tflite")
        (self.out / "network.toml").write_text("\n".join(lines) + "\n")
        run_command(
            "genesis", "make", "--network", str(self.out / "network.toml"), "--out", str(self.out / "genesis.cbor")
        )
        for role, path, own in (
            ("miner", self.miner_config, ""),
            ("agent", self.agent_config, self._write_agent(more)),
        ):
            path.write_text(
                'genesis = "../genesis.cbor"\nmodel = "../model.tflite"\nexamples = "examples.npz"\ndata_dir = "data"\n'
                f'[key]\nfile = "key.pem"\n[mqtt]\nhost = "{self.broker.host}"\nport = {self.broker.port}\n'
                f'[log]\nlevel = "debug"\nfile = "{role}.log"\n{own}'
            )
        (self.out / "run").mkdir()
        plant(self.sysfs, COOL)
        plant(self.out / "board" / "proc", PROC)
        (self.out / "board" / "proc" / "stat").symlink_to("/proc/stat")

    @property
    def environ(self) -> dict[str, str]:
        """Of every process of this board."""
        return {**os.environ, ROOT_VARIABLE: str(self.out / "board")}

    def _write_agent(self, more: str) -> str:
        return f'[power]\nboard = "rpi-4"\n{more}'

    def set_board(self, **files: str) -> None:
        """Write files of sysfs; `/` in their names is `__`."""
        plant(self.sysfs, {name.replace("__", "/"): text for name, text in files.items()})

    def set_temperature(self, degrees: float) -> None:
        plant(self.sysfs, {"class/thermal/thermal_zone0/temp": f"{1000 * degrees:.0f}"})

    def set_battery(self, percent: int) -> None:
        """A battery that feeds the board and tells no watt-hours."""
        plant(
            self.sysfs,
            {
                "class/power_supply/BAT0/type": "Battery",
                "class/power_supply/BAT0/uevent": "POWER_SUPPLY_STATUS=Discharging\n"
                f"POWER_SUPPLY_PRESENT=1\nPOWER_SUPPLY_CAPACITY={percent}\n",
                "class/power_supply/BAT0/status": "Discharging",
                "class/power_supply/BAT0/present": "1",
                "class/power_supply/BAT0/capacity": f"{percent}",
            },
        )

    def set_free_memory(self, megabytes: int) -> None:
        plant(self.out / "board" / "proc", {"meminfo": f"MemAvailable:    {megabytes * 1000} kB\n"})

    def start(self, *roles: str) -> None:
        for role in roles:
            config = self.agent_config if role == "agent" else self.miner_config
            environ = {**self.environ, "RUNTIME_DIRECTORY": str(self.out / "run"), "OPENBLAS_NUM_THREADS": "1"}
            with (self.out / f"{role}.stderr").open("ab") as log:
                self.processes[role] = subprocess.Popen(
                    [sys.executable, "-m", f"{role}.cli", "run", "--config", str(config)],
                    stderr=log,
                    cwd=ROOT,
                    env=environ,
                )

    def stop(self, role: str, number: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        process = self.processes.pop(role)
        process.send_signal(number)
        return process.wait(30)

    def view(self) -> StatusView:
        """What `flchain-agent status --json` prints."""
        return build_view(self.settings)

    def until(self, condition: Callable[[AgentStatus], object], what: str) -> AgentStatus:
        """Wait until the running agent's status is so, and return it."""
        started = time.monotonic()
        while True:
            view = self.view()
            if view.running is not None and condition(view.running):
                return view.running
            for role, process in self.processes.items():
                assert process.poll() is None, f"{role} has ended\n{self.read_log(role)[-3000:]}"
            assert time.monotonic() - started < DEADLINE_S, f"{what}\n{view}\n{self.read_log('agent')[-3000:]}"
            time.sleep(POLL_S)

    def until_round(self, number: int) -> AgentStatus:
        """Until this round's model is computed here."""
        return self.until(lambda now: now.model_round >= number, f"round {number}")

    def read_log(self, role: str) -> str:
        return (self.out / f"{role}.stderr").read_text(errors="replace")

    def call(self, role: str, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command of this node, as a person types it."""
        config = self.agent_config if role == "agent" else self.miner_config
        command = [sys.executable, "-m", f"{role}.cli", arguments[0], "--config", str(config), *arguments[1:]]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=self.environ, timeout=timeout_s
        )

    def diagnose(self, role: str = "agent") -> tuple[int, dict[str, list[dict[str, str]]]]:
        """`doctor --json`: its exit code, and the findings by check."""
        done = self.call(role, "doctor", "--json")
        found: dict[str, list[dict[str, str]]] = {}
        for row in json.loads(done.stdout)["findings"]:
            found.setdefault(row["check"], []).append(row)
        return done.returncode, found


@contextlib.contextmanager
def board_network(out: Path) -> Iterator[BoardNetwork]:
    """A broker and a folder; every process is ended at the end of the block."""
    broker = start_broker("nats", out / "broker")
    network = BoardNetwork(out, broker)
    try:
        yield network
    finally:
        for role in tuple(network.processes):
            if network.processes[role].poll() is None:
                network.stop(role)
        broker.stop()
