"""What root makes of the agent's request: it believes a signature and a hash, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.edge.update import keeper
from agent.edge.update.apply import Debs, begin_rollback, read_upstream
from agent.edge.update.inbox import REQUEST, SPOKEN, TRUST, Inbox, Refused
from agent.edge.update.keeper import Step, read_journal
from agent.edge.update.trust import Trust, encode_trust
from flchain.base.errors import ConfigError, TryAgain
from flchain.wire.release import Package, ReleaseState
from flchain_edge.storage.sqlite import StoreFull
from tests.support.updates.debs import CHAIN, OPERATOR, STRANGER, Bench, build_deb

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def state_of(bench: Bench) -> dict[str, object]:
    found: dict[str, object] = json.loads((bench.root / keeper.STATE).read_bytes())
    return found


def test_a_good_request_becomes_a_journal_with_all_that_it_needs(bench: Bench, tmp_path: Path) -> None:
    """The package, the way back, the program that goes on, and only then the journal; the request is gone."""
    deb = build_deb(tmp_path)
    bench.ask(bench.release(deb), deb)
    (bench.agent / SPOKEN).write_text("0.2.0")
    assert bench.applier.apply() == "0.2.0"
    journal = read_journal(bench.root)
    assert journal == keeper.Journal(Step.READY, "0.2.0", 7, "0.1.0+deb12", 900)
    assert (bench.root / keeper.NEW_DEB).read_bytes() == deb.read_bytes()
    assert (bench.root / "keeper.py").read_bytes() == Path(keeper.__file__).read_bytes()
    assert not (bench.agent / REQUEST).exists() and not (bench.agent / SPOKEN).exists()
    assert Debs().read_fields(bench.root / keeper.OLD_DEB)["Version"] == "0.1.0+deb12"
    with pytest.raises(TryAgain, match="under way"):
        bench.applier.apply()


def test_the_way_back_is_made_of_what_is_installed(bench: Bench, tmp_path: Path) -> None:
    """Nobody has kept the package that was installed: dpkg takes the one made again, with the same files and modes."""
    deb = build_deb(tmp_path)
    bench.ask(bench.release(deb), deb)
    (bench.machine / "etc/flchain/agent.conf").write_text("a = 2\n")
    bench.applier.apply()
    old, out = bench.root / keeper.OLD_DEB, tmp_path / "out"
    subprocess.run(["dpkg-deb", "--raw-extract", str(old), str(out)], check=True)
    program = out / "opt/flchain-agent/bin/flchain-agent"
    assert (program.read_text(), program.stat().st_mode & 0o777) == ("version 0.1.0+deb12\n", 0o755)
    assert os.readlink(program.parent / "link") == "flchain-agent"
    assert (out / "etc/flchain/agent.conf").read_text() == "a = 2\n", "settings as they are"
    control = (out / "DEBIAN/control").read_text()
    assert control.splitlines()[:2] == ["Package: flchain-agent", "Version: 0.1.0+deb12"]
    assert "Status" not in control and "Conffiles" not in control and " of a board" in control
    assert (out / "DEBIAN/postinst").stat().st_mode & 0o777 == 0o755
    assert (out / "DEBIAN/conffiles").read_text() == "/etc/flchain/agent.conf\n"


def test_what_was_installed_last_is_the_way_back(bench: Bench, tmp_path: Path) -> None:
    """After an update its package is kept as it came: the next update goes back to it."""
    deb, kept = build_deb(tmp_path), build_deb(tmp_path, "0.1.0+deb12", name="kept")
    kept = tmp_path / "flchain-agent_0.1.0+deb12_arm64.deb"
    bench.root.mkdir()
    shutil.copy(kept, bench.root / keeper.CURRENT_DEB)
    bench.ask(bench.release(deb), deb)
    bench.applier.apply()
    assert (bench.root / keeper.OLD_DEB).read_bytes() == kept.read_bytes()
    assert not (bench.root / keeper.CURRENT_DEB).exists()


Fault = Callable[[Bench, Path], None]


def lay_other_signature(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb), deb, signer=STRANGER)


def lay_other_chain(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb), deb, chain=bytes(32))


def lay_garbage(bench: Bench, deb: Path) -> None:
    (bench.agent / REQUEST).write_bytes(b"\xff" * 100)


def lay_long_request(bench: Bench, deb: Path) -> None:
    (bench.agent / REQUEST).write_bytes(bytes(5_000))


def lay_older_version(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb, version="0.0.9"), deb)


def lay_same_version(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb, version="0.1.0"), deb)


def lay_halted(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb, state=ReleaseState.HALTED), deb)


def lay_no_package(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb, packages=(Package("trixie", "arm64", b"h" * 32, 1),)), deb)


def lay_nothing_to_install(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb))


def lay_cut_off(bench: Bench, deb: Path) -> None:
    release = bench.release(deb)
    bench.ask(release, deb)
    path = bench.agent / f"{release.packages[0].sha256.hex()}.deb"
    path.write_bytes(path.read_bytes()[:-1])


def lay_longer(bench: Bench, deb: Path) -> None:
    release = bench.release(deb)
    bench.ask(release, deb)
    path = bench.agent / f"{release.packages[0].sha256.hex()}.deb"
    path.write_bytes(path.read_bytes() + b"\0")


def lay_damaged(bench: Bench, deb: Path) -> None:
    release = bench.release(deb)
    bench.ask(release, deb)
    path = bench.agent / f"{release.packages[0].sha256.hex()}.deb"
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def lay_link(bench: Bench, deb: Path) -> None:
    release = bench.release(deb)
    bench.ask(release)
    (bench.agent / f"{release.packages[0].sha256.hex()}.deb").symlink_to(deb)


def lay_pipe(bench: Bench, deb: Path) -> None:
    release = bench.release(deb)
    bench.ask(release)
    os.mkfifo(bench.agent / f"{release.packages[0].sha256.hex()}.deb")


def lay_folder(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb))
    (bench.agent / REQUEST).unlink()
    (bench.agent / REQUEST).mkdir()


def lay_link_as_request(bench: Bench, deb: Path) -> None:
    raw = bench.ask(bench.release(deb), deb)
    (bench.folder / "elsewhere").write_bytes(raw)
    (bench.agent / REQUEST).unlink()
    (bench.agent / REQUEST).symlink_to(bench.folder / "elsewhere")


def lay_other_content(bench: Bench, deb: Path) -> None:
    old = build_deb(bench.folder, "0.0.5+deb12")
    bench.ask(bench.release(old), old)


def lay_other_package(bench: Bench, deb: Path) -> None:
    other = build_deb(bench.folder, "0.2.0+deb12", name="openssh-server")
    bench.ask(bench.release(other), other)


def lay_no_deb(bench: Bench, deb: Path) -> None:
    other = bench.folder / "text"
    other.write_text("no package at all")
    bench.ask(bench.release(other), other)


def lay_with_full_disk(bench: Bench, deb: Path) -> None:
    bench.ask(bench.release(deb), deb)
    bench.free_bytes = 1_000_000


FAULTS: list[tuple[Fault, str]] = [
    (lay_other_signature, "not one that this board believes: unknown-sender"),
    (lay_other_chain, "not one that this board believes: wrong-chain"),
    (lay_garbage, "not one that this board believes"),
    (lay_long_request, "longer than 4096 bytes"),
    (lay_older_version, "not newer than what is installed (0.1.0)"),
    (lay_same_version, "not newer than what is installed (0.1.0)"),
    (lay_halted, "the operator has halted this release"),
    (lay_no_package, "no package for this system"),
    (lay_nothing_to_install, "No such file"),
    (lay_cut_off, "cut off at"),
    (lay_longer, "longer than the release says"),
    (lay_damaged, "the package is damaged"),
    (lay_link, "is a link"),
    (lay_pipe, "is no plain file"),
    (lay_folder, "is no plain file"),
    (lay_link_as_request, "is a link"),
    (lay_other_content, "the package is flchain-agent 0.0.5 arm64, and not flchain-agent 0.2.0 arm64"),
    (lay_other_package, "the package is openssh-server"),
    (lay_no_deb, "is no Debian package"),
    (lay_with_full_disk, "the disk is full"),
]


@pytest.mark.parametrize(("fault", "word"), FAULTS, ids=[fault.__name__[4:] for fault, _ in FAULTS])
def test_each_fault_has_its_word_and_leaves_all_as_it_was(
    bench: Bench, tmp_path: Path, fault: Fault, word: str
) -> None:
    """Refused, told in the state, no journal, no package of it left, and what is installed untouched."""
    deb = build_deb(tmp_path)
    fault(bench, deb)
    with pytest.raises(Refused) as refused:
        bench.applier.apply()
    assert word in str(refused.value)
    assert state_of(bench)["state"] == "refused" and word in str(state_of(bench)["detail"])
    assert read_journal(bench.root) is None
    assert not (bench.root / keeper.NEW_DEB).exists()
    assert deb.read_bytes() and (bench.machine / "opt/flchain-agent/bin/flchain-agent").read_text().endswith("deb12\n")
    assert not (bench.agent / REQUEST).is_file() and not (bench.agent / REQUEST).is_symlink()


def test_an_older_release_is_refused_whatever_its_version(bench: Bench, tmp_path: Path) -> None:
    """Root remembers the highest number that it has verified, also of a release that it did not install."""
    deb = build_deb(tmp_path)
    bench.ask(bench.release(deb, sequence=9, state=ReleaseState.HALTED), deb)
    with pytest.raises(Refused, match="halted"):
        bench.applier.apply()
    bench.ask(bench.release(deb, sequence=8), deb)
    with pytest.raises(Refused, match="an older release"):
        bench.applier.apply()
    bench.ask(bench.release(deb, sequence=10), deb)
    assert bench.applier.apply() == "0.2.0"


def test_a_version_that_was_bad_is_never_tried_again(bench: Bench, tmp_path: Path) -> None:
    """Under any number, whatever the agent says."""
    deb = build_deb(tmp_path)
    bench.root.mkdir()
    keeper.write_state(bench.root, "rolled_back", keeper.Journal(Step.READY, "0.2.0", 7, "", 0), "silent", ("0.2.0",))
    bench.ask(bench.release(deb, sequence=20), deb)
    with pytest.raises(Refused, match="never tries one again"):
        bench.applier.apply()
    assert state_of(bench)["bad_versions"] == ["0.2.0"]


def test_whose_word_counts_is_pinned_once(bench: Bench, tmp_path: Path) -> None:
    """The first release pins chain and operator; what the agent says later counts for nothing, what is in /etc does."""
    deb = build_deb(tmp_path)
    bench.ask(bench.release(deb, state=ReleaseState.HALTED), deb)
    with pytest.raises(Refused, match="halted"):
        bench.applier.apply()
    (bench.agent / TRUST).write_bytes(encode_trust(Trust(CHAIN, (STRANGER.public_key,))))
    bench.ask(bench.release(deb, sequence=8), deb, signer=STRANGER)
    with pytest.raises(Refused, match="unknown-sender"):
        bench.applier.apply()
    (tmp_path / "none").write_bytes(encode_trust(Trust(CHAIN, (OPERATOR.public_key, STRANGER.public_key))))
    bench.ask(bench.release(deb, sequence=8), deb, signer=STRANGER)
    assert bench.applier.apply() == "0.2.0"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"chain": "00"}', b'{"chain": "zz", "operators": []}'])
def test_a_pin_that_is_none_is_refused(bench: Bench, tmp_path: Path, content: bytes) -> None:
    """Nothing is pinned, and nothing is believed."""
    deb = build_deb(tmp_path)
    (bench.agent / TRUST).write_bytes(content)
    bench.ask(bench.release(deb), deb)
    with pytest.raises(Refused):
        bench.applier.apply()
    assert not (bench.root / TRUST).exists()


def test_a_disk_that_fills_up_meanwhile(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy ends in "no space": it is removed, the word is clear, and the exit code is that of a full disk."""
    deb = build_deb(tmp_path)
    bench.ask(bench.release(deb), deb)

    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Inbox, "copy", fill)
    with pytest.raises(StoreFull, match="the disk is full"):
        bench.applier.apply()
    assert state_of(bench)["detail"] == "the disk is full" and read_journal(bench.root) is None


