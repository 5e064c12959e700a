"""The board as the runner sees it: a reading on demand, and an energy meter that every reading feeds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from agent.edge.power import SOURCES
from agent.edge.power.files import BoardRoots, ReadFile, SensorFiles, read_file
from agent.edge.power.profiles import choose_profile
from agent.edge.power.settings import PowerSettings
from agent.edge.power.source import BuildSource, Look, Source
from agent.scheduling.energy import BoardProfile, EnergySample, EnergySource, Meter, process_sample
from agent.scheduling.readings import BoardReading
from flchain_edge.newer_python import timeout

log = logging.getLogger(__name__)

KERNEL_ROOTS = BoardRoots()

SOURCE_TIMEOUT_S = 2.0
"""A source that takes longer counts as unmeasured and is left in its thread until it returns; others are read."""
REFRESH_WAIT_S = 0.1
"""Longest wait for a fresh meter reading at the end of a round."""
FIND_EVERY = 60
"""Sensors are searched for again after this many readings: new ones are found, missing ones forgotten."""


@dataclass(eq=False)
class _Job:
    """One reading in a thread of its own: all sources in turn."""

    names: list[str]
    is_find: bool
    looks: dict[str, Look] = field(default_factory=dict)
    is_abandoned: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, name: str, look: Look, stuck: set[str]) -> bool:
        """In the thread: take a source's answer. Return False if the job was abandoned; its source is free again."""
        with self.lock:
            if self.is_abandoned:
                stuck.discard(name)
            else:
                self.looks[name] = look
            return not self.is_abandoned

    def abandon(self, stuck: set[str]) -> str | None:
        """In the loop: give up the source that hangs, and return its name; None if all were read."""
        with self.lock:
            if len(self.looks) == len(self.names):
                return None
            self.is_abandoned = True
            hanging = self.names[len(self.looks)]
            stuck.add(hanging)
            return hanging


