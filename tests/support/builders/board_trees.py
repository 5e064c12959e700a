"""The sysfs of real boards, as far as it tells of power and heat: paths, names and units as their kernels have them.

Where each is from is said beside it. A tree is {path below /sys: text}; `plant` makes it a folder.
"""

from __future__ import annotations

from pathlib import Path

Tree = dict[str, str]

RPI_FIRMWARE = "devices/platform/soc/soc:firmware/get_throttled"

# Raspberry Pi OS: get_throttled as many of its users read it (hexadecimal, without 0x); rpi_volt and its alarm
# from drivers/hwmon/raspberrypi-hwmon.c and a page with listings of a 3B+, a Zero 2 W and a 5.
RPI_4: Tree = {
    "firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    "class/thermal/thermal_zone0/temp": "48686",
    "class/hwmon/hwmon0/name": "cpu_thermal",
    "class/hwmon/hwmon0/temp1_input": "48686",
    "class/hwmon/hwmon1/name": "rpi_volt",
    "class/hwmon/hwmon1/in0_lcrit_alarm": "0",
    RPI_FIRMWARE: "0",
}

# The same with the 5's own chips (rp1_adc, pwmfan) and values, from tests of host monitors that recorded them. A kernel
# without Raspberry Pi's own changes: no get_throttled, the alarm alone.
RPI_5: Tree = {
    "firmware/devicetree/base/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    "class/thermal/thermal_zone0/temp": "52350",
    "class/thermal/cooling_device0/type": "pwm-fan",
    "class/thermal/cooling_device0/cur_state": "1",
    "class/hwmon/hwmon0/name": "cpu_thermal",
    "class/hwmon/hwmon0/temp1_input": "52350",
    "class/hwmon/hwmon1/name": "rp1_adc",
    "class/hwmon/hwmon1/temp1_input": "54310",
    "class/hwmon/hwmon1/in1_input": "1479",
    "class/hwmon/hwmon2/name": "pwmfan",
    "class/hwmon/hwmon2/fan1_input": "2980",
    "class/hwmon/hwmon3/name": "rpi_volt",
    "class/hwmon/hwmon3/in0_lcrit_alarm": "1",
}

_NANO_RAILS = "bus/i2c/drivers/ina3221x/6-0040/iio:device0"

# JetPack 4.6.1: zones and their values (the PMIC's for ever 100) from a user's listing; rails from jetson_stats'
# power.py: rail_name_<n>, in_power<n>_input in mW, with the milliwatts of a recorded line of tegrastats.
JETSON_NANO: Tree = {
    "firmware/devicetree/base/model": "NVIDIA Jetson Nano Developer Kit\0",
    **{
        f"class/thermal/thermal_zone{number}/{name}": text
        for number, (kind, temp) in enumerate(
            (
                ("AO-therm", "41500"),
                ("CPU-therm", "34000"),
                ("GPU-therm", "31000"),
                ("PLL-therm", "31500"),
                ("PMIC-Die", "100000"),
                ("thermal-fan-est", "33000"),
            )
        )
        for name, text in (("type", kind), ("temp", temp))
    },
    f"{_NANO_RAILS}/name": "ina3221x",
    f"{_NANO_RAILS}/rail_name_0": "POM_5V_IN",
    f"{_NANO_RAILS}/in_power0_input": "1750",
    f"{_NANO_RAILS}/rail_name_1": "POM_5V_GPU",
    f"{_NANO_RAILS}/in_power1_input": "0",
    f"{_NANO_RAILS}/rail_name_2": "POM_5V_CPU",
    f"{_NANO_RAILS}/in_power2_input": "366",
}

# JetPack 6: rails from the kernel's tegra234-p3767.dtsi, files from Documentation/hwmon/ina3221.rst; zones with the
# values of a recorded board. Its cv zones answer EAGAIN while that part of the chip is off: the tests make them do so.
ORIN_NANO: Tree = {
    "firmware/devicetree/base/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    **{
        f"class/thermal/thermal_zone{number}/{name}": text
        for number, (kind, temp) in enumerate(
            (
                ("cpu-thermal", "49687"),
                ("gpu-thermal", "50531"),
                ("cv0-thermal", "0"),
                ("soc0-thermal", "50000"),
                ("tj-thermal", "50781"),
            )
        )
        for name, text in (("type", kind), ("temp", temp))
    },
    "class/hwmon/hwmon1/name": "ina3221",
    **{
        f"class/hwmon/hwmon1/{name}": text
        for number, (label, volt_mv, current_ma) in enumerate(
            (("VDD_IN", "5056", "944"), ("VDD_CPU_GPU_CV", "5056", "160"), ("VDD_SOC", "5056", "280")), start=1
        )
        for name, text in (
            (f"in{number}_label", label),
            (f"in{number}_input", volt_mv),
            (f"curr{number}_input", current_ma),
        )
    },
    "class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    "class/hwmon/hwmon1/in7_input": "6920",
    "class/hwmon/hwmon1/curr4_input": "1384",
}

