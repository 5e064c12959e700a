"""A board in qemu-system-aarch64 boots a card alone, through U-Boot; its power can be cut, its card be read."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tools.images.disk.apply import Partition, list_partitions
from tools.images.programs import find_program, list_missing, run_tool

UBOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
PROGRAMS = ("qemu-system-aarch64", "mcopy", "debugfs", "e2fsck")
CARD_BYTES = 4 * 1024**3
"""The card is larger than the image, as real ones are: the data partition must grow."""
MEMORY_MB = 1024
CORES = 2
POLL_S = 1.0


def list_obstacles() -> tuple[str, ...]:
    """Return why no board can be emulated here, one sentence each."""
    missing = list_missing(PROGRAMS)
    return missing if UBOOT.exists() else (*missing, f"{UBOOT} is not there: apt install u-boot-qemu")


class EmulatedBoard:
    """A card and the machine that it is in. What its console says is added to `log` over all its lives."""

    def __init__(self, card: Path, log: Path) -> None:
        self.card = card
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: IO[bytes] | None = None
        self._life_starts = 0

    def end(self) -> None:
        """Power off, whatever it does."""
        if self._process is not None:
            self.cut_power()

    def insert(self, image: Path) -> None:
        """Write the image to a card that is larger."""
        run_tool(("cp", "--sparse=always", str(image), str(self.card)))
        with self.card.open("r+b") as stream:
            stream.truncate(CARD_BYTES)

    def put(self, *files: Path) -> None:
        """Copy files to the boot partition, as a person does who has the card in a reader."""
        boot = list_partitions(self.card)[0]
        run_tool(("mcopy", "-o", "-i", f"{self.card}@@{boot.start_bytes}", *map(str, files), "::"))

    def read_boot(self, name: str) -> bytes:
        """Return a file of the boot partition."""
        boot = list_partitions(self.card)[0]
        command = ("mtype", "-i", f"{self.card}@@{boot.start_bytes}", f"::{name}")
        return subprocess.run(command, capture_output=True, check=True).stdout

    def power_on(self) -> None:
        """Start the machine; its network is qemu's own, in which this machine's loopback is 10.0.2.2."""
        assert self._process is None, "it is on"
        self._stream = self.log.open("ab")
        self._life_starts = self.log.stat().st_size
        program = find_program("qemu-system-aarch64")
        command = (
            str(program), "-M", "virt", "-cpu", "cortex-a72", "-smp", str(CORES), "-m", str(MEMORY_MB),
            "-nodefaults", "-display", "none", "-serial", "stdio",
            "-bios", str(UBOOT), "-drive", f"if=none,id=card,format=raw,file={self.card}",
            "-device", "virtio-blk-pci,drive=card", "-netdev", "user,id=net",
            "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci", "-device", "i6300esb",
        )  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._stream, stderr=self._stream)

    def cut_power(self) -> None:
        """End the machine without a word, as a power cut does: what it has not written is lost."""
        assert self._process is not None and self._stream is not None, "it is off"
        self._process.kill()
        self._process.wait()
        self._stream.close()
        self._process = None

    def peek(self, number: int, path: str) -> str:
        """Return a file of an ext4 partition as it is on the card now, even while the machine runs; empty if none."""
        part = list_partitions(self.card)[number - 1]
        command = ("debugfs", "-c", "-R", f"cat {path}", f"{self.card}?offset={part.start_bytes}")
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout

    def read_console(self) -> str:
        """Return what the console has said in this life."""
        with self.log.open("rb") as stream:
            stream.seek(self._life_starts)
            return stream.read().decode(errors="replace").replace("\r", "")

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> float:
        """Wait for a condition and return how long it took. Fail if the machine ends, or with the console's end."""
        began = time.monotonic()
        while not condition():
            assert self._process is None or self._process.poll() is None, f"qemu ended\n{self.read_console()[-3000:]}"
            waited_s = time.monotonic() - began
            assert waited_s < timeout_s, f"waited {timeout_s:g} s for {what}\n{self.read_console()[-6000:]}"
            time.sleep(POLL_S)
        return time.monotonic() - began

    def until_said(self, text: str, timeout_s: float) -> float:
        """Wait until the console has said something in this life."""
        return self.until(lambda: text in self.read_console(), f"the console to say {text!r}", timeout_s)

    @contextlib.contextmanager
    def reading(self, number: int) -> Iterator[Path]:
        """Unpack a partition of the card, which is off, after the check that a boot would make; the folder."""
        assert self._process is None, "the machine writes to it"
        part: Partition = list_partitions(self.card)[number - 1]
        with tempfile.TemporaryDirectory() as name:
            piece = Path(name) / "piece"
            where = (f"skip={part.start_bytes}", f"count={part.size_bytes}", "iflag=skip_bytes,count_bytes")
            run_tool(("dd", f"if={self.card}", f"of={piece}", "bs=1M", "conv=sparse", *where))
            checked = subprocess.run(("e2fsck", "-p", str(piece)), capture_output=True, text=True, check=False)
            assert checked.returncode < 4, checked.stdout
            folder = Path(name) / "files"
            folder.mkdir()
            run_tool(("debugfs", "-R", f"rdump / {folder}", str(piece)))
            yield folder
