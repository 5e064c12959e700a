"""IIO devices as the kernel shows them: folders with the files of the real drivers, filled by an emulator.

The layouts are those of the drivers inv_mpu6050, bmp280 (which also serves the BME280) and adxl345, with their default
scales: +-2 g and +-2000 degrees/s, +-16 g in full resolution.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.sensing.iio_format import Layout, ScanChannel, build_layout, parse_type
from tools.emulators.pacing import pace
from tools.emulators.recordings import NO_LABEL, iter_steps
from tools.network.datasets import WATCH_RATE_HZ

GRAVITY_M_S2 = 9.80665
MPU6050 = {
    "name": "mpu6050",
    "current_timestamp_clock": "realtime",
    "sampling_frequency": "50",
    "sampling_frequency_available": "10 20 50 100 200 500",
    "in_accel_scale": "0.000598",
    "in_accel_scale_available": "0.000598 0.001196 0.002392 0.004785",
    "in_accel_matrix": "0, 0, 0; 0, 0, 0; 0, 0, 0",
    "in_accel_mount_matrix": "1, 0, 0; 0, 1, 0; 0, 0, 1",
    "in_anglvel_scale": "0.001064724",
    "in_anglvel_scale_available": "0.000133090 0.000266181 0.000532362 0.001064724",
    "in_anglvel_mount_matrix": "1, 0, 0; 0, 1, 0; 0, 0, 1",
    "in_temp_offset": "12420",
    "in_temp_raw": "-2400",
    "in_temp_scale": "2.941176",
    "trigger/current_trigger": "mpu6050-dev0",
    "buffer/enable": "0",
    "buffer/length": "2",
    "buffer/watermark": "1",
    **{
        f"in_{kind}_{axis}_{what}": value
        for kind in ("accel", "anglvel")
        for axis in "xyz"
        for what, value in (("raw", "0"), ("calibbias", "0"))
    },
    **{
        f"scan_elements/in_{name}_{what}": value
        for name, index, form in (
            ("accel_x", 0, "be:s16/16>>0"),
            ("accel_y", 1, "be:s16/16>>0"),
            ("accel_z", 2, "be:s16/16>>0"),
            ("anglvel_x", 4, "be:s16/16>>0"),
            ("anglvel_y", 5, "be:s16/16>>0"),
            ("anglvel_z", 6, "be:s16/16>>0"),
            ("timestamp", 7, "le:s64/64>>0"),
        )
        for what, value in (("en", "0"), ("index", str(index)), ("type", form))
    },
}
BME280 = {
    "name": "bme280",
    "in_humidityrelative_input": "41532",
    "in_humidityrelative_oversampling_ratio": "16",
    "in_pressure_input": "95.312617187",
    "in_pressure_oversampling_ratio": "16",
    "in_pressure_oversampling_ratio_available": "1 2 4 8 16",
    "in_temp_input": "23870",
    "in_temp_oversampling_ratio": "2",
    "in_temp_oversampling_ratio_available": "1 2 4 8 16",
}
ADXL345 = {
    "name": "adxl345",
    "in_accel_sampling_frequency": "100.000000000",
    "in_accel_scale": "0.038300",
    "in_accel_x_raw": "-3",
    "in_accel_x_calibbias": "0",
    "in_accel_y_raw": "12",
    "in_accel_y_calibbias": "0",
    "in_accel_z_raw": "254",
    "in_accel_z_calibbias": "0",
    "sampling_frequency_available": "0.09765625 0.1953125 0.390625 0.78125 1.5625 3.125 6.25 12.5 25 50 100",
    "buffer/enable": "0",
    "buffer/length": "32",
    **{
        f"scan_elements/in_accel_{axis}_{what}": value
        for index, axis in enumerate("xyz")
        for what, value in (("en", "0"), ("index", str(index)), ("type", "le:s13/16>>0"))
    },
}
DEVICES = {"mpu6050": MPU6050, "bme280": BME280, "adxl345": ADXL345}


def write_tree(root: Path, names: tuple[str, ...] = tuple(DEVICES)) -> dict[str, Path]:
    """Write the folders iio:device0, 1, ... under `root`, and return them by the device's name."""
    folders = {}
    for number, name in enumerate(names):
        folder = root / f"iio:device{number}"
        for file, text in DEVICES[name].items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        folders[name] = folder
    return folders


