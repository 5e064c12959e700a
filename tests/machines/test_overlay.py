"""A maker's own image becomes an FLchain board: written into its file without root, installed at its first boot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.machines.conftest import Boot, MakeRoot
from tools.images.debs.cli import Order, build_packages
from tools.images.disk.apply import apply_overlay, list_partitions
from tools.images.disk.layout import make_disk
from tools.images.disk.overlay import build_overlay
from tools.images.disk.recipes import read_recipe
from tools.images.programs import list_missing, run_tool

PROGRAMS = ("uv", "debugfs", "mke2fs", "sfdisk", "mkfs.vfat", "mcopy")
UNIT = "flchain-overlay.service"
BOUND = ("flchain-agent", "flchain-provision", "flchain-update", "systemd/timesync")


def extract(image: Path, root: Path) -> None:
    """Put what the image's root holds into a folder, which a container boots from."""
    part = list_partitions(image)[1]
    piece = image.with_suffix(".root")
    where = (f"skip={part.start_bytes}", f"count={part.size_bytes}", "iflag=skip_bytes,count_bytes")
    run_tool(("dd", f"if={image}", f"of={piece}", "bs=1M", "conv=sparse", *where))
    run_tool(("debugfs", "-R", f"rdump / {root}", str(piece)))
    piece.unlink()


@pytest.mark.timeout(1800)
def test_a_makers_image_installs_the_agent_at_its_first_boot(new_root: MakeRoot, boot: Boot, tmp_path: Path) -> None:
    """On another board it says so and leaves the system alone; on its own it installs the agent, which then waits."""
    if missing := list_missing(PROGRAMS):
        pytest.skip("; ".join(missing))
    order = Order(("flchain-agent",), ("trixie",), ("amd64",), None, tmp_path / "debs", is_quick=True)
    (package,) = build_packages(order)
    archive = tmp_path / "overlay.tar.gz"
    build_overlay(read_recipe("rpi4"), {"trixie": package}, archive, 1_700_000_000)
    maker = new_root("trixie", packages=("libstdc++6",), name="maker")
    for name in BOUND:  # what the disk's data partition is made of; a maker's image has none
        (maker.folder / "var" / "lib" / name).mkdir(parents=True, exist_ok=True)
    (maker.folder / "boot" / "firmware").mkdir(parents=True, exist_ok=True)
    copy = tmp_path / "copy"
    shutil.copytree(maker.folder, copy, symlinks=True, ignore_dangling_symlinks=True)
    image = tmp_path / "maker.img"
    make_disk(read_recipe("qemu-arm64"), copy, image, "ab" * 32)
    settings = tmp_path / "flchain.toml"
    settings.write_text('name = "north"\n')
    applied = apply_overlay(archive, image, settings)
    assert applied.release == "trixie"
    # What debugfs reads loses hard links and capabilities of the rest, so only what was added is taken.
    whole = tmp_path / "whole"
    whole.mkdir()
    extract(image, whole)
    shutil.copytree(whole / "var/lib/flchain-overlay", maker.folder / "var/lib/flchain-overlay")
    units = "etc/systemd/system"
    shutil.rmtree(maker.folder / units)
    shutil.copytree(whole / units, maker.folder / units, symlinks=True)
    machine = boot(maker)
    machine.until(lambda: machine.show(UNIT, "ActiveState") == "failed", "the installation to be refused")
    assert "but this board is: a machine without a device tree" in machine.read_journal("-u", UNIT)
    assert machine.run("test", "-e", "/usr/bin/flchain-agent", check=False).returncode != 0
    drop_in = "/etc/systemd/system/flchain-overlay.service.d"
    machine.shell(
        f"mkdir -p {drop_in} && printf '[Service]\\nEnvironment=FLCHAIN_ANY_BOARD=yes\\n' >{drop_in}/any.conf"
    )
    machine.shell(f"systemctl daemon-reload && systemctl start {UNIT}")
    assert "done." in machine.read_journal("-u", UNIT)
    assert machine.run("flchain-agent", "--help").returncode == 0
    assert machine.run("systemctl", "is-enabled", "flchain-provision.service").returncode == 0
    assert machine.run("test", "-e", "/var/lib/flchain-overlay", check=False).returncode != 0
