"""A chain as a file: what is exported can be imported, what is not the chain is refused, and a crash costs nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from flchain.base.errors import ConfigError, LedgerCorrupt
from flchain.base.fixedpoint import encode_vector
from flchain.base.types import Height
from flchain.ledger.genesis import encode_genesis
from flchain.wire.envelope import encode
from miner.edge.ledger.export import END, FORMAT, ImportFault, export_ledger, import_file
from miner.edge.ledger.ledger import Ledger
from tests.support.builders.chain import BuiltChain, Driver
from tests.support.builders.ledger import change, drive, flip, get_row, read_rows, write_ledger
from tests.support.crash import kill_after
from tools.inspect.audit import audit_file

ROUNDS = 3
KILLS = 8


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(ROUNDS)


@pytest.fixture(scope="module")
def export(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_ledger(folder / "ledger.db", driver)
    assert export_ledger(folder / "ledger.db", folder / "chain.cbor") == len(driver.blocks)
    return folder / "chain.cbor"


def import_into(path: Path, chain: BuiltChain, file: Path, on_block: Callable[[Height], None] = lambda h: None) -> int:
    """What `flchain-miner import` does: the height after it."""

    async def run() -> int:
        ledger = await Ledger.open(path, chain.genesis, chain.model)
        try:
            return (await import_file(ledger, chain.genesis, chain.model, file, on_block))[1]
        finally:
            await ledger.close()

    return asyncio.run(run())


def write_items(path: Path, driver: Driver, count: int, end: bytes | None = None) -> Path:
    """An export of the first `count` blocks, put together by hand."""
    chain = driver.chain
    items = [encode([FORMAT, encode_genesis(chain.genesis), encode_vector(chain.model)])]
    rows = [get_row(driver, index) for index in range(count)]
    items += [encode([row.header, row.certificate, row.body]) for row in rows]
    items.append(encode([END, count.to_bytes(8, "big"), rows[-1].hash]) if end is None else end)
    path.write_bytes(b"".join(items))
    return path


def test_what_is_exported_can_be_imported(driver: Driver, export: Path, tmp_path: Path) -> None:
    """Every block and certificate comes back byte for byte, and the ledger passes the audit."""
    path = tmp_path / "data" / "ledger.db"
    assert import_into(path, driver.chain, export) == len(driver.blocks)
    assert read_rows(path) == [get_row(driver, index) for index in range(len(driver.blocks))]
    assert audit_file(path).state.head == driver.state.head
    assert import_into(path, driver.chain, export) == len(driver.blocks), "again: nothing new, no error"


def test_the_format_is_what_it_says(driver: Driver, export: Path, tmp_path: Path) -> None:
    """Canonical CBOR items, and the same chain always gives the same bytes."""
    assert write_items(tmp_path / "by-hand", driver, len(driver.blocks)).read_bytes() == export.read_bytes()


def test_it_goes_on_where_the_ledger_stands(driver: Driver, export: Path, tmp_path: Path) -> None:
    """A ledger with some of the blocks takes the others only."""
    path, seen = tmp_path / "ledger.db", list[int]()
    import_into(path, driver.chain, write_items(tmp_path / "part", driver, 5))
    import_into(path, driver.chain, export, seen.append)
    assert seen == list(range(6, len(driver.blocks) + 1))


@pytest.mark.parametrize("part", ["header", "certificate", "body"])
def test_a_fault_is_named_and_what_came_before_is_kept(driver: Driver, export: Path, tmp_path: Path, part: str) -> None:
    """A flipped bit in block 7 stops the import there; six checked blocks are in the ledger, and no more."""
    path, data = tmp_path / "ledger.db", export.read_bytes()
    value: bytes = getattr(get_row(driver, 6), part)
    place = data.index(value) + len(value) - 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(flip(data, place))
    with pytest.raises(ImportFault, match=r"height 7: .*is at height 6"):
        import_into(path, driver.chain, damaged)
    assert audit_file(path).state.height == 6
    assert import_into(path, driver.chain, export) == len(driver.blocks), "a whole file mends it"


def test_a_file_cut_off_anywhere_is_found(driver: Driver, export: Path, tmp_path: Path) -> None:
    """Whatever length is left, the import says so, and the ledger holds a prefix of the chain."""
    data, chooser = export.read_bytes(), random.Random(3)
    cut = tmp_path / "cut"
    for number, length in enumerate([0, 1, len(data) - 1, *(chooser.randrange(len(data)) for _ in range(8))]):
        path = tmp_path / f"{number}.db"
        cut.write_bytes(data[:length])
        with pytest.raises((ImportFault, ConfigError)):
            import_into(path, driver.chain, cut)
        rows = read_rows(path)
        assert rows == [get_row(driver, index) for index in range(len(rows))]


@pytest.mark.parametrize(
    "end", [b"", b"\x83\x41", encode([END, bytes(8), bytes(32)]), encode([END, b"", b""]), b"\xff"]
)
def test_the_end_must_be_that_of_the_blocks(driver: Driver, tmp_path: Path, end: bytes) -> None:
    """A file whose last blocks were left out, or that has another end, does not pass as a whole one."""
    with pytest.raises(ImportFault, match="height 6"):
        import_into(tmp_path / "ledger.db", driver.chain, write_items(tmp_path / "file", driver, 5, end))


def test_a_length_without_bound_is_refused(driver: Driver, tmp_path: Path) -> None:
    """A byte string that claims 2**60 bytes is damage, not a reason to ask for memory."""
    end = b"\x83\x5b" + (2**60).to_bytes(8, "big")
    with pytest.raises(ImportFault, match="height 3"):
        import_into(tmp_path / "ledger.db", driver.chain, write_items(tmp_path / "file", driver, 2, end))


def test_another_chain_is_refused(driver: Driver, export: Path, tmp_path: Path) -> None:
    """An export of other keys, and a file that is none, change nothing."""
    other, path = drive(1, seed=2), tmp_path / "ledger.db"
    with pytest.raises(ConfigError, match="another chain"):
        import_into(path, other.chain, export)
    (tmp_path / "none").write_bytes(b"no export at all")
    with pytest.raises(ConfigError, match="no export"):
        import_into(path, other.chain, tmp_path / "none")
    with pytest.raises(ConfigError, match="No such file"):
        import_into(path, other.chain, tmp_path / "missing")
    assert read_rows(path) == []


def test_another_final_block_is_refused(driver: Driver, tmp_path: Path) -> None:
    """Two histories of one chain are never mixed: the height where they differ is named."""
    fork = Driver(driver.chain)
    fork.run_round(devices=[0, 1])
    path = tmp_path / "ledger.db"
    write_ledger(path, fork)
    with pytest.raises(ConfigError, match="another final block 2 "):
        import_into(path, driver.chain, write_items(tmp_path / "file", driver, 9))
    assert [row.hash for row in read_rows(path)] == [block.hash for block in fork.blocks]


def test_a_damaged_ledger_is_not_exported(driver: Driver, tmp_path: Path) -> None:
    """Every block is checked on the way out; what was at the place of the file stays, and nothing is left beside it."""
    path, out = tmp_path / "ledger.db", tmp_path / "out" / "chain.cbor"
    out.parent.mkdir()
    out.write_bytes(b"yesterday's")
    write_ledger(path, driver)
    change(path, "UPDATE blocks SET certificate = ? WHERE height = 4", flip(get_row(driver, 3).certificate, 40))
    with pytest.raises(LedgerCorrupt, match="height 4"):
        export_ledger(path, out)
    assert list(out.parent.iterdir()) == [out] and out.read_bytes() == b"yesterday's"
    with pytest.raises(ConfigError, match="No such file"):
        export_ledger(path, tmp_path / "nowhere" / "chain.cbor")


def test_kill_9_in_the_middle_costs_nothing(driver: Driver, export: Path, tmp_path: Path) -> None:
    """Killed at random blocks, an import leaves a ledger that passes the audit, and begun again it ends."""
    path, chooser = tmp_path / "ledger.db", random.Random(5)

    def run(acknowledge: Callable[[int], None]) -> None:
        import_into(path, driver.chain, export, acknowledge)

    for _ in range(KILLS):
        if kill_after(chooser.randrange(9), run) is not None:
            rows = read_rows(path)
            assert rows == [get_row(driver, index) for index in range(len(rows))]
    assert import_into(path, driver.chain, export) == len(driver.blocks)
    assert audit_file(path).state.head == driver.state.head
