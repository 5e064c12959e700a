"""Nothing committed points at a place on the network or on somebody's machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Joined here so that this file does not hold what it looks for.
_SCHEME = ":" + "//"
_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("debian", "org"),
        ("github", "com"),
        ("githubusercontent", "com"),
        ("docker", "io"),
    )
)
_MACHINE_PATHS = re.compile(r"(?<![\w.~\-}>])/(?:" + "|".join(("work", "root", "home")) + r")(?=/|\b)")

# The licence is quoted in full, so it keeps its publisher's address.
_WHOLE_FILES_ALLOWED = {"LICENSE"}
# Addresses that are names, not places: identifiers of schemas, and whatever listens on this very machine.
_NAMES_ALLOWED = (
    "http" + _SCHEME + "json-schema.org/",
    "http" + _SCHEME + "www.w3.org/",
    _SCHEME + "127.0.0.1",
    _SCHEME + "localhost",
    _SCHEME + "{",
)


def find_faults(text: str) -> list[str]:
    """Each line of `text` that holds a download address, a registry host or a path of one machine."""
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line
        for name in _NAMES_ALLOWED:
            bare = bare.replace(name, "")
        if _SCHEME in bare or any(host in bare for host in _HOSTS) or _MACHINE_PATHS.search(bare):
            faults.append(f"line {number}: {line.strip()[:120]}")
    return faults


def list_committed_files() -> list[Path]:
    """Every file git knows of (committed or staged); the test has no meaning outside a clone."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone: run this test in one")
    return [ROOT / name for name in listing.decode().split("\0") if name]


def test_no_committed_file_holds_an_address_or_a_machine_path() -> None:
    """A clone works from any mirror and on any machine, because no committed text names one."""
    faults = []
    for path in list_committed_files():
        if path.name in _WHOLE_FILES_ALLOWED or not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" in content:
            continue  # a model or a picture, not text
        text = content.decode("utf-8", errors="replace")
        faults += [f"{path.relative_to(ROOT)} {fault}" for fault in find_faults(text)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        "see https" + _SCHEME + "example.net/wheel.whl",
        "--index-url " + "pypi" + ".org/simple",
        "open('/" + "work/main/data')",
        "/" + "root/.cache",
        "cd /" + "home/pi",
    ],
)
def test_the_check_finds_an_address(line: str) -> None:
    """The check above can fail: it sees addresses, registry hosts and machine paths."""
    assert find_faults(line)


@pytest.mark.parametrize(
    "line", ["mqtt" + _SCHEME + "127.0.0.1:1883", "state/" + "root", "sysfs_root/" + "home", "a // b"]
)
def test_the_check_leaves_ordinary_text_alone(line: str) -> None:
    """Loopback addresses and words inside longer paths are no faults."""
    assert not find_faults(line)
