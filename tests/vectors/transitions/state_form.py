"""A whole ChainState as a flat table of paths and values, field by field, and back.

This form shares no code with the rules that the vectors pin: it neither calls the writers of the state's leaves nor
their readers, and it names every field. So two fields swapped in a leaf's writer and reader alike still change a root.
What is not under the root is here too: chain, params, height, head, time, the updates of the open round, `payload`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from flchain.ledger import params, state
from flchain.wire import messages
from tests.vectors.transitions import packing

Flat = dict[str, Any]
"""Path -> integer, text, list of integers, or bytes as packing writes them. "none" stands for no value."""

ACCOUNT = ("address", "public_key", "balance", "sequence")
DEVICE = ("address", "public_key", "home", "reputation", "absent", "unscored")
CANDIDATE = (
    *("address", "public_key", "power", "commission_bp", "knowledge", "reputation", "priority", "absent"),
    *("is_jailed", "jailed_until", "judged_height"),
)
DELEGATION = ("delegator", "candidate", "amount")
UNBONDING = ("delegator", "candidate", "amount", "due_ms")
REVEAL = ("sender", "samples", "update")
SCORES = ("scorer", "base_score", "scores", "aggregates")
ROUND_TABLES = ("commits", "reveals", "score_commits", "score_reveals", "pledges")
ROUND = ("number", "phase", "heights", *ROUND_TABLES)
TABLES = ("accounts", "devices", "candidates", "delegations", "unbondings")
PLACE = ("chain", "height", "head", "time_ms")
TOTALS = ("model_hash", "carried_hash", "minted", "burned", "payload")
RECORDED_AS = {"payload": "delta"}
"""The names of fields in the vectors, where they are others."""
STATE = (*PLACE, "params", *TABLES, "round", "model", "carried", *TOTALS)
NAMES_AND_NUMBERS = (
    *("codec", "codec_level", "downstream_codec", "downstream_level", "aggregation", "privacy"),
    *("clip_norm_thousandths", "noise_multiplier_thousandths", "consensus", "proposer_rule", "model_digest"),
    *("parameters_count", "initial_model_hash", "local_epochs", "batch_size", "learning_rate_millionths"),
    *("samples_cap", "score_margin_bp", "reward_rule", "reward_per_update", "reward_for_scores"),
    *("score_outlier_bp", "mining_weight_bp", "seats", "epoch_rounds", "power_cap_bp", "bond_min", "stake_min"),
    *("order_fee", "unbonding_s", "trusting_s", "evidence_heights_max", "slash_bp", "jail_rounds"),
    *("phase_heights_max", "absent_rounds_max", "timeout_propose_ms", "timeout_vote_ms", "timeout_growth_ms"),
    *("patience_ms", "commit_patience_ms"),
)
"""The fields of ChainParams."""
FILLED = {"accounts": ACCOUNT, "candidates": CANDIDATE, "delegations": DELEGATION}


def flatten(chain_state: state.ChainState) -> Flat:
    """Every field of a state by its path, in a fixed order."""
    s = chain_state
    flat: Flat = {name: packing.pack(getattr(s, name)) for name in PLACE}
    flat |= {f"params/{name}": packing.pack(getattr(s.params, name)) for name in NAMES_AND_NUMBERS}
    for table, rows, names in (
        ("accounts", s.accounts, ACCOUNT),
        ("devices", s.devices, DEVICE),
        ("candidates", s.candidates, CANDIDATE),
        ("delegations", s.delegations, DELEGATION),
        ("unbondings", s.unbondings, UNBONDING),
    ):
        flat |= _flatten_rows(table, rows, names)
    flat |= {"round/number": int(s.round.number), "round/phase": int(s.round.phase), "round/heights": s.round.heights}
    flat |= _flatten_pairs("round/commits", s.round.commits)
    flat |= _flatten_rows("round/reveals", s.round.reveals, REVEAL)
    flat |= _flatten_pairs("round/score_commits", s.round.score_commits)
    flat |= _flatten_rows("round/score_reveals", s.round.score_reveals, SCORES)
    flat |= {f"round/pledges/{i}": packing.pack(address) for i, address in enumerate(s.round.pledges)}
    flat["model"] = write_vector(s.model)
    flat |= {f"carried/{i}": write_vector(part) for i, part in enumerate(s.carried)}
    flat |= {RECORDED_AS.get(name, name): packing.pack(getattr(s, name)) for name in TOTALS}
    return flat


def _flatten_rows(table: str, rows: Sequence[object], names: tuple[str, ...]) -> Flat:
    return {
        f"{table}/{i}/{name}": "none" if (value := getattr(row, name)) is None else packing.pack(value)
        for i, row in enumerate(rows)
        for name in names
    }


def _flatten_pairs(table: str, pairs: Sequence[tuple[bytes, bytes]]) -> Flat:
    flat: Flat = {}
    for i, (sender, commitment) in enumerate(pairs):
        flat |= {f"{table}/{i}/sender": packing.pack(sender), f"{table}/{i}/commitment": packing.pack(commitment)}
    return flat


def unflatten(flat: Mapping[str, Any]) -> state.ChainState:
    """The state that `flatten` has written."""
    tree = _nest(flat)
    round_ = tree["round"]
    numbers = {name: packing.unpack(tree["params"][name]) for name in NAMES_AND_NUMBERS}
    return state.ChainState(
        **{name: packing.unpack(tree[name]) for name in PLACE},
        params=params.ChainParams(**numbers),
        accounts=tuple(state.Account(**row) for row in _read_rows(tree, "accounts")),
        devices=tuple(state.Device(**row) for row in _read_rows(tree, "devices")),
        candidates=tuple(state.Candidate(**row) for row in _read_rows(tree, "candidates")),
        delegations=tuple(state.Delegation(**row) for row in _read_rows(tree, "delegations")),
        unbondings=tuple(state.Unbonding(**row) for row in _read_rows(tree, "unbondings")),
        round=state.RoundState(
            number=round_["number"],
            phase=messages.Phase(round_["phase"]),
            heights=round_["heights"],
            commits=tuple((row["sender"], row["commitment"]) for row in _read_rows(round_, "commits")),
            reveals=tuple(state.RevealedUpdate(**row) for row in _read_rows(round_, "reveals")),
            score_commits=tuple((row["sender"], row["commitment"]) for row in _read_rows(round_, "score_commits")),
            score_reveals=tuple(state.RevealedScores(**row) for row in _read_rows(round_, "score_reveals")),
            pledges=tuple(packing.unpack(value) for value in _list(round_, "pledges")),
        ),
        model=read_vector(tree["model"]),
        carried=tuple(read_vector(part) for part in _list(tree, "carried")),
        **{name: packing.unpack(tree[RECORDED_AS.get(name, name)]) for name in TOTALS},
    )


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return tree


def _list(tree: Mapping[str, Any], table: str) -> list[Any]:
    rows = tree.get(table, {})
    return [rows[str(i)] for i in range(len(rows))]


def _read_rows(tree: Mapping[str, Any], table: str) -> list[dict[str, Any]]:
    return [
        {name: None if value == "none" else packing.unpack(value) for name, value in row.items()}
        for row in _list(tree, table)
    ]


def write_vector(values: Any) -> list[int]:
    """A vector of int32 as a list of integers."""
    return [int(value) for value in values]


def read_vector(values: Sequence[int]) -> Any:
    """A vector of int32, made from its four-byte words."""
    return np.frombuffer(struct.pack(f"<{len(values)}i", *values), dtype="<i4").astype(np.int32)


def fill(flat: Flat, counts: Mapping[str, int]) -> Flat:
    """The table with accounts, candidates or delegations put in front until there are so many: nobody's, all small."""
    tree = _nest(flat)
    kept = {path: value for path, value in flat.items() if path.split("/")[0] not in counts}
    for table, count in counts.items():
        rows = _list(tree, table)
        added = [_invent(table, i) for i in range(count - len(rows))]
        kept |= {f"{table}/{i}/{name}": row[name] for i, row in enumerate(added + rows) for name in FILLED[table]}
    return kept


