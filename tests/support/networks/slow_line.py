"""A slow, lossy line to a network namespace of its own: what runs in there has 64 kbit/s each way and loses packets.

Real shaping by the kernel (tc's token bucket, nft's random drops), in namespaces that the test makes and removes. Where
that is not allowed the test is skipped and says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

LOSS_PERCENT = 2


@dataclass(frozen=True)
class SlowLine:
    """`host` is this side's address, as those inside see it."""

    host: str
    inside: tuple[str, ...]
    """Put before a command, this runs it at the far end."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def slow_line(rate_kbit: int = 64, loss_percent: int = LOSS_PERCENT) -> Iterator[SlowLine]:
    """A line for the block; the test is skipped if this machine does not let us make one."""
    if not all(map(shutil.which, ("ip", "tc", "nft"))):
        pytest.skip("no network namespaces: ip, tc and nft are not all installed")
    name = f"flc{os.getpid() % 100_000}"
    near, far, net = f"{name}a", f"{name}b", f"10.213.{os.getpid() % 250}"
    try:
        try:
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        except OSError as error:
            pytest.skip(f"no network namespaces: {error}")
        inside = ("ip", "netns", "exec", name)
        _run("ip", "address", "add", f"{net}.1/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run(*inside, "ip", "address", "add", f"{net}.2/30", "dev", far)
        _run(*inside, "ip", "link", "set", far, "up")
        _run(*inside, "ip", "link", "set", "lo", "up")
        shape = ("root", "tbf", "rate", f"{rate_kbit}kbit", "burst", "2kb", "latency", "1500ms")
        _run("tc", "qdisc", "add", "dev", near, *shape)
        _run(*inside, "tc", "qdisc", "add", "dev", far, *shape)
        _run(*inside, "nft", "add", "table", "inet", "line")
        for hook in ("input", "output"):
            chain = f"{{ type filter hook {hook} priority 0; }}"
            _run(*inside, "nft", "add", "chain", "inet", "line", hook, chain)
            rule = ("numgen", "random", "mod", "100", "<", str(loss_percent), "drop")
            _run(*inside, "nft", "add", "rule", "inet", "line", hook, *rule)
        yield SlowLine(f"{net}.1", inside)
    finally:
        subprocess.run(("ip", "netns", "delete", name), capture_output=True, check=False)  # the pair goes with it
        subprocess.run(("ip", "link", "delete", near), capture_output=True, check=False)