class Board:
    """All of the board's sensors. Never blocks the loop, and never raises for a sensor's fault."""

    def __init__(
        self,
        settings: PowerSettings,
        roots: BoardRoots = KERNEL_ROOTS,
        *,
        sources: Mapping[str, BuildSource] = SOURCES,
        read: ReadFile = read_file,
        clock: Callable[[], float] = time.monotonic,
        source_timeout_s: float = SOURCE_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._files = SensorFiles(roots, read)
        self._clock = clock
        self._timeout_s = source_timeout_s
        self._sources: dict[str, Source] = {
            name: build(self._files, settings.board_chip) for name, build in sources.items()
        }
        self._present: set[str] = set()
        self._stuck: set[str] = set()
        self._looks = 0
        self._is_told = False
        self._one_look = asyncio.Lock()
        self._reading: set[asyncio.Task[BoardReading]] = set()
        self._meter = Meter()
        self.profile: BoardProfile | None = choose_profile(settings, self._files, platform.machine())

    async def read(self) -> BoardReading:
        """Read the board now, and count the energy since the last reading."""
        async with self._one_look:
            look = merge(await self._look())
            sample = EnergySample(self._clock(), look.counter_j, look.power_w, look.coarse_j, self._read_busy_s())
            self._meter = process_sample(self._meter, sample, self.profile)
            reading = self._build_reading(look)
            if not self._is_told:
                self._is_told = True
                log.info("power and heat", extra=self._describe(reading))
            return reading

    async def refresh(self) -> Meter:
        """Return the energy meter as of now, or of the last reading if a new one takes longer than REFRESH_WAIT_S."""
        task = asyncio.create_task(self.read())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        await asyncio.wait((task,), timeout=REFRESH_WAIT_S)
        return self._meter

    def snapshot(self) -> Meter:
        """Return the energy meter's totals so far; `compute_energy` compares two of them."""
        return self._meter

    def _describe(self, reading: BoardReading) -> dict[str, object]:
        how = "unmeasured" if reading.power_w is None else "estimated" if reading.is_power_estimated else "measured"
        sensors = ", ".join(name for name in self._sources if name in self._present) or "none"
        return {"sensors": sensors, "power": how, "profile": self.profile.name if self.profile else "none"}

    async def _look(self) -> dict[str, Look]:
        """Read every source that does not hang. Each reading has its thread, so that a hanging one keeps no process."""
        loop, looks = asyncio.get_running_loop(), dict[str, Look]()
        is_find = self._looks % FIND_EVERY == 0
        self._looks += 1
        waiting = [name for name in self._sources if name not in self._stuck and (is_find or name in self._present)]
        while waiting:
            job, done = _Job(waiting, is_find), asyncio.Event()
            threading.Thread(target=self._work, args=(job, loop, done), name="power", daemon=True).start()
            progress = 0
            while not done.is_set():
                try:
                    async with timeout(self._timeout_s):  # wait_for of Python 3.11 may lose a cancellation
                        await done.wait()
                except TimeoutError:
                    if len(job.looks) == progress:
                        break
                    progress = len(job.looks)
            hanging = job.abandon(self._stuck)
            looks |= job.looks
            if hanging is None:
                break
            self._files.tell(self._files.sysfs / hanging, f"no answer in {self._timeout_s:g} s")
            waiting = [name for name in waiting if name not in looks and name != hanging]
        return looks

    def _work(self, job: _Job, loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
        """Run in the thread. An abandoned job ends when its source returns, which may then be read again."""
        for name in job.names:
            try:
                if job.is_find:
                    is_present = self._sources[name].find()
                    (self._present.add if is_present else self._present.discard)(name)
                look = self._sources[name].read() if name in self._present else Look()
            except Exception as error:  # unexpected output of a driver must not end the agent
                self._files.tell(self._files.sysfs / name, f"{type(error).__name__}: {error}")
                look = Look()
            if not job.accept(name, look, self._stuck):
                return
        with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
            loop.call_soon_threadsafe(done.set)

    def _read_busy_s(self) -> float | None:
        """Return the busy CPU time of all cores since the boot: user, nice, system, irq, softirq, steal."""
        text = self._files.read_text(self._files.proc / "stat")
        words = (text or "").split("\n", 1)[0].split()
        if len(words) < 9 or words[0] != "cpu" or not all(word.isdecimal() for word in words[1:]):
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

    def _build_reading(self, look: Look) -> BoardReading:
        power_w, latest = look.power_w, self._meter.latest
        if (
            power_w is None and latest.joules is not None
        ):  # of a counter or the profile: the mean since the last reading
            power_w = latest.joules / self._meter.latest_s
        return BoardReading(
            free_memory_bytes=self._read_free_bytes(),
            temperature_c=look.temperature_c,
            is_throttled=look.is_throttled,
            is_undervolted=look.is_undervolted,
            power_w=power_w,
            is_power_estimated=look.power_w is None and latest.source is EnergySource.ESTIMATED,
            is_on_battery=look.is_on_battery,
            battery_fraction=look.battery_fraction,
            battery_wh=look.battery_wh,
        )

    def _read_free_bytes(self) -> int:
        """Return the memory that new work may take without swapping (MemAvailable)."""
        for line in (self._files.read_text(self._files.proc / "meminfo") or "").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable" and (words := rest.split()) and words[0].isdecimal():
                return int(words[0]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def merge(looks: Mapping[str, Look]) -> Look:
    """Merge many sources: the hottest temperature, a flag that any sets, and of all else the first that is measured."""
    merged = Look()
    temperatures = [look.temperature_c for look in looks.values() if look.temperature_c is not None]
    for name in SOURCES:
        look = looks.get(name, Look())
        merged = Look(
            temperature_c=max(temperatures, default=None),
            is_throttled=_any(merged.is_throttled, look.is_throttled),
            is_undervolted=_any(merged.is_undervolted, look.is_undervolted),
            power_w=_first(merged.power_w, look.power_w),
            counter_j=_first(merged.counter_j, look.counter_j),
            coarse_j=_first(merged.coarse_j, look.coarse_j),
            is_on_battery=_any(merged.is_on_battery, look.is_on_battery),
            battery_fraction=_first(merged.battery_fraction, look.battery_fraction),
            battery_wh=_first(merged.battery_wh, look.battery_wh),
        )
    # A processor's counter is a part of what a meter of the whole board measures.
    return merged if merged.power_w is None else replace(merged, counter_j=None)


def _any(one: bool | None, other: bool | None) -> bool | None:
    known = [flag for flag in (one, other) if flag is not None]
    return any(known) if known else None


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one
