"""`flchain chain show` and `tail`: what they tell of real ledgers, also while a miner writes; they only read."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flchain.wire.messages import Phase
from miner.edge.ledger.ledger import Ledger
from miner.edge.ledger.prune import prune_ledger
from tests.support.builders.chain import Driver, build_chain, make_reveal, make_scores
from tests.support.builders.ledger import change, drive, flip, get_row, write_ledger
from tests.support.builders.stake import StakeDriver, build_stake_chain, delegate
from tests.support.children import start_child
from tests.support.crash import kill_after
from tools.cli import main as flchain
from tools.inspect.chain import TAIL_HEADER, follow, format_time

ROUNDS = 2
SETTLES = 5
EXIT_FAULT, EXIT_CONFIG = 1, 78
WAIT_S = 60


@pytest.fixture(scope="module")
def driver() -> Driver:
    return drive(ROUNDS)


@pytest.fixture(scope="module")
def path(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chain") / "ledger.db"
    write_ledger(path, driver)
    return path


def show(path: Path, which: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert flchain(["chain", "show", str(path), which, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("height", [1, 2, 3, 4, SETTLES, 9])
def test_show_tells_what_the_block_is(
    path: Path, driver: Driver, height: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Header, signers by address, messages, sizes: those of the block that was driven."""
    found, block, row = show(path, str(height), capsys), driver.blocks[height - 1], get_row(driver, height - 1)
    header = block.header
    assert (found["height"], found["hash"], found["round"]) == (height, block.hash.hex(), header.round)
    assert found["phase"] == Phase(header.phase).name.lower() and found["proposer"] == header.proposer.hex()
    assert found["signers"] == [miner.address.hex() for miner in driver.chain.miners] and found["view"] == 0
    assert found["bytes"] == {"header": len(row.header), "certificate": len(row.certificate), "body": len(row.body)}
    kind, senders = {
        0: ("", ()),
        1: ("commit", driver.chain.devices),
        2: ("reveal", driver.chain.devices),
        3: ("score_commit", driver.chain.miners),
        4: ("score_reveal", driver.chain.miners),
    }[int(header.phase)]
    assert [(t["kind"], t["sender"]) for t in found["transactions"]] == [(kind, s.address.hex()) for s in senders]
    assert (found["settlement"] is None) == (height % 4 != 1 or height == 1)
    assert found["model_hash"] == header.model_hash.hex()


