"""`flchain stake`: what it shows of a ledger, what it sends, what it makes of answers, and its errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flchain.base.crypto import Identity
from flchain.ledger.genesis import encode_genesis
from flchain.ledger.state import find_account
from flchain.wire.envelope import open_envelope, seal
from flchain.wire.messages import Receipt, Register, Undelegate
from flchain.wire.packets import PacketType, decode_packet, encode_packet
from flchain.wire.topics import Topics
from flchain_edge.keys import keystore
from flchain_edge.keys.keystore import load_or_create_identity
from flchain_edge.mqtt.inbox import Received
from flchain_edge.mqtt.settings import MqttSettings
from miner.edge.ledger.prune import prune_ledger
from tests.support.builders.chain import build_identity
from tests.support.builders.ledger import write_ledger
from tests.support.builders.stake import StakeDriver, accuse, build_stake_chain, transfer
from tests.support.networks.mqtt_link import InboxLink, settings_for, started
from tools.cli import main as flchain
from tools.inspect.stake import _read_address, _read_amount, _read_percent, _read_public_key
from tools.inspect.stake_send import Access, OrderFailed, judge, publish, read_receipt
from tools.inspect.stake_view import LedgerView
from tools.network.broker import Broker, start_broker

EXIT_FAULT, EXIT_CONFIG = 1, 78
CHAIN = build_stake_chain(order_fee=2, bond_min=50, powers=[100] * 4, holders=2)
RICH, OTHER = CHAIN.holders
GUILTY, CLEAN = CHAIN.miners[1], CHAIN.miners[0]
TOPICS = Topics.of_chain(CHAIN.id)


@pytest.fixture(scope="module")
def driver() -> StakeDriver:
    """A round in which a holder registers, takes some back, and a validator is jailed."""
    made = StakeDriver(CHAIN)
    made.order(RICH, Register, 250, 300)
    made.order(RICH, Undelegate, RICH.address, 100)
    made.extend(orders=[accuse(made.state, RICH, GUILTY)])
    made.run_round()
    return made


@pytest.fixture(scope="module")
def path(driver: StakeDriver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stake") / "ledger.db"
    write_ledger(path, driver)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file, whose account owns nothing on the chain."""
    load_or_create_identity(tmp_path / "key.pem", None)
    return tmp_path / "key.pem"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker("nats", tmp_path_factory.mktemp("broker")) as started_broker:
        yield started_broker