_BAT0 = """POWER_SUPPLY_NAME=BAT0
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_PRESENT=1
POWER_SUPPLY_TECHNOLOGY=Li-ion
POWER_SUPPLY_VOLTAGE_MIN_DESIGN=10800000
POWER_SUPPLY_VOLTAGE_NOW=12473000
POWER_SUPPLY_POWER_NOW=16751000
POWER_SUPPLY_ENERGY_FULL_DESIGN=93960000
POWER_SUPPLY_ENERGY_FULL=75390000
POWER_SUPPLY_ENERGY_NOW=70150000
POWER_SUPPLY_CAPACITY=93
"""

# A ThinkPad's BAT0 from a wiki's listing (where it charges); coretemp; RAPL as Documentation/power/powercap has it.
LAPTOP: Tree = {
    "class/thermal/thermal_zone0/type": "acpitz",
    "class/thermal/thermal_zone0/temp": "47000",
    "class/thermal/thermal_zone1/type": "x86_pkg_temp",
    "class/thermal/thermal_zone1/temp": "53000",
    "class/thermal/cooling_device0/type": "Processor",
    "class/thermal/cooling_device0/cur_state": "0",
    "class/hwmon/hwmon3/name": "coretemp",
    "class/hwmon/hwmon3/temp1_input": "54000",
    "class/hwmon/hwmon4/name": "nvme",
    "class/hwmon/hwmon4/temp1_input": "61850",
    "class/power_supply/AC/type": "Mains",
    "class/power_supply/AC/uevent": "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_ONLINE=0\n",
    "class/power_supply/BAT0/type": "Battery",
    "class/power_supply/BAT0/uevent": _BAT0,
    "class/power_supply/hidpp_battery_0/type": "Battery",
    "class/power_supply/hidpp_battery_0/scope": "Device",
    "class/power_supply/hidpp_battery_0/uevent": "POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_CAPACITY=5\n",
    "class/powercap/intel-rapl:0/name": "package-0",
    "class/powercap/intel-rapl:0/energy_uj": "65532000000",
    "class/powercap/intel-rapl:0/max_energy_range_uj": "65532610987",
    "class/powercap/intel-rapl:0:0/name": "core",
    "class/powercap/intel-rapl:0:0/energy_uj": "20000000000",
    "class/powercap/intel-rapl:0:0/max_energy_range_uj": "65532610987",
    "class/powercap/intel-rapl:0:2/name": "dram",
    "class/powercap/intel-rapl:0:2/energy_uj": "1000000",
    "class/powercap/intel-rapl:0:2/max_energy_range_uj": "65532610987",
    "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "12",
    "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "12",
}

# An INA219 on a UPS hat (driver ina2xx: power in uW), as Documentation/hwmon/ina2xx.rst has it; the board is a Pi 4.
RPI_4_INA219: Tree = {
    **RPI_4,
    "class/hwmon/hwmon2/name": "ina219",
    "class/hwmon/hwmon2/in0_input": "6",
    "class/hwmon/hwmon2/in1_input": "5080",
    "class/hwmon/hwmon2/curr1_input": "654",
    "class/hwmon/hwmon2/power1_input": "3320000",
}

TREES: dict[str, Tree] = {
    "rpi-4": RPI_4,
    "rpi-4-ina219": RPI_4_INA219,
    "rpi-5": RPI_5,
    "jetson-nano": JETSON_NANO,
    "orin-nano": ORIN_NANO,
    "laptop": LAPTOP,
}

PROC: Tree = {
    "stat": "cpu  1000 0 500 90000 300 10 20 30 0 0\ncpu0 1000 0 500 90000 300 10 20 30 0 0\n",
    "meminfo": "MemTotal:  3884400 kB\nMemFree:  1000 kB\nMemAvailable:  2048000 kB\n",
}


def plant(folder: Path, tree: Tree) -> Path:
    """Make the files, or write those that are there anew."""
    for name, text in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.endswith(("\n", "\0")) else text + "\n")
    return folder
