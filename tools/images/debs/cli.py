"""Build Debian packages from a clone: no root, no emulation, one file for one commit and version.

examples:
  make debs                                                  agent, miner, tools for bookworm and trixie, amd64, arm64
  make debs ARGS="--package flchain-agent --release trixie --architecture arm64"
  make debs VERSION=0.2.0 ARGS="--package flchain-agent --out /tmp/debs"
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from flchain.base.errors import ConfigError, FlchainError
from flchain_edge.process.command_line import EXIT_CONFIG, EXIT_FAULT, CommandParser, run_program
from tools.images.debs.archive import install_data, pack, write_control
from tools.images.debs.environment import build_environment, build_wheel
from tools.images.debs.papers import write_papers
from tools.images.debs.plan import Package, read_contents
from tools.images.debs.source import Source, copy_source
from tools.images.programs import require_programs
from tools.images.suites import MACHINES, SUITES

REPOSITORY = Path(__file__).resolve().parents[3]
OUT = Path("build") / "debs"


@dataclass(frozen=True)
class Order:
    """What is to be built; no names mean every package."""

    names: tuple[str, ...]
    releases: tuple[str, ...]
    architectures: tuple[str, ...]
    version: str | None
    out: Path
    is_quick: bool = False


def build_packages(order: Order) -> list[Path]:
    """Build every package for every release and architecture named; the files. Raises ConfigError and ToolError."""
    require_programs("dpkg-deb", "git", "uv", "cyclonedx-py")
    built: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="flchain-debs-") as name:
        scratch = Path(name)
        source = copy_source(REPOSITORY, scratch / "source", order.version)
        contents = read_contents(source.folder)
        if unknown := [wanted for wanted in order.names if wanted not in contents]:
            raise ConfigError(
                tuple(f"package {wanted}: unknown; known are {', '.join(contents)}" for wanted in unknown)
            )
        wheel = build_wheel(source, scratch / "wheel")
        for release, architecture, wanted in product(order.releases, order.architectures, order.names or contents):
            begin = time.monotonic()
            package = Package(wanted, contents[wanted], source.version, SUITES[release], architecture)
            root = scratch / f"{len(built)}"
            fill_root(package, source, wheel, root)
            built.append(pack(root, source.epoch_s, order.out / package.file_name, is_quick=order.is_quick))
            _report(built[-1], time.monotonic() - begin)
    return built


def fill_root(package: Package, source: Source, wheel: Path, root: Path) -> None:
    """Lay out everything that one package holds."""
    site = build_environment(package, source, wheel, root)
    install_data(package, source, root)
    write_papers(package, source, site, root)
    write_control(package, source, root)


def _report(path: Path, took_s: float) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB  sha256 {digest[:16]}  {took_s:.0f} s", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `make debs`."""
    debian = [suite.name for suite in SUITES.values() if suite.is_debian]
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = CommandParser(prog="make debs", description=description, epilog=examples)
    parser.add_argument("--package", action="append", default=[], metavar="NAME", help="default: all; repeatable")
    parser.add_argument("--release", action="append", default=[], choices=SUITES, help=f"default: {', '.join(debian)}")
    parser.add_argument("--architecture", action="append", default=[], choices=MACHINES, help="default: all")
    parser.add_argument("--version", metavar="VERSION", help="another version than pyproject.toml's")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="pack in seconds, half as large again")
    arguments = parser.parse_args(argv)
    order = Order(
        tuple(arguments.package),
        tuple(arguments.release or debian),
        tuple(arguments.architecture or MACHINES),
        arguments.version or None,
        arguments.out,
        arguments.quick,
    )
    return run_program(lambda: _act(order))


def _act(order: Order) -> int:
    try:
        build_packages(order)
    except FlchainError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAULT
    return 0


if __name__ == "__main__":
    sys.exit(main())
