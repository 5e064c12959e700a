"""Recipes of images, the disk that is made of a root, and what is written into a maker's image: no root needed."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError
from tools.cli import main
from tools.images.disk.apply import apply_overlay, list_partitions
from tools.images.disk.check import list_faults
from tools.images.disk.layout import PROGRAMS, compute_layout, make_disk
from tools.images.disk.overlay import build_overlay
from tools.images.disk.publish import Edition, build_entry
from tools.images.disk.recipes import FILES, MB, list_boards, read_recipe
from tools.images.disk.sbom import build_sbom, list_packages
from tools.images.programs import list_missing

SEED = "0123456789abcdef" * 4
OS_RELEASE = 'PRETTY_NAME="Raspbian"\nVERSION_CODENAME=trixie\n'


def needs(*programs: str) -> None:
    """Skip where a program is not installed, and say which."""
    if missing := list_missing(programs):
        pytest.skip("; ".join(missing))


def make_root(folder: Path) -> Path:
    """The least that a disk can be made of."""
    root = folder / "root"
    for name in ("etc/systemd/system", "usr/lib", "boot/firmware/extlinux", "var/lib/systemd/timesync"):
        (root / name).mkdir(parents=True)
    for name in ("agent", "provision", "update"):
        (root / f"var/lib/flchain-{name}").mkdir(mode=0o700)
    (root / "usr/lib/os-release").write_text(OS_RELEASE)
    (root / "boot/firmware/extlinux/extlinux.conf").write_text("default flchain\n")
    return root


def make_image(folder: Path) -> Path:
    """A disk with a boot partition, a root and a data partition."""
    needs(*PROGRAMS)
    folder.mkdir(exist_ok=True)
    image = folder / "disk.img"
    make_disk(read_recipe("qemu-arm64"), make_root(folder), image, SEED)
    return image


def read_ext4(image: Path, start_bytes: int, command: str) -> str:
    """What debugfs says of an ext4 partition."""
    done = subprocess.run(
        ("debugfs", "-R", command, f"{image}?offset={start_bytes}"), capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("board", list_boards())
def test_every_recipe_is_whole(board: str) -> None:
    """A recipe names the board's models, and packages of our own releases of Debian."""
    recipe = read_recipe(board)
    assert recipe.models and recipe.packages and recipe.tried
    assert len(recipe.packages) == len(set(recipe.packages))
    assert recipe.firmware != "maker" or recipe.overlay_releases


def test_an_unknown_board_is_told_the_known_ones() -> None:
    """A board without a recipe is refused with the list of those that have one."""
    with pytest.raises(ConfigError, match="rpi4"):
        read_recipe("toaster")


def test_units_and_mounts_of_the_image_name_the_same_folders() -> None:
    """Everything that etc/fstab binds from the data partition is made there."""
    from tools.images.disk.base import MOUNT_POINTS
    from tools.images.disk.layout import DATA_FOLDERS

    binds = re.findall(
        r"^/var/lib/flchain-data/(\S+) /(\S+) none bind", (FILES / "etc/fstab").read_text(), re.MULTILINE
    )
    assert dict(binds) == DATA_FOLDERS
    assert {f"var/lib/{name}" for name in MOUNT_POINTS} == {*DATA_FOLDERS.values(), "var/lib/flchain-data"}


@pytest.mark.parametrize(
    "path", sorted(path for path in FILES.rglob("*") if path.is_file()), ids=lambda path: path.name
)
def test_scripts_of_the_image_are_scripts_that_sh_reads(path: Path) -> None:
    """Every file that begins as a script may be run, and sh finds no fault in it; no other may be run."""
    is_script = path.read_bytes().startswith(b"#!/bin/sh")
    assert is_script == bool(path.stat().st_mode & 0o100)
    if is_script:
        assert subprocess.run(("sh", "-n", path), capture_output=True, check=False).stderr == b""


def test_partitions_follow_each_other_and_leave_room() -> None:
    """The root has room for its files and the recipe's spare; each partition begins where the one before ends."""
    recipe = read_recipe("rpi4")
    layout = compute_layout(recipe, 500 * MB)
    assert layout.root.start_bytes == layout.boot.start_bytes + layout.boot.size_bytes
    assert layout.data.start_bytes == layout.root.start_bytes + layout.root.size_bytes
    assert layout.disk_bytes == layout.data.start_bytes + layout.data.size_bytes
    assert layout.root.size_bytes >= (500 + recipe.sizes.root_spare_mb) * MB
    assert all(part.start_bytes % (4 * MB) == 0 for part in (layout.boot, layout.root, layout.data))


