"""A network of containers: each has an address of its own, and they know each other by name.

The switch is a bridge in a network namespace of its own, so that nothing of the host's network changes.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.machines.chroot import run_checked
from tests.machines.nspawn import Machine

SUBNET = "10.91.0"
INTERFACE = "lan0"


class Network:
    """The switch, and who is on it."""

    def __init__(self, holder: int) -> None:
        self._holder = str(holder)
        self._inside = ("nsenter", "--target", self._holder, "--net")
        _run(*self._inside, "ip", "link", "add", "switch", "type", "bridge")
        _run(*self._inside, "ip", "link", "set", "switch", "up")
        self.addresses: dict[str, str] = {}
        self._ports = 0

    def name(self, *names: str) -> None:
        """Give each name an address."""
        for name in names:
            self.addresses[name] = f"{SUBNET}.{len(self.addresses) + 10}"

    def write_hosts(self, folder: Path) -> None:
        """Let a root know all names."""
        hosts = folder / "etc" / "hosts"
        lines = "".join(f"{address} {name}\n" for name, address in self.addresses.items())
        hosts.write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost\n" + lines)

    def plug_in(self, machine: Machine, name: str) -> None:
        """Connect a machine that has booted; after each boot again."""
        self._ports += 1
        port, target = f"port{self._ports}", str(machine.leader)
        _run(*self._inside, "ip", "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", target)
        _run(*self._inside, "ip", "link", "set", port, "master", "switch", "up")
        address = f"{self.addresses[name]}/24"
        machine.shell(f"ip link set lo up; ip address add {address} dev {INTERFACE}; ip link set {INTERFACE} up")


@contextlib.contextmanager
def switched() -> Iterator[Network]:
    """A switch; it is gone at the end."""
    command = ("unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "ready\n", "no network namespace"
            yield Network(holder.pid)
        finally:
            holder.kill()


def _run(*command: str) -> None:
    run_checked(command, check=True, text=None, timeout_s=30)
