"""A package's Python environment, made for another release and architecture without running a byte of it.

uv chooses and checks the locked wheels for the target and unpacks them; what the program does not import is removed.
The environment is complete at its final path: `bin/python3` leads to the release's own interpreter.
"""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from flchain.base.errors import ConfigError
from tools.images.debs.plan import DATA, Package
from tools.images.debs.source import Source
from tools.images.programs import run_tool

UV_TIMEOUT_S = 1800.0
PRUNE = "prune.txt"
KEPT_METADATA = ("METADATA", "RECORD", "entry_points.txt")
"""Of a distribution's own records, beside its licences. The rest says how it came here."""
LAUNCHER = """#!{prefix}/bin/python3
import sys

from {module} import {function}

sys.exit({function}())
"""
SETTINGS = """home = /usr/bin
include-system-site-packages = false
version = {python}
"""


def build_environment(package: Package, source: Source, wheel: Path, root: Path) -> Path:
    """Build the environment below `root`; its site-packages."""
    prefix = root / package.prefix.lstrip("/")
    site = prefix / "lib" / f"python{package.suite.python}" / "site-packages"
    _install_wheels(package, source.folder / "requirements", site)
    _unpack_rooms(package, wheel, site)
    prune(site, read_prune_list(source.folder / DATA / PRUNE))
    _clean_metadata(site)
    (prefix / "pyvenv.cfg").write_text(SETTINGS.format(python=package.suite.python))
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(f"/usr/bin/python{package.suite.python}")
    for command in package.content.commands:
        module, _, function = source.scripts[command].partition(":")
        path = prefix / "bin" / command
        path.write_text(LAUNCHER.format(prefix=package.prefix, module=module, function=function))
        path.chmod(0o755)
    return site


def build_wheel(source: Source, out: Path) -> Path:
    """Build this repository's own wheel with the build tools of the environment that runs this."""
    command = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps")
    run_tool(
        (*command, "--no-build-isolation", "--no-index", "--wheel-dir", str(out), "."),
        cwd=source.folder,
        env={"SOURCE_DATE_EPOCH": str(source.epoch_s)},
    )
    return next(out.glob("flchain-*.whl"))


def _install_wheels(package: Package, requirements: Path, site: Path) -> None:
    """Only what the locks name, with its hashes; copied, since uv's cache shares files that we shall touch."""
    run_tool(
        (
            "uv", "--no-config", "pip", "install", "--quiet", "--target", str(site), "--link-mode", "copy",
            "--python-version", package.suite.python, "--python-platform", package.platform,
            "--only-binary", ":all:", "--no-deps", "--require-hashes",
            *(f"--requirement={requirements / lock}" for lock in package.content.locks),
        ),
        timeout_s=UV_TIMEOUT_S,
    )  # fmt: skip


def _unpack_rooms(package: Package, wheel: Path, site: Path) -> None:
    """Take from our wheel the rooms that this package needs, and the record of what it is."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            top = member.filename.split("/")[0]
            if top in package.content.rooms or top.endswith(".dist-info"):
                archive.extract(member, site)


def read_prune_list(path: Path) -> list[str]:
    """Return the patterns of what no program of ours imports; each line after `#` says why."""
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def prune(site: Path, patterns: list[str]) -> None:
    """Remove what the patterns match. One that matches nothing in any suite would be noticed by the sizes' test."""
    for pattern in patterns:
        for path in sorted(site.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if (commands := site / "bin").is_dir() and not any(commands.iterdir()):
        commands.rmdir()


def _clean_metadata(site: Path) -> None:
    for folder in site.glob("*.dist-info"):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in KEPT_METADATA and not is_licence(path.name):
                path.unlink()
        record = folder / "RECORD"
        if record.exists():
            record.write_text("".join(f"{line}\n" for line in _list_existing(site, record.read_text("utf-8"))))


def _list_existing(site: Path, record: str) -> Iterator[str]:
    """Keep the lines of files that are still there, so that the record does not lie."""
    for line in sorted(record.splitlines()):
        name = line.rsplit(",", 2)[0].strip('"')
        if (site / name).exists() and not name.endswith("RECORD"):
            yield line


def is_licence(name: str) -> bool:
    """Whether a file's name says that it holds a licence or a notice."""
    return re.match(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", name, re.IGNORECASE) is not None


def list_licences(site: Path) -> list[tuple[str, str, str, list[Path]]]:
    """Return name, version, stated licence and the licence's files of every distribution. Raises ConfigError.

    A distribution that neither states a licence nor holds one may not be passed on.
    """
    found, problems = [], []
    for folder in sorted(site.glob("*.dist-info"), key=lambda path: path.name.lower()):
        fields = HeaderParser().parsestr((folder / "METADATA").read_text("utf-8"))
        stated = fields["License-Expression"] or _name_licence(
            fields["License"] or "", fields.get_all("Classifier", [])
        )
        files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_licence_file(folder, path))
        if not stated and not files:
            problems.append(f"{fields['Name']} {fields['Version']}: no licence is stated")
        found.append((str(fields["Name"]), str(fields["Version"]), stated or "see the files", files))
    if problems:
        raise ConfigError(tuple(problems))
    return found


def _is_licence_file(folder: Path, path: Path) -> bool:
    return is_licence(path.name) or path.relative_to(folder).parts[0] == "licenses"


def _name_licence(text: str, classifiers: list[str]) -> str:
    """A field that quotes a whole licence names none; then the classifiers do."""
    if text and len(text) < 60 and "\n" not in text:
        return text
    return " AND ".join(sorted({line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")}))
