"""Roots and machines for the tests in this folder, and where they cannot run."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machines.chroot import Chroot, prepare
from tests.machines.nspawn import Machine, booted
from tools.images.programs import list_missing
from tools.images.roots import Root, make_root, unpack_root

PROGRAMS = ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter", "tar")
SYSTEM = ("ca-certificates", "python3", "systemd", "systemd-sysv", "dbus", "iproute2", "udev", "nftables", "procps")
"""What a board or a server has before anything of ours is installed."""

MakeRoot = Callable[..., Chroot]
Boot = Callable[..., Machine]


@pytest.fixture(scope="session", autouse=True)
def can_make_machines() -> None:
    """Skip, and say why, where there is no root or a program is missing."""
    missing = list_missing(PROGRAMS)
    if os.geteuid() != 0:
        missing = ("needs root: mounts, chroots, containers", *missing)
    if missing:
        pytest.skip("; ".join(missing))


@pytest.fixture(scope="module")
def new_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRoot]:
    """Return a function: release, architecture, more packages -> a fresh root, which is gone at the end."""
    with contextlib.ExitStack() as ends:

        def make(
            release: str, architecture: str = "amd64", packages: tuple[str, ...] = (), name: str = "machine"
        ) -> Chroot:
            tarball = make_root(Root(release, architecture, (*SYSTEM, *packages)))
            folder = tmp_path_factory.mktemp("root") / name
            ends.callback(shutil.rmtree, folder, ignore_errors=True)
            return prepare(unpack_root(tarball, folder), release, name)

        yield make


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boot]:
    """Return a function: a root -> the machine that has booted from it, which is off at the end."""
    with contextlib.ExitStack() as ends:

        def start(root: Chroot, *options: str) -> Machine:
            log: Path = tmp_path_factory.mktemp("console") / f"{root.folder.name}.log"
            return ends.enter_context(booted(root.folder, log, *options))

        yield start
