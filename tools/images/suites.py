"""The releases that packages are made for: their Python, their C library, and how their packages are told apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """One release of Debian or Ubuntu."""

    name: str
    python: str
    glibc: str
    """As wheels name it: the newest whose wheels run there (that the resolver knows of)."""
    mark: str
    """What its packages' versions end with: a newer release's sorts behind an older one's."""
    is_debian: bool = True
    """Whether roots of it can be made here, and its packages are tested in one."""

    @property
    def python_next(self) -> str:
        """Return the first Python that its packages do not run on."""
        major, minor = self.python.split(".")
        return f"{major}.{int(minor) + 1}"


SUITES = {
    suite.name: suite
    for suite in (
        Suite("bookworm", "3.11", "2_36", "deb12"),
        Suite("trixie", "3.13", "2_40", "deb13"),
        # Jetson's: no archive of Ubuntu is at hand where this was written, so they are built and looked at only
        Suite("jammy", "3.10", "2_35", "ubuntu22.04", is_debian=False),
        Suite("noble", "3.12", "2_39", "ubuntu24.04", is_debian=False),
    )
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""By Debian's name of an architecture: the kernel's, which wheels use."""
