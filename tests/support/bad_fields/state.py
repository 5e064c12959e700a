"""Bad input, last room: a whole state under a final header, every field of every leaf."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from flchain.base import merkle
from flchain.ledger.snapshot import build_carried_proof, decode_state, encode_state, verify_carried_proof
from flchain.ledger.state_tree import get_leaves
from flchain.wire.envelope import HEADER_BYTES_MAX, decode, decode_struct, encode
from flchain.wire.messages import Header, Phase
from tests.support.bad_fields.table import OTHER_20, OTHER_32, SHAPES, Bench, Effect, Fault, Outcome, Row, attempt
from tests.support.builders.chain import Driver, build_chain, make_scores, replace_header
from tests.support.builders.stake import delegate, undelegate

DROPPED = Effect.DROPPED
STATE = "to, to a miner, under a final header"

# --- a state --------------------------------------------------------------------------------------------------------

LEAVES: dict[str, tuple[str, ...]] = {
    "account": ("address", "public_key", "balance", "sequence"),
    "device": ("address", "public_key", "home", "reputation", "absent", "unscored"),
    "candidate": ("address", "public_key", "numbers", "jail"),
    "delegation": ("delegator", "candidate", "amount"),
    "unbonding": ("delegator", "candidate", "amount", "due_ms"),
    "round": ("place", "commits", "reveals", "score_commits", "score_reveals", "pledges"),
    "totals": ("model_hash", "carried_hash", "minted", "burned"),
}
"""The fields of each leaf, as `state_tree` writes them; those that are lists of others are in NESTED."""
NUMBERS = ("power", "commission_bp", "knowledge", "reputation", "priority", "absent")
JAIL = ("is_jailed", "jailed_until", "judged_height")
PLACE = ("number", "phase", "heights")
NESTED: dict[tuple[str, str], tuple[str, ...]] = {
    ("candidate", "numbers"): NUMBERS,
    ("candidate", "jail"): JAIL,
    ("round", "place"): PLACE,
}
FIELD_SHAPES = {
    "address": "address",
    "home": "address",
    "delegator": "address",
    "candidate": "address",
    "public_key": "hash",
    "model_hash": "hash",
    "carried_hash": "hash",
    "reputation": "share",
    "commission_bp": "share",
    "knowledge": "share",
    "priority": "any whole",
    "phase": "phase",
}
"""Of the fields of leaves; all others are whole numbers, or lists."""


@lru_cache
def get_state_driver() -> Driver:
    """A row in every table, in the last phase of the second round."""
    chain = build_chain(holders=2)
    made = Driver(chain)
    made.run_round()
    made.extend(orders=[delegate(made.state, chain.holders[0], chain.miners[0], 60)])
    made.extend(orders=[undelegate(made.state, chain.holders[0], chain.miners[0], 20)])
    made.go_to(Phase.SETTLE, pledged=[0])
    made.score_reveal({0: make_scores(made.state)})
    return made


def get_parts() -> list[Any]:
    parts = decode(encode_state(get_state_driver().state), 1_000_000)
    assert isinstance(parts, list)
    return parts


def take_state(parts: list[Any], *, is_certified: bool = False) -> Outcome:
    """A state under its header, or under one that liars have certified for it."""
    driver = get_state_driver()
    block = driver.blocks[-1]
    header = replace_header(block, state_root=merkle.compute_root(parts[0])) if is_certified else block.header_bytes
    return attempt(lambda: decode_state(encode(parts), header, driver.state.params, 1_000_000))


STATE_BENCH = Bench("State", STATE, get_parts, take_state)
LYING = Bench("State", STATE + " of liars", get_parts, partial(take_state, is_certified=True))


def _find_leaf(name: str) -> int:
    return next(i for i, leaf in enumerate(get_leaves(get_state_driver().state)) if decode(leaf, len(leaf))[0] == name)


def _with_leaf(name: str, path: tuple[int, ...], value: object, parts: list[Any]) -> list[Any]:
    """The parts with one item of the first leaf of a table changed."""
    place = _find_leaf(name)
    leaf = decode(parts[0][place], len(parts[0][place]))
    target = leaf
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return [[*parts[0][:place], encode(leaf), *parts[0][place + 1 :]], *parts[1:]]


def get_proof_parts() -> list[Any]:
    parts = decode(build_carried_proof(get_state_driver().state), 1_000_000)
    assert isinstance(parts, list)
    return parts


def take_proof(parts: list[Any], *, is_certified: bool = False) -> Outcome:
    """What is carried, under its header; or under one that liars have certified for a state of this one leaf."""
    driver = get_state_driver()
    changes = {"state_root": merkle.compute_root([parts[1]])} if is_certified else {}
    header = decode_struct(replace_header(driver.blocks[-1], **changes), Header, HEADER_BYTES_MAX)
    return attempt(lambda: verify_carried_proof(encode(parts), header, driver.state.params))


CARRIED = "to, to a full device, beside a model"
CARRIED_BENCH = Bench("CarriedProof", CARRIED, get_proof_parts, take_proof)
ALONE = Bench(
    "CarriedProof",
    CARRIED + ", of liars",
    lambda: [*get_proof_parts()[:2], 1, []],
    partial(take_proof, is_certified=True),
)


def build_carried_rows() -> list[Row]:
    """What the downstream rule carries, with its proof: every part."""
    rows = [
        Row(CARRIED_BENCH, f, wrong, change, code, DROPPED, said) for f, wrong, change, code, said in _CARRIED_CASES
    ]
    strange = get_leaves(get_state_driver().state)[0]
    return [
        *rows,
        Row(
            ALONE,
            "totals",
            "a leaf of another table",
            lambda p: [p[0], strange, *p[2:]],
            "malformed",
            DROPPED,
            "totals",
        ),
        Row(ALONE, "totals", "no leaf", lambda p: [p[0], b"\x01", *p[2:]], "malformed", DROPPED, "no table"),
    ]


def build_state_rows() -> list[Row]:
    """Every field of every leaf: changed, it is not the header's state; of a wrong type, no header makes it right."""
    rows: list[Row] = []
    for name, fields in LEAVES.items():
        for index, field in enumerate(fields, start=1):
            nested = NESTED.get((name, field))
            places = [(f, (index, i)) for i, f in enumerate(nested)] if nested else [(field, (index,))]
            for inner, path in places:
                rows += _build_leaf_rows(name, inner, path)
    rows += [
        Row(STATE_BENCH, field, wrong, change, code, DROPPED, detail)
        for field, wrong, change, code, detail in _STATE_CASES
    ]
    return rows + [Row(LYING, f, wrong, change, "malformed", DROPPED, detail) for f, wrong, change, detail in _LIES]


