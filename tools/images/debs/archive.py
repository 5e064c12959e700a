"""The .deb itself: control data and scripts from the templates in `firmware_config/debian`, packed by dpkg-deb."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tools.images.debs.papers import MAINTAINER
from tools.images.debs.plan import DATA, Package, list_installed
from tools.images.debs.source import Source
from tools.images.programs import run_tool

BEST, QUICK = ("-Zxz", "-z6"), ("-Zgzip", "-z1")
SCRIPTS = ("postinst", "prerm", "postrm")
CONTROL = """Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size_kib}
Depends: {depends}
{recommends}Section: science
Priority: optional
Description: {summary}
{description}
"""


def install_data(package: Package, source: Source, root: Path) -> None:
    """Copy units, users, settings and overrides to where a package has them, and link the commands."""
    for path, target in list_installed(source.folder, package.name):
        destination = root / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination)
    overrides = root / "usr" / "share" / "lintian" / "overrides" / package.name
    overrides.parent.mkdir(parents=True)
    shutil.copyfile(source.folder / DATA / "lintian-overrides", overrides)
    overrides.write_text(overrides.read_text("utf-8").replace("@PACKAGE@", package.name), "utf-8")
    programs = root / "usr" / "bin"
    programs.mkdir(parents=True)
    for command in package.content.commands:
        (programs / command).symlink_to(f"{package.prefix}/bin/{command}")


def write_control(package: Package, source: Source, root: Path) -> None:
    """Write the folder DEBIAN: control, checksums, conffiles, scripts."""
    control = root / "DEBIAN"
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    control.mkdir()
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files)
    (control / "md5sums").write_text("".join(sums))
    settings = [f"/{path.relative_to(root)}\n" for path in files if path.relative_to(root).parts[0] == "etc"]
    if settings:
        (control / "conffiles").write_text("".join(settings))
    (control / "control").write_text(_build_control(package, files), "utf-8")
    words = {
        "PACKAGE": package.name,
        "PREFIX": package.prefix,
        "USER": package.content.user,
        "UNITS": " ".join(package.content.units),
        "INSTALLERS": " ".join(package.content.own_installers),
        "FOLDERS": " ".join(package.content.folders),
        "KEPT": " ".join(package.content.kept),
    }
    for name in SCRIPTS:
        text = (source.folder / DATA / f"{name}.in").read_text("utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        (control / name).write_text(text, "utf-8")
        (control / name).chmod(0o755)


def _build_control(package: Package, files: list[Path]) -> str:
    suite = package.suite
    depends = (
        f"python3 (>= {suite.python})", f"python3 (<< {suite.python_next})", "systemd", "libc6 (>= 2.34)",
        "libstdc++6", "libgcc-s1",
    )  # fmt: skip
    recommends = package.content.recommends
    return CONTROL.format(
        name=package.name,
        version=package.debian_version,
        architecture=package.architecture,
        maintainer=MAINTAINER,
        size_kib=sum(-(-path.stat().st_size // 1024) for path in files),
        depends=", ".join(depends),
        recommends=f"Recommends: {', '.join(recommends)}\n" if recommends else "",
        summary=package.content.summary,
        description="\n".join(f" {line}" for line in package.content.description),
    )


def pack(root: Path, epoch_s: int, out: Path, *, is_quick: bool) -> Path:
    """Pack the tree: one owner, plain modes, one time, sorted; so that the same content is the same file."""
    for path in (root, *sorted(root.rglob("*"))):
        if not path.is_symlink():
            is_program = path.is_dir() or (path.stat().st_mode & 0o100 and ".so" not in path.name)
            path.chmod(0o755 if is_program else 0o644)
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".part")
    run_tool(
        ("dpkg-deb", "--root-owner-group", *(QUICK if is_quick else BEST), "--build", str(root), str(unfinished)),
        env={"SOURCE_DATE_EPOCH": str(epoch_s), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
    )
    unfinished.replace(out)
    return out
