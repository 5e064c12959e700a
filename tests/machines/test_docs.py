"""docs/install.md, update.md and flash.md work as they are written: their own command blocks, typed on machines.

The network ends at the machines' switch, so that Debian's packages and the wheels are fetched before they boot.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.conftest import Boot, MakeRoot
from tests.machines.network import Network, switched
from tests.machines.nspawn import Machine
from tests.machines.site import (
    LOCKS,
    NAMES,
    PACKAGES,
    ROOT,
    WHEELS,
    Site,
    build_packages,
    check_services,
    copy,
    fetch_packages,
    fetch_wheels,
)
from tests.support.doc_blocks import Step, read_page

WHEEL_SECTION, PACKAGE_SECTION = "10. Other distributions: from a wheel", "1. Packages"
NEW_VERSION = "0.2.0"
ENVIRONMENT_MB_MAX = 120
"""What docs/boards.md promises."""
RELEASES = ("bookworm", "trixie")


@pytest.fixture
def network() -> Iterator[Network]:
    """A switch that knows the pages' names."""
    with switched() as network:
        network.name(*NAMES.values())
        yield network


def take_sections(*, is_wheel: bool) -> list[Step]:
    """Return the steps of docs/install.md in a reader's order: section 1, or section 10 in its place."""
    steps = read_page("install.md")
    first = [step for step in steps if step.section == (WHEEL_SECTION if is_wheel else PACKAGE_SECTION)]
    return first + [step for step in steps if step.section not in (WHEEL_SECTION, PACKAGE_SECTION)]


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("release", RELEASES)
def test_install_from_a_wheel(release: str, new_root: MakeRoot, boot: Boot, network: Network, tmp_path: Path) -> None:
    """Wheel and locks, by section 10 of install.md: the network trains, under units that nobody has edited."""
    machines: dict[str, Machine] = {}
    for name in NAMES:
        root = new_root(release, name=name)
        network.write_hosts(root.folder)
        fetch_packages(root, "python3-venv", "mosquitto", "nftables")
        shutil.copytree(fetch_wheels(new_root, release, LOCKS[name]), root.folder / WHEELS.lstrip("/"))
        machines[name] = boot(root)
    site = Site(network, machines, tmp_path)

    def copy_wheel() -> None:
        for name, machine in machines.items():
            copy(max((ROOT / "dist").glob("*.whl")), machine)
            lock = copy(ROOT / "requirements" / LOCKS[name], machine)
            lock.rename(lock.with_name("flchain.lock"))

    site.build_reader({"copy-wheel": copy_wheel}).follow(take_sections(is_wheel=True))
    check_services(site)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("release", RELEASES)
def test_flash_without_a_card(release: str, new_root: MakeRoot, boot: Boot, network: Network, tmp_path: Path) -> None:
    """What flash.md says of flchain.toml holds on a board that has the package: name, enrolment, reset."""
    packages = build_packages(release, tmp_path / "debs", "flchain-tools", "flchain-agent")
    machines: dict[str, Machine] = {}
    for name in ("operator", "board"):
        root = new_root(release, packages=("libstdc++6",), name=name)
        network.write_hosts(root.folder)
        root.install(*map(str, packages.glob(f"{PACKAGES[name]}_*.deb")))
        machines[name] = boot(root)
    site, board = Site(network, machines, tmp_path), machines["board"]
    place = board.folder / "etc/flchain/flchain.toml"

    def fill_in() -> None:
        token = reader.tokens["device"][0]
        board.shell(f'sed -i \'s|^token = ""|token = "{token}"|\' ~root/flchain.toml')

    def start() -> None:
        board.shell("cp ~root/flchain.toml /etc/flchain/")
        assert "flchain1/registrar.lan" in place.read_text()

    reader = site.build_reader({"fill-in": fill_in, "start": start, "wait-for-enrolment": site.wait_for_everyone})
    reader.follow(step for step in read_page("install.md") if step.section == "2. The registrar")
    before_reset: list[Step] = []
    reset: list[Step] = []
    for step in read_page("flash.md"):
        (reset if step.section == "5. Factory reset" else before_reset).append(step)
    reader.follow(before_reset)
    assert board.shell("hostname").strip() == "north-3"
    assert (board.folder / "var/lib/flchain-agent/key.pem").exists()
    reader.follow(reset)
    assert not (board.folder / "var/lib/flchain-agent/key.pem").exists()
    assert board.shell("flchain-agent provision --status").startswith("waiting")


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("release", RELEASES)
def test_install_packages_and_update(
    release: str, new_root: MakeRoot, boot: Boot, network: Network, tmp_path: Path
) -> None:
    """Packages by install.md; then update.md: the operator's release reaches the board, which keeps its data."""
    packages = build_packages(release, tmp_path / "debs")
    newer = build_packages(release, tmp_path / f"debs-{NEW_VERSION}", "flchain-agent", version=NEW_VERSION)
    machines: dict[str, Machine] = {}
    for name in NAMES:
        root = new_root(release, name=name)
        network.write_hosts(root.folder)
        fetch_packages(root, "mosquitto", "nftables", "libstdc++6")
        machines[name] = boot(root)
    site = Site(network, machines, tmp_path)
    hands = {
        "copy-packages": lambda: site.copy_packages(packages),
        "copy-new-packages": lambda: site.copy_new_packages(newer),
    }
    reader = site.build_reader(hands)
    reader.follow(take_sections(is_wheel=False))
    check_services(site)
    megabytes = int(machines["board"].shell("du --summarize --block-size=1000000 /opt/flchain-agent").split()[0])
    print(f"/opt/flchain-agent on {release}, compiled: {megabytes} MB")
    assert megabytes <= ENVIRONMENT_MB_MAX
    before = site.read_status()
    reader.follow(read_page("update.md"))
    board = machines["board"]
    assert NEW_VERSION in board.run("dpkg-query", "--show", "flchain-agent").stdout
    after = site.read_status()
    assert after["versions"]["flchain"] == NEW_VERSION
    assert after["now"]["address"] == before["now"]["address"] and after["now"]["round"] >= before["now"]["round"]
    told = machines["operator"].run("bash", "-c", "HOME=~root flchain fleet status --json").stdout
    assert json.loads(told)["stage"] == "done"
