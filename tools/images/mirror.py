"""Where Debian packages come from: the archive that this machine's own apt uses. No address is written down here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flchain.base.errors import ConfigError

APT = Path("/etc/apt")
MIRROR_VARIABLE = "FLCHAIN_DEBIAN_MIRROR"
SECURITY_VARIABLE = "FLCHAIN_DEBIAN_SECURITY_MIRROR"
DEBIAN_RELEASES = frozenset({"bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing"})


@dataclass(frozen=True)
class Source:
    """One source of apt's: addresses of archives, and what is taken from each."""

    addresses: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]


@dataclass(frozen=True)
class Mirror:
    """Addresses of Debian's archive and, where there is one, of its security archive."""

    archive: str
    security: str | None


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the sources of a `.list` file; comments, options and `deb-src` are left out."""
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words[:1] != ["deb"]:
            continue
        if words[1:] and words[1].startswith("["):
            end = next((index for index, word in enumerate(words) if word.endswith("]")), len(words))
            words = [words[0], *words[end + 1 :]]
        if len(words) >= 3:
            yield Source((words[1],), (words[2],), tuple(words[3:]))


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the enabled sources of a `.sources` file."""
    for paragraph in text.split("\n\n"):
        fields = _read_fields(paragraph)
        is_enabled = fields.get("enabled", ["yes"]) not in (["no"], ["false"])
        if "deb" in fields.get("types", []) and is_enabled:
            yield Source(
                tuple(fields.get("uris", [])), tuple(fields.get("suites", [])), tuple(fields.get("components", []))
            )


def _read_fields(paragraph: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    words: list[str] = []
    for line in paragraph.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            words.extend(line.split())
        else:
            name, _, value = line.partition(":")
            words = fields.setdefault(name.strip().lower(), value.split())
    return fields


def choose_mirror(sources: Iterator[Source]) -> Mirror | None:
    """Return the first archive that serves a Debian release, or None."""
    archive = security = None
    for source in sources:
        if "main" not in source.components:
            continue
        for suite in source.suites:
            if suite in DEBIAN_RELEASES:
                archive = archive or source.addresses[0]
            if suite.removesuffix("-security") in DEBIAN_RELEASES and suite.endswith("-security"):
                security = security or source.addresses[0]
    return None if archive is None else Mirror(archive, security)


def read_mirror(apt: Path = APT) -> Mirror:
    """Return the mirror in the environment, otherwise that of this machine's apt. Raises ConfigError without one."""
    if named := os.environ.get(MIRROR_VARIABLE):
        return Mirror(named, os.environ.get(SECURITY_VARIABLE))
    if (found := choose_mirror(_read_sources(apt))) is None:
        raise ConfigError((f"{apt}: names no archive of Debian; name one: {MIRROR_VARIABLE}=<address>",))
    return found


def _read_sources(apt: Path) -> Iterator[Source]:
    for path in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))):
        if path.suffix == ".list" and path.is_file():
            yield from parse_one_line(path.read_text("utf-8"))
        elif path.suffix == ".sources" and path.is_file():
            yield from parse_deb822(path.read_text("utf-8"))


def list_lines(mirror: Mirror, release: str) -> tuple[str, ...]:
    """Return the lines of a sources.list for a release, with its security updates."""
    lines = [f"deb {mirror.archive} {release} main"]
    if mirror.security is not None:
        lines.append(f"deb {mirror.security} {release}-security main")
    return tuple(lines)
