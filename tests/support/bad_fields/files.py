"""Bad input, sixth room: what an operator gives a node, the genesis file and an export file."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec

from flchain.base.errors import ConfigError
from flchain.base.fixedpoint import encode_vector
from flchain.ledger.genesis import Genesis, decode_genesis, encode_genesis
from flchain.ledger.params import ChainParams
from flchain.wire.envelope import encode
from flchain.wire.messages import DeviceEntry, HolderEntry, ValidatorEntry
from miner.edge.ledger.export import END, FORMAT, ImportFault, import_file
from miner.edge.ledger.ledger import Ledger
from tests.support.bad_fields.table import (
    OTHER_20,
    Bench,
    Effect,
    Line,
    Outcome,
    Row,
    attempt,
    build_rows,
    build_shape_rows,
    replace,
)
from tests.support.builders.chain import Driver, build_chain
from tests.support.builders.ledger import drive, get_row

STOP = Effect.STOP
GENESIS = "a genesis file, at the start"
EXPORT = "an export file, imported"

# --- genesis --------------------------------------------------------------------------------------------------------

PARAMS_SHAPES = {
    "codec": "name",
    "codec_level": "count",
    "downstream_codec": "name",
    "downstream_level": "count",
    "aggregation": "name",
    "privacy": "name",
    "clip_norm_thousandths": "count",
    "noise_multiplier_thousandths": "count or 0",
    "consensus": "name",
    "proposer_rule": "name",
    "model_digest": "hash",
    "parameters_count": "count",
    "initial_model_hash": "hash",
    "local_epochs": "count",
    "batch_size": "count",
    "learning_rate_millionths": "count",
    "samples_cap": "samples",
    "score_margin_bp": "share",
    "reward_rule": "name",
    "reward_per_update": "count or 0",
    "reward_for_scores": "count or 0",
    "score_outlier_bp": "share",
    "mining_weight_bp": "mining share",
    "seats": "seats",
    "epoch_rounds": "count",
    "power_cap_bp": "share above 0",
    "bond_min": "count",
    "stake_min": "count",
    "order_fee": "count or 0",
    "unbonding_s": "count",
    "trusting_s": "count",
    "evidence_heights_max": "count",
    "slash_bp": "share",
    "jail_rounds": "count",
    "phase_heights_max": "count",
    "absent_rounds_max": "count",
    "timeout_propose_ms": "count",
    "timeout_vote_ms": "count",
    "timeout_growth_ms": "count or 0",
    "patience_ms": "count",
    "commit_patience_ms": "count",
}
GENESIS_SHAPES = {
    "version": "one",
    "name": "title",
    "time_ms": "counter",
    "validators": "list",
    "devices": "list",
    "holders": "list",
}
VALIDATOR_SHAPES = {"public_key": "hash", "bond": "count", "commission_bp": "share"}
DEVICE_SHAPES = {"public_key": "hash", "home": "address"}
HOLDER_SHAPES = {"public_key": "hash", "balance": "positive"}


@lru_cache
def get_genesis() -> Genesis:
    return build_chain(holders=2).genesis


def read_genesis(genesis: Genesis) -> Outcome:
    return attempt(lambda: decode_genesis(encode_genesis(genesis)))


def in_genesis(field: str, part: Any) -> Outcome:
    """A genesis with another part: its parameters, or the first entry of a table."""
    genesis = get_genesis()
    value = part if field == "params" else (part, *getattr(genesis, field)[1:])
    return read_genesis(replace(genesis, field, value))


GENESIS_BENCH = Bench("Genesis", GENESIS, get_genesis, read_genesis)
PARAMS_BENCH = Bench("ChainParams", GENESIS, lambda: get_genesis().params, partial(in_genesis, "params"))
VALIDATOR_BENCH = Bench(
    "ValidatorEntry", GENESIS, lambda: get_genesis().validators[0], partial(in_genesis, "validators")
)
DEVICE_BENCH = Bench("DeviceEntry", GENESIS, lambda: get_genesis().devices[0], partial(in_genesis, "devices"))
HOLDER_BENCH = Bench("HolderEntry", GENESIS, lambda: get_genesis().holders[0], partial(in_genesis, "holders"))
SMALL_ORDER = bytes((1, *bytes(31)))
GENESIS_LINES: list[Line] = [
    ("params", "no list", 1, "", STOP, "$[3]"),
    ("params", "one less", lambda g: msgspec.to_builtins(g.params, builtin_types=(bytes,))[:-1], "", STOP, "$[3]"),
    ("validators", "none", (), "", STOP, "$[4]"),
    ("validators", "65 of them", lambda g: g.validators[:1] * 65, "", STOP, "$[4]"),
    ("validators", "one twice", lambda g: (*g.validators, g.validators[0]), "", STOP, "appears twice"),
    ("devices", "1025 of them", lambda g: g.devices[:1] * 1_025, "", STOP, "1025 devices, one chain has at most 1024"),
    ("devices", "also a validator", lambda g: (_as_device(g),), "", STOP, "appears twice"),
    ("holders", "1025 of them", lambda g: g.holders[:1] * 1_025, "", STOP, "$[6]"),
    ("holders", "one twice", lambda g: g.holders[:1] * 2, "", STOP, "appears twice"),
]
PLUGINS = ("codec", "downstream_codec", "aggregation", "privacy", "consensus", "proposer_rule", "reward_rule")
PARAMS_LINES: list[Line] = [
    *((name, "unknown", "no-such-name", "", STOP, f"{name}: unknown name 'no-such-name'; known:") for name in PLUGINS),
    ("codec", "one that cannot work with the level", "adaptive", "", STOP, "codec_level: adaptive"),
    ("downstream_codec", "one that cannot work with the level", "adaptive", "", STOP, "downstream_level: adaptive"),
    ("downstream_codec", "a sketch below another codec", "count-sketch", "", STOP, "downstream_codec: sparse-ternary"),
    ("trusting_s", "longer than `unbonding_s`", lambda p: p.unbonding_s + 1, "", STOP, "trusting_s: longer"),
    ("unbonding_s", "shorter than `trusting_s`", lambda p: p.trusting_s - 1, "", STOP, "trusting_s: longer"),
    ("bond_min", "more than any validator has", 2**31 - 1, "", STOP, "no validator has bonded"),
    ("parameters_count", "more than a message carries", 2**31 - 1, "", STOP, "messages carry"),
]


def _as_device(genesis: Genesis) -> DeviceEntry:
    return replace(genesis.devices[0], "public_key", genesis.validators[0].public_key)  # type: ignore[no-any-return]


def build_genesis_rows() -> list[Row]:
    """Every field of a genesis: the node does not start, and says what is wrong."""
    rows = build_rows(GENESIS_BENCH, GENESIS_LINES) + build_rows(PARAMS_BENCH, PARAMS_LINES)
    parts: tuple[tuple[Bench, type[msgspec.Struct], dict[str, str], str], ...] = (
        (GENESIS_BENCH, Genesis, GENESIS_SHAPES, "$"),
        (PARAMS_BENCH, ChainParams, PARAMS_SHAPES, "$[3]"),
        (VALIDATOR_BENCH, ValidatorEntry, VALIDATOR_SHAPES, "$[4][0]"),
        (DEVICE_BENCH, DeviceEntry, DEVICE_SHAPES, "$[5][0]"),
        (HOLDER_BENCH, HolderEntry, HOLDER_SHAPES, "$[6][0]"),
    )
    for bench, struct, shapes, prefix in parts:
        rows += build_shape_rows(bench, struct, shapes, prefix=prefix, code="", effect=STOP)
    key: Line = ("public_key", "no point of prime order", SMALL_ORDER, "", STOP, "not an Ed25519 public key")
    for bench in (VALIDATOR_BENCH, DEVICE_BENCH, HOLDER_BENCH):
        rows += build_rows(bench, [key])
    return rows + build_rows(DEVICE_BENCH, [("home", "no validator", OTHER_20, "", STOP, "has a home that is not")])


# --- an export file -------------------------------------------------------------------------------------------------

BLOCKS = 2
Items = tuple[tuple[bytes, bytes, bytes], ...]
"""The file: its head, its blocks, its end."""


@lru_cache
def get_driver() -> Driver:
    return drive(1)


@lru_cache
def get_items() -> Items:
    chain, rows = get_driver().chain, [get_row(get_driver(), index) for index in range(BLOCKS)]
    head = (FORMAT, encode_genesis(chain.genesis), encode_vector(chain.model))
    end = (END, BLOCKS.to_bytes(8, "big"), bytes(rows[-1].hash))
    return (head, *((row.header, row.certificate, row.body) for row in rows), end)


def import_items(items: Items | bytes) -> Outcome:
    """What `flchain-miner import` says; nothing of a wrong block is in the ledger after it."""
    chain = get_driver().chain
    data = items if isinstance(items, bytes) else b"".join(encode(list(item)) for item in items)

    async def run(folder: Path) -> int:
        (folder / "file").write_bytes(data)
        ledger = await Ledger.open(folder / "ledger.db", chain.genesis, chain.model)
        try:
            return (await import_file(ledger, chain.genesis, chain.model, folder / "file"))[1]
        finally:
            await ledger.close()

    with tempfile.TemporaryDirectory() as folder:
        try:
            height = asyncio.run(run(Path(folder)))
        except (ConfigError, ImportFault) as error:
            return Outcome("", STOP, str(error))
    assert height == BLOCKS
    return Outcome("", Effect.TAKEN)


EXPORT_BENCH = Bench("Export", EXPORT, get_items, import_items)
EXPORT_FIELDS = (("format", "genesis", "model"), ("header", "certificate", "body"), ("end", "height", "head"))


def build_export_rows() -> list[Row]:
    """Every field of an export file, one of each: head, second block, end."""
    rows = []

    def add(field: str, wrong: str, change: Callable[[Items], Items | bytes], detail: str) -> None:
        rows.append(Row(EXPORT_BENCH, field, wrong, change, "", STOP, detail))

    names = ("another chain", "height 2", "end of the file")
    for place, (item, detail) in zip((0, BLOCKS, BLOCKS + 1), zip(EXPORT_FIELDS, names, strict=True), strict=True):
        for part, field in enumerate(item):
            add(field, "a bit flipped", partial(_flip, place, part), "height 3" if field == "end" else detail)
            wrong = partial(_set, place, part, b"")
            add(field, "empty", wrong, "height 3" if field == "end" else detail)
    add("items", "cut off", lambda items: _join(items)[:-1], "height 3")
    add("items", "a byte after the end", lambda items: _join(items) + b"\0", "end of the file")
    add("items", "a block twice", lambda items: (*items[:3], items[2], items[3]), "height 3")
    add("items", "a block missing", lambda items: (items[0], *items[2:]), "height 1")
    add("items", "one of four parts", lambda items: _join(items[:3]) + encode([END, b"", b"", b""]), "height 3")
    add("items", "a part of 2^60 bytes", lambda items: _join(items[:3]) + b"\x83\x5b" + (2**60).to_bytes(8, "big"), "3")
    return rows


def _join(items: Items) -> bytes:
    return b"".join(encode(list(item)) for item in items)


def _set(place: int, part: int, value: bytes, items: Items) -> Items:
    item = items[place]
    changed = (*item[:part], value, *item[part + 1 :])
    first, second, third = changed
    return (*items[:place], (first, second, third), *items[place + 1 :])


def _flip(place: int, part: int, items: Items) -> Items:
    value = items[place][part]
    return _set(place, part, value[:-1] + bytes((value[-1] ^ 1,)), items)
