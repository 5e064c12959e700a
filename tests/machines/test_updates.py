"""Updates of a board under a real systemd and a real dpkg: good ones, bad ones, forged ones, and cut ones."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from tests.machines import board_updates as updates
from tests.machines import field_network as network
from tests.machines.conftest import Boot, MakeRoot
from tests.machines.nspawn import Machine
from tools.images.debs.cli import Order, build_packages
from tools.images.programs import list_missing

NAMES = ("flchain-agent", "flchain-miner", "flchain-tools")
CUTS = 8
SEED = 20_261_130
FIRST_SEQUENCE = 1_000
"""Above those of the rollouts in these tests."""


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    if missing := list_missing(("uv", "cyclonedx-py", "dpkg-deb")):
        pytest.skip("; ".join(missing) + " (make test-debs)")
    out = tmp_path_factory.mktemp("debs")
    return build_packages(Order(NAMES, ("bookworm",), ("amd64",), "0.1.0", out, is_quick=True))


@pytest.fixture(scope="module")
def board(new_root: MakeRoot, boot: Boot, debs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine: Machine = boot(new_root("bookworm", packages=("mosquitto",), name="board"))
    updates.set_up(machine, debs, tmp_path_factory.mktemp("data"))
    return machine


def installed(machine: Machine) -> str:
    shown = machine.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "flchain-agent").stdout
    return shown.replace("ii ", "")


def is_whole(machine: Machine) -> bool:
    """Every file of the package that dpkg names is there, and the program runs."""
    gone = machine.shell("dpkg --verify flchain-agent | grep -v -E ' c |METADATA|cli.py' || true")
    return gone.strip() == "" and machine.run("flchain-agent", "--help", check=False).returncode == 0


@pytest.mark.timeout(1800)
def test_a_good_version_comes_between_two_rounds_and_keeps_all_data(
    board: Machine, debs: list[Path], tmp_path: Path
) -> None:
    """Announced by the operator, fetched, verified, installed, proved by a receipt; keys and rounds go on."""
    keys = board.run("sha256sum", "/var/lib/flchain-agent/key.pem", "/var/lib/flchain-agent/agent.toml").stdout
    number = network.read_round(board)
    begin = time.monotonic()
    updates.announce(board, updates.derive(debs[0], "0.2.0", tmp_path), "10m")
    updates.until_update(board, "done", "0.2.0", 600)
    print(f"announced to proved: {time.monotonic() - begin:.0f} s")
    assert installed(board) == "0.2.0+deb12"
    network.until_round(board, number + 1)
    assert board.run("sha256sum", "/var/lib/flchain-agent/key.pem", "/var/lib/flchain-agent/agent.toml").stdout == keys
    said = board.read_journal("-u", "flchain-agent")
    assert "update: ready" in said and "the operator's release is rolling" in said
    status = board.run(
        "flchain-agent", "status", "--config", "/var/lib/flchain-agent/agent.toml", user="flchain-agent"
    ).stdout
    assert "0.2.0" in status
    shown = json.loads(board.run("flchain-agent", "update", "status", "--json").stdout)
    assert (shown["installed"], shown["update"]["state"]) == ("0.2.0+deb12", "done") and shown["trust"]["operators"]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("version", "start"), [("0.3.0", updates.CRASHES), ("0.4.0", updates.SILENT)], ids=["crashes", "silent"]
)
def test_a_bad_version_goes_back_by_itself(
    board: Machine, debs: list[Path], tmp_path: Path, version: str, start: str
) -> None:
    """It does not start, or runs and says nothing: the version before is back, trains, and never tries it again."""
    before, number = installed(board), network.read_round(board)
    updates.announce(board, updates.derive(debs[0], version, tmp_path, start=start), "60s")
    updates.until_update(board, "rolled_back", version)
    assert installed(board) == before and is_whole(board)
    network.until_round(board, number + 1)
    board.until(lambda: "update: rolled back" in board.read_journal("-u", "flchain-agent"), "its own word")
    bad = updates.read_update(board)["bad_versions"]
    assert isinstance(bad, list) and version in bad


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("signature", "not one that this board believes: unknown-sender"),
        ("chain", "not one that this board believes: wrong-chain"),
        ("cut off", "cut off at"),
    ],
)
def test_what_an_intruder_lays_down_is_refused(
    board: Machine, debs: list[Path], tmp_path: Path, fault: str, word: str
) -> None:
    """A taken-over agent asks root for something that the operator has not signed: a word, and nothing else."""
    before = installed(board)
    deb = updates.derive(debs[0], "0.9.0", tmp_path)
    updates.lay_down(board, deb, FIRST_SEQUENCE, fault)
    board.until(lambda: word in str(updates.read_update(board).get("detail")), f"refused: {word}")
    assert installed(board) == before and not updates.is_under_way(board)
    assert board.show("flchain-agent", "ActiveState") == "active"


@pytest.mark.timeout(900)
def test_an_older_version_is_refused(board: Machine, debs: list[Path], tmp_path: Path) -> None:
    """Signed by the operator, with the highest number, and older than what is installed."""
    before = installed(board)
    updates.lay_down(board, updates.derive(debs[0], "0.0.9", tmp_path), FIRST_SEQUENCE + 1)
    board.until(lambda: "not newer" in str(updates.read_update(board).get("detail")), "refused")
    assert installed(board) == before


@pytest.mark.timeout(900)
def test_a_full_disk_is_said(board: Machine, debs: list[Path], tmp_path: Path) -> None:
    """No room where root keeps packages: the word is clear, nothing is begun, the agent goes on."""
    before = installed(board)
    deb = updates.derive(debs[0], "0.9.1", tmp_path)
    board.shell("mount -t tmpfs -o size=1m tmpfs /var/lib/flchain-update")
    try:
        updates.lay_down(board, deb, FIRST_SEQUENCE + 2)
        board.until(lambda: "the disk is full" in board.read_journal("-u", "flchain-update"), "the word")
    finally:
        board.shell("umount /var/lib/flchain-update")
    assert installed(board) == before and board.show("flchain-agent", "ActiveState") == "active"


@pytest.mark.timeout(3600)
def test_the_board_comes_back_whenever_its_power_goes(board: Machine, debs: list[Path], tmp_path: Path) -> None:
    """Everything inside is killed at some moment of an update, again and again: it always trains again, whole."""
    chance, came_to = random.Random(SEED), []
    journal = board.folder / "var/lib/flchain-update/journal"
    for turn in range(CUTS):
        version = f"1.0.{turn}"
        updates.lay_down(board, updates.derive(debs[0], version, tmp_path), FIRST_SEQUENCE + 10 + turn)
        board.until(journal.exists, "the update's begin")
        time.sleep(chance.uniform(0.0, 30.0))
        step = journal.read_text() if journal.exists() else "over"
        board.cut_power()
        board.boot()
        board.until(lambda: not journal.exists(), "the end of the update", 700)
        assert is_whole(board), step
        number = network.read_round(board)
        network.until_round(board, max(number, 0) + 1)
        came_to.append((step.split('"')[3] if '"' in step else step, installed(board)))
    print(came_to)
    assert {version.split("+")[0] for _, version in came_to} & {f"1.0.{turn}" for turn in range(CUTS)}
