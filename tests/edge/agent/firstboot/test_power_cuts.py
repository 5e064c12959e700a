"""Power cuts while a board is provisioned: at every call that changes the disk, in every pass that it goes through."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.firstboot.places import Places
from agent.firstboot.programs import NoPrograms
from agent.firstboot.provision import boot
from tests.support.cut_calls import PowerCut, cut_before

SECRET = "s" * 22
TOKEN = f"flchain1/registrar.lan:8443/{'F' * 43}/{SECRET}"
FORM = f"""\
name = "north-3"
examples = "examples.npz"
[registrar]
token = "{TOKEN}"
[network.wifi]
ssid = "field"
password = "correct horse"
[tasks]
follow = "light"
"""
AGENT = (
    'genesis = "genesis.cbor"\nmodel = "model.tflite"\nexamples = "e.npz"\ndata_dir = "data"\n[key]\nfile = "key.pem"\n'
)
CALLS_MAX = 400


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened before a cut is on the disk here in any case; waiting for a real one proves nothing."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def make_new(root: Path) -> None:
    """A flashed card with a provisioning file."""
    for folder in ("boot/firmware", "etc", "usr/sbin", "var/lib", "run"):
        (root / folder).mkdir(parents=True)
    (root / "usr/sbin/NetworkManager").touch()
    (root / "boot/firmware/flchain.toml").write_text(FORM)
    (root / "boot/firmware/examples.npz").write_bytes(b"npz")


def make_enrolled(root: Path) -> None:
    """The same, and it has just enrolled: the token has done its work."""
    make_new(root)
    boot(Places(root), NoPrograms())
    (root / "var/lib/flchain-agent/agent.toml").write_text(AGENT)


def make_changed(root: Path) -> None:
    """The same, later, with a changed file on the card."""
    make_enrolled(root)
    boot(Places(root), NoPrograms())
    path = root / "boot/firmware/flchain.toml"
    path.write_text(path.read_text().replace('"light"', '"full"').replace('"field"', '"station"'))


def make_reset(root: Path) -> None:
    """The same, with a file that asks for a reset."""
    make_changed(root)
    (root / "boot/firmware/flchain-reset").touch()


def make_reset_with_token(root: Path) -> None:
    """The same, with a new provisioning file for the time after the reset."""
    make_reset(root)
    (root / "boot/firmware/flchain.toml").write_text(FORM.replace("north-3", "south-1"))


def read_disk(root: Path) -> dict[str, bytes]:
    """All files but those in memory, which no boot finds again."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {name: path.read_bytes() for path in files if not (name := str(path.relative_to(root))).startswith("run/")}


def is_usable(root: Path) -> None:
    """The board can go on: it has its token as long as it needs it, and no file is half written."""
    places = Places(root)
    path = root / "boot/firmware/flchain.toml"
    if path.exists() and not places.agent_config.exists() and not path.with_name("flchain-reset").exists():
        assert TOKEN in path.read_text()
    for path in (places.settings, places.token, places.agent / "examples.npz", places.provisioned):
        assert not path.exists() or path.read_bytes(), path
    if places.token.exists() and not places.agent_config.exists():
        assert places.token.read_text() == TOKEN


@pytest.mark.parametrize("make", [make_new, make_enrolled, make_changed, make_reset, make_reset_with_token])
def test_the_next_boot_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """Wherever the power is cut, the board can go on, and the next boot ends where an undisturbed one does."""
    start = tmp_path / "start"
    make(start)
    calm = tmp_path / "calm"
    shutil.copytree(start, calm, symlinks=True)
    boot(Places(calm), NoPrograms())
    expected = read_disk(calm)
    for count in range(CALLS_MAX):
        root = tmp_path / "cut"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(start, root, symlinks=True)
        try:
            with cut_before(count, monkeypatch):
                boot(Places(root), NoPrograms())
        except PowerCut:
            pass
        else:
            break
        shutil.rmtree(root / "run")
        (root / "run").mkdir()
        is_usable(root)
        outcome, _ = boot(Places(root), NoPrograms())
        assert not outcome.problems and read_disk(root) == expected, f"cut before call {count}"
    assert 10 < count < CALLS_MAX - 1


def test_nothing_of_the_token_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut at every call of the first boot, then enrolment: the next boot leaves the secret nowhere."""
    for count in range(0, 60):
        root = tmp_path / str(count)
        make_new(root)
        try:
            with cut_before(count, monkeypatch):
                boot(Places(root), NoPrograms())
        except PowerCut:
            pass
        boot(Places(root), NoPrograms())
        (root / "var/lib/flchain-agent/agent.toml").write_text(AGENT)
        boot(Places(root), NoPrograms())
        for name, content in read_disk(root).items():
            assert not re.search(rb"s{4,}", content), (count, name)
