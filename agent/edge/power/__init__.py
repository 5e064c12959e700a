"""Power and heat from what a board has: each kind of sensor is a Source, by name in SOURCES.

Where several measure the same thing, the first in this order counts: meters in the board's supply, then its battery,
then the processor's own counters. Of temperatures the hottest counts; a flag is set if any source sets it.
"""

from __future__ import annotations

from agent.edge.power.cpu import ThrottleCounts
from agent.edge.power.hwmon import Hwmon
from agent.edge.power.jetson_iio import JetsonRails
from agent.edge.power.rapl import Rapl
from agent.edge.power.raspberry import RaspberryFlags
from agent.edge.power.source import BuildSource
from agent.edge.power.supply import PowerSupplies
from agent.edge.power.thermal import ThermalZones

SOURCES: dict[str, BuildSource] = {
    "thermal": ThermalZones,
    "hwmon": Hwmon,
    "jetson-iio": JetsonRails,
    "power-supply": PowerSupplies,
    "raspberry": RaspberryFlags,
    "rapl": Rapl,
    "cpu": ThrottleCounts,
}
