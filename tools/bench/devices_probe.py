"""What a miner's machine costs with N devices, measured in whatever checkout this is run in; one JSON object on stdout.

    devices_probe.py DEVICES ROUNDS, with PYTHONPATH naming the checkout, and without this file's folder on the path

No broker, no disk, no devices' work: messages are signed before, four machines hear each other's words in order, scores
are constant, and a clock that moves only when nothing is left to say. Functions are found by name in their package, so
that the same file measures a checkout whose modules stand elsewhere.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

MINERS = 4
SAMPLES = 100
SCORE = 7_000
CHECKS = 2_000
TIMES_MAX = 1_000
"""More often than this the clock is never moved in a round: the network would be stuck."""


def find_module(package: str, name: str) -> Any:
    """The module of this package that defines this name, or else the one that has it in its `__all__`."""
    shared = None
    for place in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if ".edge" in place.name or place.name.rpartition(".")[2] in ("cli", "runner", "__main__"):
            continue
        module = importlib.import_module(place.name)
        if getattr(getattr(module, name, None), "__module__", None) == place.name:
            return module
        if shared is None and name in getattr(module, "__all__", ()):
            shared = module
    if shared is None:
        raise SystemExit(f"{package} has no {name}")
    return shared


class World:
    """Four machines and what is under way between them."""

    def __init__(self, devices: int) -> None:
        self.network = network = find_module("tools.bench", "build_runner")
        self.machine, self.events = find_module("miner", "build_miner_state"), find_module("miner", "PacketReceived")
        self.chain = network.build_chain(network.Plan(MINERS, devices, 1, 1.0))
        self.topics = network.Topics.of_chain(self.chain.id)
        standing = network.Standing(network.build_genesis_state(self.chain.genesis, self.chain.model))
        keys = self.chain.miners
        self.states = [self.machine.build_miner_state(self.events.MinerConfig(key), standing) for key in keys]
        change = network.np.zeros(network.PARAMETERS_COUNT, network.np.int32)
        change[:: network.CODEC_LEVEL] = 2**16
        nothing = network.np.zeros_like(change)
        self.payload = network.CODECS[network.CODEC].encode(change, nothing, network.CODEC_LEVEL).payload
        self.queue: deque[tuple[int, Any]] = deque((number, self.events.Connected()) for number in range(MINERS))
        self.timers: dict[tuple[int, Any], int] = {}
        self.now_ms, self.cpu_s = 0, 0.0
        self.said: tuple[int, int] = (0, 0)

    def run(self, rounds: int) -> None:
        """Until every machine has settled so many rounds."""
        times = 0
        while min(state.chain.round.number for state in self.states) <= rounds:
            if self.queue:
                self.step(*self.queue.popleft())
                continue
            times += 1
            if times > TIMES_MAX or not self.timers:
                raise SystemExit("the network is stuck")
            (number, timer), self.now_ms = min(self.timers.items(), key=lambda item: (item[1], str(item[0])))
            del self.timers[number, timer]
            self.step(number, self.events.TimerFired(timer))

    def step(self, number: int, event: Any) -> None:
        """One event of one machine, timed; then what it wants is done."""
        started_s = time.thread_time()
        self.states[number], effects = self.machine.step(self.states[number], event, self.now_ms, 0)
        self.cpu_s += time.thread_time() - started_s
        for effect in effects:
            self.carry_out(number, effect)
        round_ = self.states[number].chain.round
        if (round_.number, round_.phase) > self.said:
            self.said = round_.number, round_.phase
            self.let_devices_speak(round_.number, round_.phase.name)

    def carry_out(self, number: int, effect: Any) -> None:
        """Deliver, answer or set a clock; disks are free of charge."""
        match type(effect).__name__:
            case "Publish" if effect.topic.endswith(("/bft", "/head")):
                heard = self.events.PacketReceived(effect.topic, effect.packet)
                self.queue.extend((other, heard) for other in range(MINERS) if other != number)
            case "ComputeScore":
                self.queue.append((number, self.events.ScoreComputed(effect.round, effect.subject, SCORE)))
            case "StartTimer":
                self.timers[number, effect.timer] = self.now_ms + effect.delay_ms

    def let_devices_speak(self, round_number: int, phase: str) -> None:
        """A phase has opened: every device's message goes to every machine."""
        network = self.network
        for device in self.chain.devices if phase in ("COMMIT", "REVEAL") else ():
            reveal = network.Reveal(round_number, network.SALT, SAMPLES, self.payload)
            commitment = network.compute_update_commitment(self.chain.id, device.address, reveal)
            word = network.Commit(round_number, commitment, False) if phase == "COMMIT" else reveal
            packet = network.encode_packet(network.PacketType.MESSAGE, network.seal(word, self.chain.id, device))
            heard = self.events.PacketReceived(self.topics.device_up(device.address), packet)
            self.queue.extend((number, heard) for number in range(MINERS))


def measure_check_s(world: World) -> float:
    """CPU seconds of one signature check, nothing else."""
    key, verify = world.chain.devices[0], find_module("flchain", "is_public_key").verify
    message = bytes(200)
    signature = key.sign(message)
    started_s = time.thread_time()
    for _ in range(CHECKS):
        assert verify(key.public_key, message, signature)
    return (time.thread_time() - started_s) / CHECKS


def measure(devices: int, rounds: int) -> dict[str, Any]:
    """One round that is not measured, then `rounds` that are."""
    world = World(devices)
    before_s = measure_check_s(world)
    world.run(1)
    world.cpu_s = 0.0
    world.run(1 + rounds)
    check_s = (before_s + measure_check_s(world)) / 2
    round_ms = 1_000 * world.cpu_s / MINERS / rounds
    floor_ms = 1_000 * 2 * devices * check_s
    return {
        "devices": devices,
        "miner_ms_per_round": round_ms,
        "miner_ms_per_update": round_ms / devices,
        "floor_ms_per_round": floor_ms,
        "floor_ratio": round_ms / floor_ms,
        "checkout": str(Path(importlib.import_module("flchain").__path__[0]).parent),
        "head": bytes(world.states[0].chain.head).hex(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