def _build_leaf_rows(name: str, field: str, path: tuple[int, ...]) -> list[Row]:
    kind = type(_read(name, path))
    shape = FIELD_SHAPES.get(field, "whole" if kind is int or field == "due_ms" else "list")
    other: object = OTHER_20 if shape == "address" else OTHER_32 if shape == "hash" else 77 if kind is int else []
    detail = "not the state that the header names"
    label = f"{name}.{field}"
    changed = Row(STATE_BENCH, label, "another", partial(_with_leaf, name, path, other), "malformed", DROPPED, detail)
    faults: list[Fault] = [f for f in SHAPES[shape] if not (field == "due_ms" and f[1] is None)]
    where = "$" + "".join(f"[{step}]" for step in (path[0] - 1, *path[1:]))
    lies = [Row(LYING, label, w, partial(_with_leaf, name, path, v), "malformed", DROPPED, where) for w, v in faults]
    return [changed, *lies]


def _read(name: str, path: tuple[int, ...]) -> object:
    leaf = get_leaves(get_state_driver().state)[_find_leaf(name)]
    value = decode(leaf, len(leaf))
    for step in path:
        value = value[step]
    return value


_STATE_CASES: tuple[tuple[str, str, Callable[[Any], Any], str, str], ...] = (
    ("leaves", "one missing", lambda p: [p[0][1:], *p[1:]], "malformed", "not the state"),
    ("leaves", "in another order", lambda p: [p[0][::-1], *p[1:]], "malformed", "not the state"),
    ("leaves", "none", lambda p: [[], *p[1:]], "malformed", "not the state"),
    ("leaves", "text", lambda p: [["x"], *p[1:]], "malformed", "$[0]"),
    ("updates", "another", lambda p: [p[0], [b"x", *p[1][1:]], *p[2:]], "malformed", "not the updates"),
    ("updates", "one missing", lambda p: [p[0], p[1][1:], *p[2:]], "malformed", "not the updates"),
    ("updates", "null", lambda p: [p[0], None, *p[2:]], "malformed", "$[1]"),
    ("vector", "another", lambda p: [*p[:2], bytes(len(p[2])), p[3]], "malformed", "not the model"),
    ("vector", "of another length", lambda p: [*p[:2], p[2][:-4], p[3]], "malformed-update", "parameters"),
    ("vector", "null", lambda p: [*p[:2], None, p[3]], "malformed", "$[2]"),
    ("carried", "another", lambda p: [*p[:3], bytes(len(p[3]))], "malformed", "is carried"),
    ("carried", "none, as if it were zeros", lambda p: [*p[:3], b""], "malformed", "is carried"),
    ("carried", "of another length", lambda p: [*p[:3], p[3][:-4]], "malformed-update", "parameters"),
    ("carried", "null", lambda p: [*p[:3], None], "malformed", "$[3]"),
    ("parts", "one less", lambda p: p[:3], "malformed", "length 4"),
    ("parts", "one more", lambda p: [*p, b""], "malformed", "length 4"),
)
_CARRIED_CASES: tuple[tuple[str, str, Callable[[Any], Any], str, str], ...] = (
    ("carried", "another", lambda p: [bytes(len(p[0])), *p[1:]], "malformed", "is carried"),
    ("carried", "none, as if it were zeros", lambda p: [b"", *p[1:]], "malformed", "is carried"),
    ("carried", "of another length", lambda p: [p[0][:-4], *p[1:]], "malformed-update", "parameters"),
    ("carried", "longer than any", lambda p: [bytes(9_000), *p[1:]], "oversized", ""),
    ("carried", "null", lambda p: [None, *p[1:]], "malformed", "$[0]"),
    (
        "totals",
        "another leaf",
        lambda p: [p[0], get_leaves(get_state_driver().state)[0], *p[2:]],
        "malformed",
        "a leaf",
    ),
    ("totals", "a bit flipped", lambda p: [p[0], p[1][:-1] + b"\xff", *p[2:]], "malformed", "not a leaf"),
    ("totals", "null", lambda p: [p[0], None, *p[2:]], "malformed", "$[1]"),
    ("leaves_count", "one more", lambda p: [*p[:2], p[2] + 1, p[3]], "malformed", "not a leaf"),
    ("leaves_count", "0", lambda p: [*p[:2], 0, p[3]], "malformed", "not a leaf"),
    ("leaves_count", "-1", lambda p: [*p[:2], -1, p[3]], "malformed", "not a leaf"),
    ("leaves_count", "text", lambda p: [*p[:2], "1", p[3]], "malformed", "$[2]"),
    ("path", "empty", lambda p: [*p[:3], []], "malformed", "not a leaf"),
    ("path", "one hash more", lambda p: [*p[:3], [*p[3], OTHER_32]], "malformed", "not a leaf"),
    ("path", "text", lambda p: [*p[:3], ["x"]], "malformed", "$[3]"),
    ("parts", "one less", lambda p: p[:3], "malformed", "length 4"),
    ("parts", "one more", lambda p: [*p, b""], "malformed", "length 4"),
)
_LIES: tuple[tuple[str, str, Callable[[Any], Any], str], ...] = (
    ("leaves", "of no table", lambda p: [[*p[0], encode(["strange", 1])], *p[1:]], "no table"),
    ("leaves", "no list", lambda p: [[*p[0], encode(1)], *p[1:]], "no table"),
    ("leaves", "an empty list", lambda p: [[*p[0], encode([])], *p[1:]], "no table"),
    ("leaves", "a list for a name", lambda p: [[*p[0], encode([[], 1])], *p[1:]], "no table"),
    ("leaves", "no totals", lambda p: [p[0][:-1], *p[1:]], "once"),
    ("leaves", "totals twice", lambda p: [[*p[0], p[0][-1]], *p[1:]], "once"),
    ("leaves", "two open rounds", lambda p: [[*p[0], p[0][-2]], *p[1:]], "once"),
)