def test_a_disk_holds_three_partitions_that_can_be_read(tmp_path: Path) -> None:
    """The boot files are on FAT, the root without them and the data folders on ext4, and fsck finds no fault."""
    image = make_image(tmp_path)
    boot, root, data = list_partitions(image)
    listed = subprocess.run(
        ("mtype", "-i", f"{image}@@{boot.start_bytes}", "::extlinux/extlinux.conf"), capture_output=True, check=True
    )
    assert listed.stdout == b"default flchain\n"
    assert read_ext4(image, root.start_bytes, "cat /usr/lib/os-release") == OS_RELEASE
    assert "extlinux" not in read_ext4(image, root.start_bytes, "ls /boot/firmware")
    assert "Mode:  0700" in read_ext4(image, data.start_bytes, "stat /agent")
    for part in (root, data):
        piece = tmp_path / "piece"
        with image.open("rb") as source, piece.open("wb") as target:
            source.seek(part.start_bytes)
            target.write(source.read(part.size_bytes))
        assert subprocess.run(("e2fsck", "-fn", str(piece)), capture_output=True, check=False).returncode == 0


def test_one_content_gives_one_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identifiers of the disk and its file systems follow from the seed."""
    first, second = make_image(tmp_path / "1"), make_image(tmp_path / "2")
    tables = [
        subprocess.run(("sfdisk", "--disk-id", str(image)), capture_output=True, check=True).stdout
        for image in (first, second)
    ]
    assert tables[0] == tables[1] == f"0x{SEED[:8]}\n".encode()
    uuids = [
        re.findall(r"UUID: *(\S+)", read_ext4(image, list_partitions(image)[1].start_bytes, "stats"))
        for image in (first, second)
    ]
    assert uuids[0] == uuids[1] != []


def make_archive(folder: Path, releases: tuple[str, ...] = ("trixie", "bookworm")) -> Path:
    """An overlay archive of a board; its packages are empty files."""
    packages = {}
    for release in releases:
        packages[release] = folder / f"flchain-agent_1+{release}_arm64.deb"
        packages[release].write_bytes(release.encode())
    archive = folder / "overlay.tar.gz"
    build_overlay(read_recipe("rpi4"), packages, archive, 1_700_000_000)
    return archive


def test_an_overlay_is_put_into_an_image_file(tmp_path: Path) -> None:
    """Packages of the image's own release, script, unit and its link are in the root; the provisioning file on FAT."""
    image = make_image(tmp_path)
    needs("debugfs")
    provision = tmp_path / "flchain.toml"
    provision.write_text('name = "north"\n')
    boot, root, _ = list_partitions(image)
    applied = apply_overlay(make_archive(tmp_path), image, provision)
    assert (applied.release, applied.root, applied.boot) == ("trixie", root, boot)
    place = "/var/lib/flchain-overlay"
    assert (
        read_ext4(image, root.start_bytes, f"cat {place}/packages/trixie/flchain-agent_1+trixie_arm64.deb") == "trixie"
    )
    assert "bookworm" not in read_ext4(image, root.start_bytes, f"ls {place}/packages")
    assert "Mode:  0755" in read_ext4(image, root.start_bytes, f"stat {place}/install.sh")
    link = read_ext4(
        image, root.start_bytes, "stat /etc/systemd/system/multi-user.target.wants/flchain-overlay.service"
    )
    assert "/etc/systemd/system/flchain-overlay.service" in link
    written = subprocess.run(
        ("mtype", "-i", f"{image}@@{boot.start_bytes}", "::flchain.toml"), capture_output=True, check=True
    )
    assert written.stdout == provision.read_bytes()
    again = apply_overlay(make_archive(tmp_path), image)
    assert again.release == "trixie", "a second time does no harm"


def test_an_image_of_another_release_is_left_alone(tmp_path: Path) -> None:
    """An overlay without a package for the image's release says which it has, and changes nothing."""
    image = make_image(tmp_path)
    needs("debugfs")
    before = image.read_bytes()
    with pytest.raises(ConfigError, match=r"'trixie', but .* has bookworm"):
        apply_overlay(make_archive(tmp_path, ("bookworm",)), image)
    assert image.read_bytes() == before