def show(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert flchain(["stake", "show", "--data", str(path), "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# ------------------------------------------------------------------------------------------------ show


def test_show_tells_who_is_a_candidate(path: Path, driver: StakeDriver, capsys: pytest.CaptureFixture[str]) -> None:
    """Stake, share of power, commission, standing and jail of each candidate, those with seats first."""
    found = show(path, capsys)
    assert (found["height"], found["round"], found["election_after_round"]) == (driver.state.height, 2, 4)
    listed = {candidate["address"]: candidate for candidate in found["candidates"]}
    assert len(listed) == 5 and found["account"] is None
    assert [bool(c["power"]) for c in found["candidates"]] == [True, True, True, False, False]
    jailed, new, clean = listed[GUILTY.address.hex()], listed[RICH.address.hex()], listed[CLEAN.address.hex()]
    assert (jailed["is_jailed"], jailed["jailed_until_round"], jailed["stake"]) == (True, 5, 95)
    assert (new["stake"], new["bond"], new["power"], new["commission_percent"]) == (200, 200, 0, 2.5)
    assert clean["power_percent"] == pytest.approx(33.33)


@pytest.mark.parametrize("who", [RICH.address.hex(), RICH.public_key.hex()])
def test_show_tells_what_an_account_has(
    path: Path, driver: StakeDriver, who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Balance, the next order's number, what is behind whom, and what is on its way back, by address or by key."""
    account = show(path, capsys, "--account", who)["account"]
    assert (account["balance"], account["sequence"]) == (1_000 - 300 - 4, 2)
    assert account["delegations"] == [{"candidate": RICH.address.hex(), "amount": 200}]
    due_ms = driver.state.unbondings[0].due_ms
    assert account["unbondings"] == [{"candidate": RICH.address.hex(), "amount": 100, "due_ms": due_ms}]


def test_show_for_people(path: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table names every candidate, says who is in jail until when, and how to get an account."""
    assert flchain(["stake", "show", "--data", str(path), "--key", str(key)]) == 0
    text = capsys.readouterr().out
    assert all(c.address.hex() in text for c in CHAIN.state.candidates)
    assert "until round 5, then unjail" in text
    assert "the first transfer to its public key makes it" in text
    assert flchain(["stake", "show", "--data", str(path), "--account", RICH.address.hex()]) == 0
    assert "100 being returned from" in capsys.readouterr().out


def test_a_pruned_ledger_shows_its_newest_state(path: Path, driver: StakeDriver, tmp_path: Path) -> None:
    """A ledger that begins with a state beyond genesis shows that state and what followed, not the genesis."""
    for keep in (0, 1):
        pruned = tmp_path / f"{keep}.db"
        pruned.write_bytes(path.read_bytes())
        asyncio.run(prune_ledger(pruned, CHAIN.genesis, CHAIN.state.model, keep))
        view = LedgerView(pruned)
        assert view.state.height == driver.state.height
        assert find_account(view.state, RICH.address) == find_account(driver.state, RICH.address)


def test_a_growing_ledger_is_read_on(tmp_path: Path) -> None:
    """Only what is new is read, and the block that carries an order is found."""
    driver = StakeDriver(CHAIN)
    driver.open()
    write_ledger(tmp_path / "ledger.db", driver)
    view = LedgerView(tmp_path / "ledger.db")
    raw = transfer(driver.state, RICH, OTHER, 5)
    assert view.read_on(raw) is None
    driver.extend(orders=[raw])
    (tmp_path / "ledger.db").unlink()
    write_ledger(tmp_path / "ledger.db", driver)
    assert view.read_on(raw) == view.state.height == 2


# -------------------------------------------------------------------------------------------- receipts


def access(broker: Broker | None = None) -> Access:
    mqtt = settings_for(broker) if broker is not None else MqttSettings("127.0.0.1", 1)
    return Access(CHAIN.genesis, RICH, mqtt, None)


RAW = transfer(CHAIN.state, RICH, OTHER, 10)
DIGEST = open_envelope(RAW, CHAIN.id).digest()
MINER_KEYS = {miner.address: miner.public_key for miner in CHAIN.miners[:4]}


def receipt(miner: Identity, code: str = "ok", digest: bytes = DIGEST, topic_of: Identity | None = None) -> Received:
    raw = seal(Receipt(0, digest, code), CHAIN.id, miner)
    topic = TOPICS.miner_to((topic_of or miner).address, RICH.address)
    return Received(topic, encode_packet(PacketType.MESSAGE, raw), False)


@pytest.mark.parametrize(
    "event",
    [
        "not a message",
        Received("elsewhere", b"", False),
        Received(TOPICS.miner_to(CHAIN.miners[0].address, RICH.address), b"\xff", False),
        receipt(CHAIN.miners[0], digest=b"d" * 32),
        receipt(build_identity(9, 9)),
        receipt(CHAIN.miners[0], topic_of=CHAIN.miners[1]),
    ],
)
def test_what_is_no_receipt_of_a_miner_says_nothing(event: object) -> None:
    """Garbage, other orders' receipts, strangers' and those under another's topic do not count."""
    assert read_receipt(event, access(), MINER_KEYS, DIGEST) is None
    assert read_receipt(receipt(CHAIN.miners[0]), access(), MINER_KEYS, DIGEST) == (CHAIN.miners[0].address, "ok")


@contextlib.asynccontextmanager
async def answering(broker: Broker, codes: dict[Identity, str]) -> AsyncIterator[list[bytes]]:
    """Something that answers each order as these miners would; gives the orders it has heard."""
    heard: list[bytes] = []

    async def answer(link: InboxLink) -> None:
        while True:
            event = await link.events.get()
            if isinstance(event, Received):
                raw = decode_packet(event.payload).fields[0]
                heard.append(raw)
                for miner, code in codes.items():
                    said = receipt(miner, code, open_envelope(raw, CHAIN.id).digest())
                    link.publish(said.topic, said.payload)

    async with started(InboxLink(settings_for(broker)), TOPICS.all_devices("up")) as link:
        task = asyncio.create_task(answer(link))
        try:
            yield heard
        finally:
            task.cancel()


@pytest.mark.parametrize(
    ("codes", "outcome"),
    [
        ({CHAIN.miners[0]: "ok"}, "ok"),
        ({CHAIN.miners[0]: "wrong-sequence", CHAIN.miners[1]: "ok"}, "ok"),
        (dict.fromkeys(CHAIN.miners[:4], "refused-order"), "refused-order"),
        (dict.fromkeys(CHAIN.miners[:4], "wrong-sequence"), "sequence is too low"),
    ],
)
def test_one_miner_that_takes_the_order_is_enough(broker: Broker, codes: dict[Identity, str], outcome: str) -> None:
    """A miner that is behind may refuse; only if all do, the order is refused, with the reason."""

    async def play() -> dict[Any, str]:
        async with answering(broker, codes) as heard:
            said = await publish(access(broker), RAW, 20)
            assert heard[0] == RAW
            return dict(said)

    said = asyncio.run(play())
    if outcome == "ok":
        assert judge(said, 20) == next(miner.address.hex() for miner, code in codes.items() if code == "ok")
    else:
        with pytest.raises(OrderFailed, match=outcome):
            judge(said, 20)


def test_no_broker_and_no_answer_are_told_apart(broker: Broker) -> None:
    """Without a broker the text names it; with one but no miner it says that the order may still get into a block."""
    with pytest.raises(OrderFailed, match=r"no connection to the broker at 127\.0\.0\.1:1"):
        asyncio.run(publish(access(), RAW, 0.5))
    with pytest.raises(OrderFailed, match="no miner answered"):
        judge(asyncio.run(publish(access(broker), RAW, 1.0)), 1.0)


# ---------------------------------------------------------------------------------------------- errors


def test_a_wrong_order_is_not_sent(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a ledger at hand an order is tried out on it first, and what a rule refuses never leaves: exit code 1."""
    key = tmp_path / "rich.pem"
    write_key(key, RICH)
    options = ["--key", str(key), "--data", str(path), "--port", "1"]
    for words, text in (
        (["transfer", "--to", OTHER.public_key.hex(), "--amount", "5000"], "insufficient-funds"),
        (["register", "--amount", "100"], "refused-order"),
        (["delegate", "--candidate", OTHER.address.hex(), "--amount", "10"], "is not a candidate"),
        (["undelegate", "--candidate", "self", "--amount", "201"], "insufficient-funds"),
        (["unjail"], "not in jail"),
    ):
        assert flchain(["stake", *words, *options]) == EXIT_FAULT
        told = capsys.readouterr().err
        assert told.startswith("error: not sent, ") and text in told


def write_key(path: Path, identity: Identity) -> None:
    """The key file of a test's identity: `load_or_create_identity` makes only new ones."""
    seed = next(
        bytes((1, number)) * 16 for number in range(256) if build_identity(1, number).address == identity.address
    )
    path.write_text(keystore._encode_key(seed, None))
    path.chmod(0o600)


def test_what_is_missing_is_named(path: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No key, no chain, no number, no account, another chain, no ledger to wait on: each is named, exit 78."""
    other = StakeDriver(build_stake_chain(seed=2))
    other.open()
    write_ledger(tmp_path / "other.db", other)
    (tmp_path / "genesis.cbor").write_bytes(encode_genesis(CHAIN.genesis))
    genesis, pay = str(tmp_path / "genesis.cbor"), ["transfer", "--to", OTHER.public_key.hex(), "--amount", "5"]
    for options, text in (
        (["--key", str(key)], "give --config FILE, or --key FILE and --genesis"),
        (["--key", str(tmp_path / "none.pem"), "--genesis", genesis], "No such file"),
        (["--key", str(key), "--genesis", genesis], "give --sequence"),
        (["--key", str(key), "--data", str(path)], "has no account at height"),
        (["--key", str(key), "--genesis", genesis, "--data", str(tmp_path / "other.db")], "belongs to another chain"),
        (["--key", str(key), "--genesis", genesis, "--sequence", "0", "--wait"], "--wait needs a ledger"),
    ):
        assert flchain(["stake", *pay, *options]) == EXIT_CONFIG
        assert text in capsys.readouterr().err
    assert not (tmp_path / "none.pem").exists(), "a new key would own nothing"


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (_read_amount, ("0", "-1", "1.5", "x", str(2**53 + 1))),
        (_read_percent, ("-1", "100.01", "nan", "x", "inf")),
        (_read_address, ("", "ab", "xy" * 20, "ab" * 21)),
        (_read_public_key, ("", "ab" * 20, "xy" * 32)),
    ],
)
def test_wrong_options_are_refused(read: Any, texts: tuple[str, ...]) -> None:
    """Amounts are whole and positive, percentages from 0 to 100, addresses and keys of their length in hex."""
    for text in texts:
        with pytest.raises(ArgumentTypeError):
            read(text)


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """The help shows a command to start from."""
    with pytest.raises(SystemExit) as left:
        flchain(["stake", "--help"])
    assert left.value.code == 0
    assert "  flchain stake register --config miner.toml" in capsys.readouterr().out
