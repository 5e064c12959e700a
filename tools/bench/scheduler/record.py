"""Record a trace for `flchain bench scheduler`: a demo network on this machine, next to a load that comes and goes.

    python -m tools.bench.scheduler.record --name watch --seed 1 --rounds 20 --out tools/resources/traces/watch.json

For one device (agent-0) it records, every second, the CPU used by its processes and by the rest of the machine, and
from a miner's ledger when each round opened, closed its commitments, was scored and was settled.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from flchain.base.fixedpoint import to_float
from flchain.ledger.genesis import decode_genesis
from flchain.wire.envelope import HEADER_BYTES_MAX, decode_struct
from flchain.wire.messages import Header, Phase
from flchain_edge.model.model_files import compute_initial_model, load_examples
from flchain_edge.model.tflite import TfliteModel
from tools.bench.host import describe_machine, read_commit
from tools.demo.processes import PIDS_FILE
from tools.demo.results import query

DEVICE = "agent-0"
LOAD_S = (8.0, 45.0)
"""Shortest and longest time for which the other load stays the same."""
LOADS = (0, 0, 0, 1, 2)
"""The other load is one of these numbers of busy processes, chosen at random each time."""
START_TIMEOUT_S = 120.0
SCORES_TIMED = 5


def _burn(seed: int, end: threading.Event) -> None:
    """Run the other load: some busy processes for a while, then another number of them."""
    rng = random.Random(seed)
    while not end.is_set():
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(rng.choice(LOADS))]
        end.wait(rng.uniform(*LOAD_S))
        for process in busy:
            process.kill()
            process.wait()


def _find_device(folder: Path) -> psutil.Process:
    """Return the process of agent-0. Raises TimeoutError."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, psutil.Error):
            if (folder / PIDS_FILE).exists():
                for process in psutil.process_iter(["cmdline"]):
                    if any(str(folder / "agents" / DEVICE) in word for word in process.info["cmdline"] or ()):
                        return process
        time.sleep(0.2)
    raise TimeoutError(f"{DEVICE} did not start")


def _sample(demo: subprocess.Popen[bytes], device: psutil.Process) -> tuple[float, list[float], list[float]]:
    """Sample until the demo ends: (start in s since 1970, other load, device's load), shares of the whole CPU."""
    cores = os.cpu_count() or 1
    others: list[float] = []
    own: list[float] = []
    start = time.time()
    before = _read_cpu(device)
    with contextlib.suppress(psutil.Error):
        while demo.poll() is None:
            time.sleep(max(0.0, start + len(own) + 1 - time.time()))
            now = _read_cpu(device)
            seconds, busy, mine = (now[i] - before[i] for i in range(3))
            mine = max(0.0, mine)  # the time of a trainer that has ended is no longer counted
            own.append(round(min(1.0, mine / seconds / cores), 4))
            others.append(round(min(1.0, max(0.0, busy - mine) / seconds / cores), 4))
            before = now
    return start, others, own


def _read_cpu(device: psutil.Process) -> tuple[float, float, float]:
    """Return seconds: of the clock, of all cores' work, and of the device's work with its trainer and scorer."""
    times, mine = psutil.cpu_times(), 0.0
    for process in (device, *device.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = process.cpu_times()
            mine += spent.user + spent.system
    return time.monotonic(), times.user + times.nice + times.system, mine


def _read_rounds(folder: Path, start: float) -> list[dict[str, Any]]:
    """Return the rounds by the times in a miner's headers, in seconds since the first sample."""
    genesis = decode_genesis((folder / "genesis.cbor").read_bytes())
    told = query(folder / "agents" / DEVICE / "data" / "agent.db", "SELECT round, training_ms, is_accepted FROM rounds")
    costs = {row[0]: row[1:] for row in told}
    rounds: dict[int, dict[str, Any]] = {}
    opened = genesis.time_ms / 1000 - start
    for (raw,) in query(
        folder / "miners" / "miner-0" / "data" / "ledger.db", "SELECT header FROM blocks ORDER BY height"
    ):
        header = decode_struct(raw, Header, HEADER_BYTES_MAX)
        at = round(header.time_ms / 1000 - start, 2)
        entry = rounds.setdefault(header.round, {"round": header.round, "opened_s": round(opened, 2)})
        if header.phase is Phase.COMMIT and header.next_phase is not Phase.COMMIT:
            entry["commit_closed_s"] = at
        if header.next_phase is Phase.SCORE and header.phase is not Phase.SCORE:
            entry["score_opened_s"] = at
        if header.next_round > header.round:
            entry["settled_s"] = opened = at
            training_ms, is_accepted = costs.get(header.round, (0, 0))
            entry |= {"training_ms": training_ms, "is_accepted": bool(is_accepted)}
    return [entry for entry in rounds.values() if "settled_s" in entry and "commit_closed_s" in entry]


def _time_score(folder: Path) -> float:
    """Return the core-seconds that this machine needs to score one update on the device's own examples."""
    model = TfliteModel((folder / "model.tflite").read_bytes())
    examples = load_examples(folder / "agents" / DEVICE / "examples.npz", model)
    model.set_weights(to_float(compute_initial_model(model)))
    start = time.thread_time()
    for _ in range(SCORES_TIMED):
        model.evaluate(np.asarray(examples.x), np.asarray(examples.y))
    return (time.thread_time() - start) / SCORES_TIMED


def record(name: str, seed: int, demo_options: list[str], folder: Path) -> dict[str, Any]:
    """Run the demo next to the other load, and return the trace."""
    machine, end = describe_machine(), threading.Event()
    command = [sys.executable, "-m", "tools.cli", "demo", "--out", str(folder), *demo_options]
    with (folder.parent / "demo.log").open("wb") as log:
        demo = subprocess.Popen(command, stdout=log, stderr=log)
        load = threading.Thread(target=_burn, args=(seed, end))
        try:
            device = _find_device(folder)
            load.start()
            start, others, own = _sample(demo, device)
        finally:
            end.set()
            demo.terminate()
            demo.wait()
            if load.ident is not None:
                load.join()
    return {
        "name": name,
        "how": f"tools.bench.scheduler.record --seed {seed} {' '.join(demo_options)}",
        "machine": machine,
        "commit": read_commit(),
        "device": DEVICE,
        "cores": machine["cores"],
        "score_core_s": round(_time_score(folder), 4),
        "rounds": _read_rounds(folder, start),
        "other_load": others,
        "device_load": own,
    }


def main() -> None:
    """Run `python -m tools.bench.scheduler.record --name N --out FILE [--seed S] [options of flchain demo]`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, default=1, help="decides the other load")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments, demo_options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="flchain-record-") as folder:
        trace = record(arguments.name, arguments.seed, demo_options, Path(folder) / "network")
    arguments.out.write_text(json.dumps(trace) + "\n")
    print(f"{arguments.out}: {len(trace['rounds'])} rounds in {len(trace['device_load'])} s")


if __name__ == "__main__":
    main()
