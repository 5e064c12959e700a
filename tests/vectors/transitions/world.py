"""The state from which nearly all vectors start: every number of it is odd in some way and stands nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from flchain import codecs
from flchain.base.crypto import Identity
from flchain.ledger import state
from flchain.ledger.params import ChainParams
from flchain.ledger.state import Account, Candidate, ChainState, Delegation, Device, RoundState, Unbonding
from flchain.wire import envelope
from flchain.wire.messages import AnyMessage, Phase

PARAMETERS_COUNT = 7
CHAIN: Any = hashlib.sha256(b"transitions: chain").digest()
HEAD: Any = hashlib.sha256(b"transitions: head").digest()
HEIGHT, ROUND, TIME_MS = 131, 17, 1_800_000_000_123


def untyped(value: Any) -> Any:
    """A number without the name of its quantity: a vector may put any number anywhere."""
    return value


def make_keys(family: str, count: int) -> tuple[Identity, ...]:
    """Keys in order of address."""
    seeds = (hashlib.sha256(f"transitions: {family} {i}".encode()).digest() for i in range(count))
    return tuple(sorted(map(Identity.from_seed, seeds), key=lambda key: key.address))


MINERS = make_keys("miner", 7)
"""0 to 3 have seats, 4 has none, 5 is in jail, 6 has a seat and is a device too."""
PLAIN_DEVICES = make_keys("device", 7)
DEVICES = tuple(sorted((*PLAIN_DEVICES, MINERS[6]), key=lambda key: key.address))
HOLDERS = make_keys("holder", 4)
STRANGER = make_keys("stranger", 1)[0]
BOTH = MINERS[6]
BOTH_PLACE = DEVICES.index(BOTH)

PARAMS = ChainParams(
    codec="identity",
    codec_level=3,
    downstream_codec="identity",
    downstream_level=5,
    aggregation="weighted-sum",
    privacy="none",
    clip_norm_thousandths=1_303,
    noise_multiplier_thousandths=1_409,
    consensus="bft",
    proposer_rule="pok",
    model_digest=hashlib.sha256(b"transitions: tflite").digest(),
    parameters_count=PARAMETERS_COUNT,
    initial_model_hash=hashlib.sha256(b"transitions: initial model").digest(),
    local_epochs=19,
    batch_size=23,
    learning_rate_millionths=29_123,
    samples_cap=997,
    score_margin_bp=431,
    reward_rule="per-update",
    reward_per_update=1_009,
    reward_for_scores=2_000_000_011,
    score_outlier_bp=1_511,
    mining_weight_bp=1_709,
    seats=5,
    epoch_rounds=6,
    power_cap_bp=3_701,
    bond_min=811,
    stake_min=47,
    order_fee=7,
    unbonding_s=86_413,
    trusting_s=50_021,
    evidence_heights_max=37,
    slash_bp=577,
    jail_rounds=11,
    phase_heights_max=3,
    absent_rounds_max=4,
    timeout_propose_ms=3_001,
    timeout_vote_ms=1_501,
    timeout_growth_ms=701,
    patience_ms=5_003,
    commit_patience_ms=60_013,
)
POWERS = (10_007, 9_001, 7_919, 4_127, 0, 0, 5_003)
# (address place, home place, reputation, absent, unscored)
_DEVICES: tuple[tuple[int, ...], ...] = (
    (0, 5_003, 0, 1),
    (0, 6_011, 1, 0),
    (1, 7_019, 2, 2),
    (2, 4_001, 3, 3),
    (6, 9_973, 0, 0),
)
_DEVICES += ((0, 3_001, 5, 1), (1, 8_009, 0, 2), (4, 2_003, 1, 1))
# commission, knowledge, reputation, priority, absent, is_jailed, jailed_until, judged_height
_CANDIDATES: tuple[tuple[Any, ...], ...] = (
    (1_013, 6_101, 5_501, 91_234_567, 0, False, 0, 3),
    (211, 7_307, 6_607, -81_234_571, 1, False, 9, 88),
    (0, 4_409, 7_703, 31_234_577, 2, False, 0, 0),
    (9_999, 5_511, 3_809, -21_234_599, 3, False, 4, 17),
    (777, 1_201, 4_903, 0, 5, False, 0, 0),
    (5_555, 3_301, 2_909, 0, 6, True, 21, 101),
    (3_333, 8_803, 8_101, -11_234_603, 0, False, 2, 5),
)


def _vector(values: Iterable[int]) -> Any:
    return np.array(tuple(values), dtype=np.int32)


def _build() -> ChainState:
    keys = sorted((*MINERS, *PLAIN_DEVICES, *HOLDERS), key=lambda key: key.address)
    accounts = tuple(
        Account(key.address, key.public_key, untyped(100_003 + 1_117 * i), 3 * i + 2) for i, key in enumerate(keys)
    )
    devices = tuple(
        Device(key.address, key.public_key, MINERS[home].address, untyped(reputation), absent, unscored)
        for key, (home, reputation, absent, unscored) in zip(DEVICES, _DEVICES, strict=True)
    )
    candidates = tuple(
        Candidate(key.address, key.public_key, untyped(power), *numbers)
        for key, power, numbers in zip(MINERS, POWERS, _CANDIDATES, strict=True)
    )
    bonds = [(i, i, 4_001 + 613 * i) for i in range(7)]
    listed = [Delegation(MINERS[a].address, MINERS[b].address, untyped(amount)) for a, b, amount in bonds]
    behind = ((0, 0, 1_201), (0, 1, 2_399), (1, 0, 3_607), (1, 3, 48), (2, 2, 5_009), (2, 6, 1), (3, 5, 907))
    listed += [Delegation(HOLDERS[a].address, MINERS[b].address, untyped(amount)) for a, b, amount in behind]
    listed.append(Delegation(DEVICES[0].address, MINERS[4].address, untyped(333)))
    due = (TIME_MS + 5_001, None, TIME_MS + 9_000_007)
    unbondings = tuple(
        Unbonding(HOLDERS[a].address, MINERS[b].address, untyped(amount), untyped(at))
        for a, b, amount, at in ((0, 1, 1_511, due[0]), (1, 0, 613, due[1]), (2, 1, 71, due[2]), (0, 3, 9, due[1]))
    )
    model = _vector((1_048_576, -3, 5, -2_097_153, 2**31 - 11, -(2**31) + 13, 77_777))
    carried = (_vector((3, -5, 0, 7, 11, -13, 17)),)
    return ChainState(
        chain=CHAIN,
        params=PARAMS,
        height=untyped(HEIGHT),
        head=HEAD,
        time_ms=untyped(TIME_MS),
        accounts=accounts,
        devices=devices,
        candidates=candidates,
        delegations=tuple(sorted(listed, key=lambda d: (d.delegator, d.candidate))),
        unbondings=unbondings,
        round=RoundState(untyped(ROUND), Phase.COMMIT),
        model=model,
        model_hash=state.hash_model(model),
        carried=carried,
        carried_hash=state.hash_carried(carried),
        minted=9_000_001,
        burned=70_003,
        payload=b"the delta of round 16",
    )


WORLD = _build()


def with_params(before: ChainState, **changes: Any) -> ChainState:
    """The state under other agreed numbers."""
    named = {name: getattr(before.params, name) for name in ChainParams.__struct_fields__}
    return replace(before, params=ChainParams(**(named | changes)))


def with_round(before: ChainState, **changes: Any) -> ChainState:
    """The state with another open round."""
    return replace(before, round=replace(before.round, **changes))


def with_account(before: ChainState, key: Identity, **changes: Any) -> ChainState:
    """The state with one account changed."""
    rows = (replace(row, **changes) if row.address == key.address else row for row in before.accounts)
    return replace(before, accounts=tuple(rows))


def with_device(before: ChainState, key: Identity, **changes: Any) -> ChainState:
    """The state with one device changed."""
    rows = (replace(row, **changes) if row.address == key.address else row for row in before.devices)
    return replace(before, devices=tuple(rows))


def with_candidate(before: ChainState, key: Identity, **changes: Any) -> ChainState:
    """The state with one candidate changed."""
    rows = (replace(row, **changes) if row.address == key.address else row for row in before.candidates)
    return replace(before, candidates=tuple(rows))


def get_account(before: ChainState, key: Identity) -> Account:
    """One account's row."""
    return next(row for row in before.accounts if row.address == key.address)