def encode_record(layout: Layout, raw: dict[str, int]) -> bytes:
    """Return one record of a buffer as the driver would write it."""
    record = bytearray(layout.record_bytes)
    for channel, offset in layout.places:
        scan = channel.type
        number = (raw[channel.name] & ((1 << scan.bits) - 1)) << scan.shift
        size = scan.storage_bits // 8
        record[offset : offset + size] = number.to_bytes(size, "big" if scan.byte_order == "big" else "little")
    return bytes(record)


def read_layout(folder: Path) -> Layout | None:
    """Return the layout of the channels that are enabled now; None if none is."""
    scan = folder / "scan_elements"
    channels = []
    for file in scan.glob("in_*_en"):
        name = file.name.removeprefix("in_").removesuffix("_en")
        if file.read_text().strip() == "1":
            index, form = (scan / f"in_{name}_index").read_text(), (scan / f"in_{name}_type").read_text()
            channels.append(ScanChannel(name, int(index), parse_type(form)))
    return build_layout(channels) if channels else None


@dataclass
class BufferNode:
    """A FIFO in place of /dev/iio:deviceN. Held open at both ends, so that a reader finds no end of file."""

    path: Path
    descriptor: int

    @classmethod
    def make(cls, path: Path) -> BufferNode:
        """Create the FIFO, in place of an old one."""
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return cls(path, os.open(path, os.O_RDWR | os.O_NONBLOCK))

    def write(self, record: bytes) -> None:
        """Add a record; it is lost if no one reads, as in the kernel's ring buffer."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.descriptor, record)

    def close(self) -> None:
        """Remove the FIFO, so that the reader sees the end of the file."""
        os.close(self.descriptor)
        self.path.unlink(missing_ok=True)


def compute_raw(values: npt.NDArray[np.float32]) -> dict[str, int]:
    """Return the watch's values (g, rad/s) as the 16-bit readings of an MPU6050."""
    scales = [float(MPU6050["in_accel_scale"])] * 3 + [float(MPU6050["in_anglvel_scale"])] * 3
    names = ("accel_x", "accel_y", "accel_z", "anglvel_x", "anglvel_y", "anglvel_z")
    physical = [float(value) * (GRAVITY_M_S2 if place < 3 else 1.0) for place, value in enumerate(values)]
    return {
        name: max(-32768, min(32767, round(value / scale)))
        for name, value, scale in zip(names, physical, scales, strict=True)
    }


async def run_iio(root: Path, subject: int, *, seconds: float, seed: int, recording_s: float) -> int:
    """Emulate an MPU6050 that moves as the watch did: its files, and its buffer while that is enabled.

    The exercises and their times go to ROOT/intervals.csv, for the label rule `intervals`. Returns how many readings
    were written.
    """
    folder = write_tree(root / "devices", ("mpu6050",))["mpu6050"]
    (root / "dev").mkdir(exist_ok=True)
    node = BufferNode.make(root / "dev" / folder.name)
    steps, label, count = iter_steps(subject, seed, recording_s=recording_s), NO_LABEL, 0
    intervals = root / "intervals.csv"
    intervals.write_text("start,end,label\n")
    since_s = time.time()
    try:
        async for _ in pace(WATCH_RATE_HZ, seconds):
            step = next(steps)
            raw = compute_raw(step.values)
            for name, number in raw.items():
                (folder / f"in_{name}_raw").write_text(f"{number}\n")
            if step.label != label:
                if label != NO_LABEL:
                    with intervals.open("a") as lines:
                        lines.write(f"{since_s:.3f},{time.time():.3f},{label}\n")
                label, since_s = step.label, time.time()
            if (folder / "buffer/enable").read_text().strip() == "1" and (layout := read_layout(folder)) is not None:
                clock = (folder / "current_timestamp_clock").read_text().strip()
                raw["timestamp"] = time.time_ns() if clock == "realtime" else time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                node.write(encode_record(layout, raw))
            count += 1
    finally:
        node.close()
    return count