def test_what_is_no_image_or_no_archive_is_said_so(tmp_path: Path) -> None:
    """A packed image, a damaged archive and a hostile one are refused in words."""
    needs("debugfs", "sfdisk", "mcopy")
    packed = tmp_path / "raspios.img.xz"
    packed.write_bytes(b"\xfd7zXZ" + bytes(2048))
    with pytest.raises(ConfigError, match="Unpack it first"):
        apply_overlay(make_archive(tmp_path), packed)
    image = make_image(tmp_path / "image")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(make_archive(tmp_path).read_bytes()[:-200])
    hostile = tmp_path / "hostile.tar.gz"
    with tarfile.open(hostile, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("flchain-overlay/../../escaped"))
    for archive in (cut, hostile, packed):
        with pytest.raises(ConfigError, match="overlay archive"):
            apply_overlay(archive, image)
    assert not (tmp_path / "escaped").exists()


def test_an_overlay_is_the_same_archive_every_time(tmp_path: Path) -> None:
    """Two archives of the same packages differ in nothing but gzip's own time."""
    first = gzip.decompress(make_archive(tmp_path).read_bytes())
    assert gzip.decompress(make_archive(tmp_path).read_bytes()) == first


def test_a_damaged_image_is_told_by_its_sums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole image passes; one flipped bit, a missing file of sums, and sums of another image are each named."""
    image = tmp_path / "flchain-rpi4.img.xz"
    image.write_bytes(os.urandom(3 * MB))
    sums = tmp_path / "flchain-rpi4.img.sha256"
    assert "no file of sums" in list_faults(image)[0]
    sums.write_text("00  other.img\n")
    assert "does not name" in list_faults(image)[0]
    summed = subprocess.run(("sha256sum", image.name), cwd=tmp_path, capture_output=True, text=True, check=True)
    sums.write_text(summed.stdout)
    assert list_faults(image) == []
    assert main(["image", "check", str(image)]) == 0
    raw = bytearray(image.read_bytes())
    raw[1_000_000] ^= 1
    image.write_bytes(raw)
    assert main(["image", "check", str(image)]) == 1
    assert "damaged" in capsys.readouterr().err


STATUS = """Package: libc6
Status: install ok installed
Architecture: arm64
Version: 2.41-12

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1

Package: flchain-agent
Status: install ok installed
Architecture: arm64
Version: 0.1.0+deb13
Description: words
 Package: not a field
"""


def test_the_parts_list_names_installed_packages_and_what_ours_bring() -> None:
    """A removed package is not listed; the agent's wheels are parts of its package."""
    assert [fields["Package"] for fields in list_packages(STATUS)] == ["libc6", "flchain-agent"]
    bundled = {"flchain-agent": json.dumps({"components": [{"bom-ref": "numpy", "name": "numpy"}]})}
    document = json.loads(build_sbom("flchain-rpi4", "0.1.0", "trixie", STATUS, bundled))
    names = {part["name"]: part for part in document["components"]}
    assert set(names) == {"libc6", "flchain-agent"}
    assert [part["name"] for part in names["flchain-agent"]["components"]] == ["numpy"]
    references = [part["bom-ref"] for part in document["components"]]
    assert len(set(references)) == len(references)


def test_the_imager_is_told_sizes_sums_and_boards() -> None:
    """An image's entry says that it takes no settings of the Imager's own, and for which boards it is."""
    entry = build_entry(
        read_recipe("rpi5"), Edition("0.1.0", "2026-11-30"), url="x.img.xz", image=(5, "aa"), packed=(3, "bb")
    )
    assert entry["init_format"] == "none"
    assert entry["devices"] == ["pi5-64bit"]
    assert (entry["extract_size"], entry["extract_sha256"], entry["image_download_size"]) == (5, "aa", 3)


def test_a_build_needs_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the agent's package for the image's release the command says how to make one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["image", "build", "rpi4"]) == 78
    assert "make debs" in capsys.readouterr().err
    assert main(["image", "build", "jetson-orin-nano"]) == 78
    assert "image overlay jetson-orin-nano" in capsys.readouterr().err
