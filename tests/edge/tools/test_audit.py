"""`flchain audit`: an honest ledger passes, any other one is found, and the file is only ever read."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain.ledger.genesis import encode_genesis
from flchain.wire.messages import Phase
from miner.edge.ledger.file import LedgerFile
from tests.support.builders.chain import Driver, certify, make_scores
from tests.support.builders.ledger import change, drive, flip, get_row, read_rows, write_ledger
from tools.cli import main as flchain
from tools.inspect.audit import audit_file, audit_rows, compare, find_ledgers, main

BODY_SAMPLES = 200
ROUNDS = 2


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(ROUNDS)


@pytest.fixture(scope="module")
def original(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "ledger.db"
    write_ledger(path, driver)
    return path


@pytest.fixture
def ledger(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "ledger.db"))


def find_fault(path: Path) -> LedgerCorrupt:
    with pytest.raises(LedgerCorrupt) as caught:
        audit_file(path)
    return caught.value


def test_an_honest_ledger_passes_with_its_counts(
    driver: Driver, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block, signature and model of a real ledger is counted, in one line, and the exit code is 0."""
    audit = audit_file(ledger)
    assert audit.state.head == driver.state.head and audit.state.model_hash == driver.state.model_hash
    counts = audit.counts
    assert (counts.blocks, counts.rounds, counts.models) == (len(driver.blocks), ROUNDS, ROUNDS)
    assert counts.transactions == counts.signatures == ROUNDS * (3 + 3 + 4 + 4)
    assert counts.certificate_signatures == 4 * len(driver.blocks)
    assert main([str(ledger)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 and err == ""
    assert driver.state.head.hex() in out and driver.state.model_hash.hex() in out
    assert main([str(ledger.parent), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("part", ["header", "certificate", "hash"])
def test_every_byte_of_headers_certificates_and_hashes_is_checked(part: str) -> None:
    """A flip at any position of any block's header, certificate or stored hash is found at that height, by its name."""
    driver = drive(1)
    for index, state in enumerate(driver.states[:-1]):
        row = get_row(driver, index)
        data: bytes = getattr(row, part)
        for position in range(len(data)):
            changes: dict[str, Any] = {part: flip(data, position, 1 << (position % 8))}
            with pytest.raises(LedgerCorrupt, match=part) as caught:
                audit_rows(state, [replace(row, **changes)])
            assert caught.value.height == row.height


@pytest.mark.parametrize("codec", ["sparse-ternary", "identity"])
def test_bytes_of_bodies_are_checked(codec: str) -> None:
    """A flip anywhere in a body is found at its height and blamed on the body."""
    driver, chooser = drive(1, codec), random.Random(codec)
    for index, state in enumerate(driver.states[:-1]):
        row = get_row(driver, index)
        size = len(row.body)
        positions = range(size) if size <= 2 * BODY_SAMPLES else chooser.sample(range(size), BODY_SAMPLES)
        for position in positions:
            flipped = replace(row, body=flip(row.body, position, 1 << chooser.randrange(8)))
            with pytest.raises(LedgerCorrupt, match="body: ") as caught:
                audit_rows(state, [flipped])
            assert caught.value.height == row.height


def test_a_byte_flipped_in_the_file_is_named_by_height_and_part(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says file, height and part in one line, and exits with 1."""
    row = read_rows(ledger)[5]
    for part in ("header", "certificate", "body", "hash"):
        data: bytes = getattr(row, part)
        change(ledger, f"UPDATE blocks SET {part} = ? WHERE height = ?", flip(data, len(data) // 2), row.height)
        assert main([str(ledger)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        assert f"height {row.height}: {part}" in err and str(ledger) in err
        change(ledger, f"UPDATE blocks SET {part} = ? WHERE height = ?", data, row.height)
    assert main([str(ledger), "--json"]) == 0


def test_every_byte_of_the_genesis_is_checked(ledger: Path, driver: Driver) -> None:
    """A flip in the genesis is a fault of the genesis, whether it still decodes or not."""
    genesis = encode_genesis(driver.chain.genesis)
    for position in range(0, len(genesis), 7):
        change(ledger, "UPDATE genesis SET genesis = ?", flip(genesis, position))
        fault = find_fault(ledger)
        assert fault.height == 0 and fault.what.startswith("genesis")


def test_the_initial_model_is_checked(ledger: Path) -> None:
    """A flip in the initial model, or another length of it, is found at height 0."""
    with closing(sqlite3.connect(ledger)) as db:
        model = db.execute("SELECT initial_model FROM genesis").fetchone()[0]
    for changed in (flip(model, 0), flip(model, 401, 128), model[:-4], b""):
        change(ledger, "UPDATE genesis SET initial_model = ?", changed)
        fault = find_fault(ledger)
        assert fault.height == 0 and "initial model" in fault.what


def test_missing_blocks_are_found(ledger: Path) -> None:
    """A deleted block is named, the first one too; without its tail a ledger is a shorter chain, which is valid."""
    height = len(read_rows(ledger))
    change(ledger, "DELETE FROM blocks WHERE height = ?", height)
    assert audit_file(ledger).state.height == height - 1
    change(ledger, "DELETE FROM blocks WHERE height = 4")
    fault = find_fault(ledger)
    assert fault.height == 4 and "missing" in fault.what
    change(ledger, "DELETE FROM blocks WHERE height = 1")
    assert find_fault(ledger).height == 1


def test_swapped_blocks_are_found(ledger: Path) -> None:
    """Two blocks in each other's place are found at the lower height."""
    for source, target in ((3, -1), (6, 3), (-1, 6)):
        change(ledger, "UPDATE blocks SET height = ? WHERE height = ?", target, source)
    assert find_fault(ledger).height == 3


def test_a_block_stored_as_text_is_found(ledger: Path) -> None:
    """The same bytes under another type are damage: a miner could not serve them."""
    change(ledger, "UPDATE blocks SET body = CAST(body AS TEXT) WHERE height = 2")
    fault = find_fault(ledger)
    assert fault.height == 2 and "body: not stored as bytes" in fault.what
    change(ledger, "UPDATE genesis SET genesis = CAST(genesis AS TEXT)")
    assert find_fault(ledger).height == 0


def test_too_little_power_is_told_apart_from_the_body() -> None:
    """A block that follows every rule but was signed by half of the power is a fault of its certificate alone."""
    driver = drive(1)
    before, block, row = driver.states[3], driver.blocks[3], get_row(driver, 3)
    enough = replace(row, certificate=certify(driver.chain, before, block, (0, 2, 3)))
    assert audit_rows(before, [enough])[1].certificate_signatures == 3
    few = replace(row, certificate=certify(driver.chain, before, block, (0, 2)))
    with pytest.raises(LedgerCorrupt, match="certificate: bad-certificate: only power 20") as caught:
        audit_rows(before, [few])
    assert caught.value.height == 4 and "body" not in caught.value.what and "rules" not in caught.value.what


def test_a_rule_broken_by_all_validators_is_found() -> None:
    """A block with every signature and hash in order is still refused if its round's outcome is not what follows."""
    driver, other = drive(0), drive(0)
    driver.go_to(Phase.SETTLE), other.go_to(Phase.SETTLE)
    before = driver.state
    # The same chain with another model: all sign its settlement, which is another one's.
    cheat = replace(before, model=before.model + 1)
    other.states[-1] = cheat
    other.score_reveal({i: make_scores(cheat) for i in range(4)})
    with pytest.raises(LedgerCorrupt, match=r"^height 5: rules: .*model_hash"):
        audit_rows(before, [get_row(other, -1)])


def test_damage_anywhere_in_the_file_is_found_or_harmless(original: Path, tmp_path: Path) -> None:
    """A byte flipped anywhere in the file is reported, or no block, genesis or model has changed."""
    data, rows, chooser = original.read_bytes(), read_rows(original), random.Random(8)
    path, found = tmp_path / "ledger.db", 0
    for _ in range(250):
        path.write_bytes(flip(data, chooser.randrange(len(data)), 1 << chooser.randrange(8)))
        try:
            audit_file(path)
        except (LedgerCorrupt, ConfigError):
            found += 1
        else:
            assert read_rows(path) == rows
    assert found > 30, "the rest of a small file is free space"


@pytest.mark.parametrize("kept", [0, 50, 4096, 5000, 20_000])
def test_a_truncated_file_is_found(ledger: Path, kept: int) -> None:
    """A file cut anywhere is either damaged or not a ledger; nothing else comes out."""
    ledger.write_bytes(ledger.read_bytes()[:kept])
    with pytest.raises((LedgerCorrupt, ConfigError)):
        audit_file(ledger)


def test_nothing_is_written_or_left_beside(ledger: Path, tmp_path: Path) -> None:
    """A closed ledger is read even in a folder that cannot be written, and the file is byte for byte as it was."""
    data, status = ledger.read_bytes(), ledger.stat()
    tmp_path.chmod(0o500)
    try:
        audit_file(ledger)
    finally:
        tmp_path.chmod(0o700)
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]
    assert ledger.read_bytes() == data and ledger.stat().st_mtime_ns == status.st_mtime_ns


def test_a_running_miners_ledger_is_read(driver: Driver, ledger: Path, tmp_path: Path) -> None:
    """Blocks that are only in the write-ahead log count, and neither file nor log changes; a copy without index too."""
    last = len(driver.blocks)
    row = read_rows(ledger)[-1]
    change(ledger, "DELETE FROM blocks WHERE height = ?", last)
    with closing(sqlite3.connect(ledger, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        values = (row.height, row.hash, row.header, row.certificate, row.body)
        db.execute("INSERT INTO blocks (height, hash, header, certificate, body) VALUES (?, ?, ?, ?, ?)", values)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
        assert set(before) == {"ledger.db", "ledger.db-wal"}
        assert audit_file(ledger).state.height == last
        after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
        assert after == before
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in before:
            shutil.copy(tmp_path / name, copy)
    assert audit_file(copy / "ledger.db").state.height == last
    assert {path.name for path in copy.iterdir()} == set(before)


def test_a_miner_that_starts_meanwhile_is_no_fault(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes under the audit is read again before anything is said of it."""
    tries = []

    def fail_once(opened: LedgerFile) -> str | None:
        tries.append(opened)
        if len(tries) == 1:
            change(ledger, "UPDATE genesis SET id = 1")
            return "pages of two times"
        return None

    monkeypatch.setattr(LedgerFile, "get_pages_fault", fail_once)
    assert audit_file(ledger).state.height == len(read_rows(ledger))
    assert len(tries) == 2


def test_a_networks_ledgers_are_compared(
    driver: Driver, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All miners' ledgers of a folder are audited and agree up to the common height; a fork is a fault."""
    paths = [tmp_path / "miners" / f"miner-{i}" / "data" / "ledger.db" for i in (0, 1, 10)]
    for path in paths:
        path.parent.mkdir(parents=True)
        shutil.copy(original, path)
    assert find_ledgers(tmp_path) == tuple(paths) and find_ledgers(paths[0].parent.parent) == (paths[0],)
    change(paths[1], "DELETE FROM blocks WHERE height > 6")
    assert main([str(tmp_path)]) == 0
    assert "3 ledgers agree up to height 6" in capsys.readouterr().out
    assert main([str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["common_height"] == 6 and [item["height"] for item in found["ledgers"]] == [9, 6, 9]
    forked = Driver(driver.chain)
    forked.go_to(Phase.REVEAL, devices=[0, 1])
    paths[2].unlink()
    write_ledger(paths[2], forked)
    with pytest.raises(LedgerCorrupt, match=r"height 2: .*forked"):
        compare([audit_file(path) for path in paths])
    assert main([str(tmp_path)]) == 1
    assert "height 2" in capsys.readouterr().err


def test_another_genesis_than_the_wanted_one_is_a_fault(ledger: Path, driver: Driver, tmp_path: Path) -> None:
    """A ledger that is sound in itself fails against a genesis that is not its own, and passes against its own."""
    mine, other = tmp_path / "mine.cbor", tmp_path / "other.cbor"
    mine.write_bytes(encode_genesis(driver.chain.genesis))
    other.write_bytes(encode_genesis(drive(0, seed=2).chain.genesis))
    assert main([str(ledger), "--genesis", str(mine)]) == 0
    assert main([str(ledger), "--genesis", str(other)]) == 1


@pytest.mark.parametrize("content", [None, b"", b"no database, but long enough to look at twice", "sqlite"])
def test_what_is_no_ledger_exits_with_78(
    content: bytes | str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, an empty one, another kind of file and another database are the operator's fault, in one line."""
    path = tmp_path / "ledger.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        change(path, "CREATE TABLE position (id INTEGER)")
    assert flchain(["audit", str(path)]) == 78
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