def _invent(table: str, number: int) -> dict[str, Any]:
    # Lower than every real address, so that the rows which matter stay in order behind these.
    address, key = packing.pack(number.to_bytes(20, "big")), packing.pack(number.to_bytes(32, "big"))
    if table == "accounts":
        return {"address": address, "public_key": key, "balance": 1, "sequence": 2}
    if table == "delegations":
        return {"delegator": address, "candidate": address, "amount": 3}
    numbers = dict.fromkeys(CANDIDATE[2:], 0) | {"knowledge": 4, "reputation": 5, "is_jailed": False}
    return {"address": address, "public_key": key} | numbers


def find_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Flat:
    """Every path whose value differs, with the new one; None for a path, or a whole table ("table/*"), that is gone."""
    left = {_get_table(path) for path in after}
    changes: Flat = {}
    for path in before:
        if path not in after:
            table = _get_table(path)
            changes[path if table in left else f"{table}/*"] = None
    return changes | {path: value for path, value in after.items() if path not in before or before[path] != value}


@lru_cache(1 << 15)
def _get_table(path: str) -> str:
    """The path in front of a row's number; the whole path if there is none."""
    return re.split(r"/[0-9]", path, maxsplit=1)[0]


def apply_changes(before: Mapping[str, Any], changes: Mapping[str, Any]) -> Flat:
    """The table after `find_changes`."""
    emptied = {path.removesuffix("/*") for path in changes if path.endswith("/*")}
    kept = {path: value for path, value in before.items() if _get_table(path) not in emptied} if emptied else before
    return {path: value for path, value in {**kept, **changes}.items() if value is not None}