def seal(message: AnyMessage, key: Identity, chain: bytes = CHAIN) -> bytes:
    """A signed message."""
    return envelope.seal(message, chain, key)


def list_names() -> dict[str, str]:
    """Who is behind an address, to read the files by."""
    families = (("miner", MINERS[:6]), ("device", PLAIN_DEVICES), ("holder", HOLDERS))
    names = {key.address.hex(): f"{family} {i}" for family, keys in families for i, key in enumerate(keys)}
    return names | {BOTH.address.hex(): "miner 6, also a device", STRANGER.address.hex(): "stranger"}


def make_vector(number: int, size: int = PARAMETERS_COUNT) -> Any:
    """A change of a model, small and large values of both signs, from an integer recurrence."""
    register, values = 9_001 + 77 * number, []
    for _ in range(size):
        register = (1_103_515_245 * register + 12_345) % 2**31
        values.append((register - 2**30) >> (register >> 7) % 23)
    return _vector(values)


def make_payload(
    number: int, codec: str = "identity", level: int = 1, sender: bytes = b"", size: int = PARAMETERS_COUNT
) -> bytes:
    """The payload of `make_vector` in a codec."""
    seed = codecs.compute_codec_seed(CHAIN, untyped(ROUND), untyped(sender))
    delta = make_vector(number, size)
    return codecs.CODECS[codec].encode(delta, np.zeros_like(delta), level, seed).payload