@pytest.mark.parametrize("rule", ["per-update", "by-samples"])
def test_a_settlements_rewards_are_what_the_chain_has_paid(
    rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The accepted and refused devices, and each one's reward, agree with the differences of the chain's balances."""
    driver = Driver(build_chain(reward_rule=rule, samples_cap=150))
    bad = driver.chain.devices[1].address
    driver.open()
    reveals = {i: make_reveal(driver.chain, i, 1, samples=90 + 40 * i) for i in range(3)}
    driver.commit(reveals)
    driver.reveal(reveals)
    low: dict[bytes, int] = {device.address: (0 if device.address == bad else 9_000) for device in driver.chain.devices}
    words = {i: make_scores(driver.state, scores=low) for i in range(4)}
    driver.score_commit(words)
    driver.score_reveal(words)
    write_ledger(tmp_path / "ledger.db", driver)
    settlement = show(tmp_path / "ledger.db", "head", capsys)["settlement"]
    balances = {account.address.hex(): account.balance for account in driver.state.accounts if account.balance}
    assert settlement["rewards"] == balances and len(balances) == 2
    assert settlement["refused"] == [bad.hex()] and sorted(balances) == settlement["accepted"]


def test_a_block_is_found_by_height_hash_and_head(
    path: Path, driver: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    """A height, a whole hash, its first digits and `head` find the same block; anything else ends with exit 78."""
    digest = driver.blocks[-1].hash.hex()
    heights = {show(path, which, capsys)["height"] for which in ("head", "9", digest, digest[:8], digest.upper())}
    assert heights == {9}
    for wrong in ("0", "10", "abc", "zz", "deadbeefdeadbeef00", "headx", ""):
        assert flchain(["chain", "show", str(path), wrong]) == EXIT_CONFIG, wrong
        assert capsys.readouterr().err.startswith("error: ")


def test_a_pruned_ledger_says_where_it_begins(
    driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block that was dropped, or the head of a ledger without blocks, is not there; the base is named."""
    genesis, state = driver.chain.genesis, driver.states[0]
    top = len(driver.blocks)
    for keep, has in (
        (2, f"the newest is {top}; it begins with the state at height {top - 2}"),
        (0, f"the ledger holds none; it begins with the state at height {top}"),
    ):
        path = tmp_path / f"{keep}.db"
        write_ledger(path, driver)
        asyncio.run(prune_ledger(path, genesis, state.model, keep))
        assert flchain(["chain", "show", str(path), "1"]) == 78
        assert capsys.readouterr().err == f"error: 1: no such block; {has}\n"


def test_show_tells_time_and_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A block's time is in UTC, and its orders have their senders; a time beyond the year 9999 is shown as a number."""
    driver = StakeDriver(build_stake_chain())
    driver.open()
    holder = driver.chain.holders[0]
    driver.extend(orders=[delegate(driver.state, holder, driver.chain.miners[0], 5)], clock_ms=1_800_000_000_000)
    write_ledger(tmp_path / "ledger.db", driver)
    found = show(tmp_path / "ledger.db", "2", capsys)
    assert found["time"] == "2027-01-15T08:00:00.000+00:00"
    order = found["orders"][0]
    assert (order["kind"], order["sender"], order["number"]) == ("delegate", holder.address.hex(), 0)
    assert flchain(["chain", "show", str(tmp_path / "ledger.db"), "2"]) == 0
    assert f"delegate     {holder.address.hex()}  number 0" in capsys.readouterr().out
    assert format_time(2**53) == f"{2**53} ms"


def test_show_is_readable(path: Path, driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: hash, signers and accepted devices in full, no line over 120 columns."""
    assert flchain(["chain", "show", str(path), str(SETTLES)]) == 0
    text = capsys.readouterr().out
    assert driver.blocks[SETTLES - 1].hash.hex() in text and "in all" in text and "reward 100" in text
    assert all(key.address.hex() in text for key in (*driver.chain.miners, *driver.chain.devices))
    assert max(map(len, text.splitlines())) <= 120


def test_tail_is_a_line_a_block(path: Path, driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest n, aligned under the header, oldest first; --json one object a line; n more than there are is all."""
    assert flchain(["chain", "tail", str(path), "-n", "3"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == TAIL_HEADER and [int(line.split()[0]) for line in lines] == [7, 8, 9]
    place = TAIL_HEADER.index("hash")
    for line, block in zip(lines, driver.blocks[6:], strict=True):
        assert line[place : place + 8] == block.hash.hex()[:8]
    assert flchain(["chain", "tail", str(path.parent), "-n", "99", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["height"] for item in found] == list(range(1, 10))
    assert found[1]["transactions"] == {"commit": 3} and found[SETTLES - 1]["accepted"] == 3


def test_nothing_is_written(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes and folder are the same after both commands."""
    before, files = path.read_bytes(), sorted(path.parent.iterdir())
    flchain(["chain", "tail", str(path)])
    flchain(["chain", "show", str(path), "head"])
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == files


def test_damage_is_told(driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A block that cannot be decoded is named by its height, exit code 1; no ledger is 78."""
    path = tmp_path / "ledger.db"
    write_ledger(path, driver)
    change(path, "UPDATE blocks SET header = ? WHERE height = 4", flip(get_row(driver, 3).header, 0, 0xFF))
    assert flchain(["chain", "show", str(path), "4"]) == EXIT_FAULT
    assert "height 4" in capsys.readouterr().err
    assert flchain(["chain", "tail", str(path)]) == EXIT_FAULT
    assert flchain(["chain", "show", str(path), "3"]) == 0
    assert flchain(["chain", "tail", str(tmp_path / "none")]) == EXIT_CONFIG


def test_follow_sees_what_another_process_appends(driver: Driver, tmp_path: Path) -> None:
    """Blocks come as they become final in another process, each once and in order."""
    path, seen = tmp_path / "ledger.db", list[int]()
    write_ledger(path, Driver(driver.chain, driver.states[:4], driver.blocks[:3], driver.certificates[:3]))
    views = follow(path, 2, is_following=True)
    seen += [next(views).header.height, next(views).header.height]

    def append(acknowledge: Callable[[int], None]) -> None:
        async def scenario() -> None:
            ledger = await Ledger.open(path, driver.chain.genesis, driver.chain.model)
            for index in range(3, 9):
                await ledger.append(driver.blocks[index], driver.certificates[index])
                acknowledge(index)
            await asyncio.sleep(WAIT_S)

        asyncio.run(scenario())

    kill_after(6, append, before_kill=lambda: seen.extend(next(views).header.height for _ in range(6)))
    assert seen == list(range(2, 10))


def test_ctrl_c_ends_a_follow_cleanly(path: Path) -> None:
    """After its first lines Ctrl-C ends it with 130 and without a traceback."""
    command = [sys.executable, "-m", "tools.cli", "chain", "tail", str(path), "-n", "2", "--follow"]
    with start_child(command) as process:
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
        assert [line.split()[0] for line in lines] == ["height", "8", "9"]
        assert process.stderr.read() == ""


@pytest.mark.parametrize("arguments", [[], ["show"], ["tail"]])
def test_help_explains(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every level has its help."""
    with pytest.raises(SystemExit) as left:
        flchain(["chain", *arguments, "--help"])
    assert left.value.code == 0 and capsys.readouterr().out.startswith("usage: flchain chain")
