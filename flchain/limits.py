"""How long an honest packet of one chain can be: this, and not `wire`, bounds what a stranger can make a node keep.

`wire` holds the limits of every chain; these follow from one chain's parameters, and on a small board they are a
thousand times smaller.
"""

from __future__ import annotations

from flchain.codecs import CODECS, DOWNSTREAM_RULES, count_carried_bytes
from flchain.fixedpoint import VALUE_BYTES
from flchain.messages import Kind
from flchain.params import VALIDATORS_MAX, ChainParams
from flchain.wire import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    HEADER_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    ORDERS_BYTES_MAX,
    SETS_BYTES_MAX,
    SETTLEMENT_BYTES_MAX,
    SMALL_BYTES_MAX,
    UPDATE_BYTES_MAX,
)

FRAME_BYTES = 4_096
"""What a packet adds to the parts it is made of, generously."""
TRANSACTION_FRAME_BYTES = 5
"""What a body adds to a transaction: the head of a byte string of up to 2**32 bytes."""
TRANSACTIONS_BYTES_MAX = BODY_BYTES_MAX - SETTLEMENT_BYTES_MAX - ORDERS_BYTES_MAX
"""A body's room for its phase's messages."""
SCORE_ENTRY_BYTES = 32
"""One (address, score) in a message."""
SCORE_BYTES = 3
DELTAS_MAX = 1_024
"""Most settled rounds whose changes are kept and sent in the place of a model."""
STATE_TABLES_BYTES_MAX = 4_000_000
"""Accounts, devices, candidates, delegations and unbondings, each as many as there may be (see `orders`)."""


def compute_update_bytes_max(params: ChainParams) -> int:
    """The longest payload that the chain's codec accepts, in bytes."""
    return CODECS[params.codec].payload_bytes_max(params.parameters_count, params.codec_level)


def compute_device_packet_bytes_max(params: ChainParams) -> int:
    """The longest packet of a device: one update, signed."""
    return min(compute_update_bytes_max(params), UPDATE_BYTES_MAX) + SMALL_BYTES_MAX + FRAME_BYTES


def compute_reveal_bodies(params: ChainParams, devices_count: int) -> int:
    """How many bodies it takes to carry the longest updates of all devices, at least 1."""
    longest = compute_update_bytes_max(params) + SMALL_BYTES_MAX + TRANSACTION_FRAME_BYTES
    of_one_body = max(1, TRANSACTIONS_BYTES_MAX // longest)
    return max(1, -(-devices_count // of_one_body))


def compute_body_bytes_max(params: ChainParams, devices_count: int, validators_count: int) -> int:
    """The longest body of a block: everybody's longest message of one kind, orders, and a settlement."""
    of_devices = devices_count * compute_device_packet_bytes_max(params)
    scores_count = devices_count + min(validators_count, devices_count)
    scores = min(MESSAGE_BYTES_MAX[Kind.SCORE_REVEAL], scores_count * SCORE_ENTRY_BYTES + SMALL_BYTES_MAX)
    of_scorers = (validators_count + devices_count) * (scores + SMALL_BYTES_MAX)
    return min(BODY_BYTES_MAX, max(of_devices, of_scorers) + ORDERS_BYTES_MAX + SETTLEMENT_BYTES_MAX)


def compute_light_body_bytes_max(params: ChainParams) -> int:
    """The longest light body: the longest payload of the downstream rule, and a settlement with its proof."""
    payload = DOWNSTREAM_RULES[params.downstream_codec].payload_bytes_max
    longest = payload(params.parameters_count, params.downstream_level)
    return min(BODY_BYTES_MAX, longest + SETTLEMENT_BYTES_MAX + SMALL_BYTES_MAX)


def compute_carried_bytes(params: ChainParams) -> int:
    """How long what the downstream rule carries is: always exactly so long."""
    start = DOWNSTREAM_RULES[params.downstream_codec].start
    return count_carried_bytes(start(params.parameters_count, params.downstream_level))


def compute_state_bytes_max(params: ChainParams, devices_count: int) -> int:
    """The longest snapshot of a state: all tables full, everybody's updates and scores, the model, what is carried."""
    scorers = devices_count + VALIDATORS_MAX
    updates = devices_count * compute_device_packet_bytes_max(params)
    scores = scorers * (scorers * SCORE_BYTES + SMALL_BYTES_MAX)
    return STATE_TABLES_BYTES_MAX + scores + updates + _compute_model(params)


def compute_miner_packet_bytes_max(params: ChainParams, devices_count: int, validators_count: int) -> int:
    """The longest packet of a miner for another: as for a device, or a state."""
    state = compute_state_bytes_max(params, devices_count) + HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + FRAME_BYTES
    return max(state + SETS_BYTES_MAX, compute_packet_bytes_max(params, devices_count, validators_count))


def _compute_model(params: ChainParams) -> int:
    """A model, and with it what its compression has left out."""
    return VALUE_BYTES * params.parameters_count + compute_carried_bytes(params)


def compute_packet_bytes_max(params: ChainParams, devices_count: int, validators_count: int) -> int:
    """The longest packet of a miner that devices hear: a block with its certificate, a light body, or a model with its
    validators (the changes that may come in its place are shorter)."""
    body = compute_body_bytes_max(params, devices_count, validators_count)
    longest = max(body, compute_light_body_bytes_max(params), _compute_model(params))
    return longest + SETS_BYTES_MAX + HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + SMALL_BYTES_MAX + FRAME_BYTES