def test_an_agent_that_is_no_package_cannot_be_updated(bench: Bench, tmp_path: Path) -> None:
    """A wheel in a folder: said at once."""
    deb = build_deb(tmp_path)
    (tmp_path / "dpkg-query").write_text("#!/bin/sh\nexit 1\n")
    bench.ask(bench.release(deb), deb)
    with pytest.raises(ConfigError, match="not installed as a Debian package"):
        bench.applier.apply()


def test_an_operator_goes_back(bench: Bench, tmp_path: Path) -> None:
    """To the package before, and only if there is one of another version."""
    bench.root.mkdir()
    debs = Debs(bench.machine, dpkg_query=str(tmp_path / "dpkg-query"))
    with pytest.raises(ConfigError, match="no package of a version before"):
        begin_rollback(bench.root, debs)
    shutil.copy(build_deb(tmp_path, "0.0.9+deb12"), bench.root / keeper.OLD_DEB)
    assert begin_rollback(bench.root, debs) == "0.0.9+deb12"
    journal = read_journal(bench.root)
    assert journal is not None
    assert (journal.step, journal.version, journal.reason) == (Step.REVERTING, "0.1.0", "the operator went back")


@pytest.mark.parametrize("text", ["", "0.2", "1.2.3.4", "v0.2.0", "0.2.x"])
def test_a_version_that_cannot_be_compared_is_refused(text: str) -> None:
    """Root compares three numbers, and guesses nothing."""
    assert read_upstream("10.20.30+deb13") == "10.20.30"
    with pytest.raises(Refused):
        read_upstream(text)
