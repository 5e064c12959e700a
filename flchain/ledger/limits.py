"""Limits of one chain: how long its honest packets can be. These bound what a stranger can make a node keep.

The limits in `wire` hold for every chain; these follow from one chain's parameters, and on a small board they are a
thousand times smaller.
"""

from __future__ import annotations

from flchain.base.crypto import SIGNATURE_BYTES
from flchain.base.fixedpoint import VALUE_BYTES
from flchain.base.types import ADDRESS_BYTES, HASH_BYTES
from flchain.codecs import CODECS, DOWNSTREAM_RULES, count_carried_bytes
from flchain.ledger.params import DEVICES_MAX, ChainParams
from flchain.wire.cbor_form import ITEMS_MAX
from flchain.wire.envelope import (
    BODY_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    HEADER_BYTES_MAX,
    ORDERS_BYTES_MAX,
    SETS_BYTES_MAX,
    SETTLEMENT_BYTES_MAX,
)
from flchain.wire.fields import SMALL_BYTES_MAX, UPDATE_BYTES_MAX, VALIDATORS_MAX, Kind
from flchain.wire.messages import MESSAGE_BYTES_MAX
from flchain.wire.packets import PACKET_BYTES_MAX

FRAME_BYTES = 4_096
"""A generous bound of what a packet adds to its parts."""
TRANSACTION_FRAME_BYTES = 5
"""What a body adds to a transaction: the head of a byte string of up to 2**32 bytes."""
TRANSACTIONS_BYTES_MAX = BODY_BYTES_MAX - SETTLEMENT_BYTES_MAX - ORDERS_BYTES_MAX
"""A body's room for its phase's messages."""
INT_BYTES_MAX = 9
"""A number in CBOR, and the head of a string or an array."""
SCORE_BYTES = 3
"""A score in CBOR: up to 10,000."""
ADDRESS_ENTRY_BYTES = 1 + ADDRESS_BYTES
SCORE_ENTRY_BYTES = 1 + ADDRESS_ENTRY_BYTES + SCORE_BYTES
"""One (address, score) in a message."""
SIGNATURE_ENTRY_BYTES = 1 + 2 + 2 + SIGNATURE_BYTES
"""One (index, signature) in a certificate."""
VALIDATOR_ENTRY_BYTES = 1 + ADDRESS_ENTRY_BYTES + 2 + HASH_BYTES + INT_BYTES_MAX
"""One (address, public key, power) beside a header."""
SCORES_MAX = DEVICES_MAX + VALIDATORS_MAX
"""Most scores in one message: of each device's update, and of each miner's aggregate."""
SCORERS_MAX = DEVICES_MAX + VALIDATORS_MAX
"""Most scorers of a round: every validator, and every device that mines."""
ORDERS_MAX = 128
"""Most orders in one block; the others wait for a later one."""
PAYLOADS_MAX = 1_024
"""Most settled rounds whose payloads are kept and sent instead of a model."""
STATE_TABLES_BYTES_MAX = 4_000_000
"""Full tables of accounts, devices, candidates, delegations and unbondings (see `orders`)."""
STATE_ROWS_MAX = 65_536
"""The rows of these tables, and the updates of the open round: the items of a snapshot."""
ROUND_ITEMS_MAX = SCORERS_MAX * (SCORES_MAX + 8) + 8 * DEVICES_MAX + SMALL_BYTES_MAX
"""The items of the open round's leaf: everybody's commitments, updates, pledges, and scores of everything."""

# How these depend on each other. A round with DEVICES_MAX updates must be able to end: where one message of it cannot
# be as long as it has to be, all miners wait for that message for ever.
assert MESSAGE_BYTES_MAX[Kind.SCORE_REVEAL] >= SCORES_MAX * SCORE_ENTRY_BYTES + SMALL_BYTES_MAX, "a score for each"
assert SETTLEMENT_BYTES_MAX >= DEVICES_MAX * ADDRESS_ENTRY_BYTES + 3 * INT_BYTES_MAX, "an update of each accepted"
assert MESSAGE_BYTES_MAX[Kind.REVEAL] + TRANSACTION_FRAME_BYTES <= TRANSACTIONS_BYTES_MAX, "a longest update in a body"
assert SCORERS_MAX * (MESSAGE_BYTES_MAX[Kind.SCORE_REVEAL] + TRANSACTION_FRAME_BYTES) <= TRANSACTIONS_BYTES_MAX, (
    "all scores in one body"
)
assert ITEMS_MAX >= 3 * SCORES_MAX + SMALL_BYTES_MAX, "the longest scores can be read"
assert ITEMS_MAX >= SCORERS_MAX + ORDERS_MAX + DEVICES_MAX + SMALL_BYTES_MAX, "the longest body can be read"
assert ORDERS_BYTES_MAX >= ORDERS_MAX * SMALL_BYTES_MAX, "a block's orders"
assert MESSAGE_BYTES_MAX[Kind.EVIDENCE] >= 2 * MESSAGE_BYTES_MAX[Kind.VOTE] + SMALL_BYTES_MAX, "two votes in evidence"
assert CERTIFICATE_BYTES_MAX >= VALIDATORS_MAX * SIGNATURE_ENTRY_BYTES + 3 * INT_BYTES_MAX, "every validator signs"
assert SETS_BYTES_MAX >= 2 * (VALIDATORS_MAX * VALIDATOR_ENTRY_BYTES + INT_BYTES_MAX) + 1, "two full sets"
# A model is no longer than an update, and no rule carries more than two models' length into the next round.
CARRIED_MODELS_MAX = 2
assert PACKET_BYTES_MAX >= (
    STATE_TABLES_BYTES_MAX
    + (1 + CARRIED_MODELS_MAX) * UPDATE_BYTES_MAX
    + (HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + SETS_BYTES_MAX + FRAME_BYTES)
), "a state between two rounds"


def compute_update_bytes_max(params: ChainParams) -> int:
    """Return the length of the longest payload that the chain's codec accepts."""
    return CODECS[params.codec].payload_bytes_max(params.parameters_count, params.codec_level)


def compute_device_packet_bytes_max(params: ChainParams) -> int:
    """Return the length of the longest packet of a device: one update, signed."""
    return min(compute_update_bytes_max(params), UPDATE_BYTES_MAX) + SMALL_BYTES_MAX + FRAME_BYTES


def compute_reveal_bodies(params: ChainParams, devices_count: int) -> int:
    """Return how many bodies it takes to carry the longest updates of all devices, at least 1."""
    longest = compute_update_bytes_max(params) + SMALL_BYTES_MAX + TRANSACTION_FRAME_BYTES
    of_one_body = max(1, TRANSACTIONS_BYTES_MAX // longest)
    return max(1, -(-devices_count // of_one_body))


def compute_body_bytes_max(params: ChainParams, devices_count: int, validators_count: int) -> int:
    """Return the length of the longest body: the longest messages of one kind from everybody, orders, a settlement."""
    of_devices = devices_count * compute_device_packet_bytes_max(params)
    scores_count = devices_count + min(validators_count, devices_count)
    scores = min(MESSAGE_BYTES_MAX[Kind.SCORE_REVEAL], scores_count * SCORE_ENTRY_BYTES + SMALL_BYTES_MAX)
    of_scorers = (validators_count + devices_count) * (scores + SMALL_BYTES_MAX)
    return min(BODY_BYTES_MAX, max(of_devices, of_scorers) + ORDERS_BYTES_MAX + SETTLEMENT_BYTES_MAX)


def compute_light_body_bytes_max(params: ChainParams) -> int:
    """Return the length of the longest light body: the longest payload, and a settlement with its proof."""
    payload = DOWNSTREAM_RULES[params.downstream_codec].payload_bytes_max
    longest = payload(params.parameters_count, params.downstream_level)
    return min(BODY_BYTES_MAX, longest + SETTLEMENT_BYTES_MAX + SMALL_BYTES_MAX)


def compute_carried_bytes(params: ChainParams) -> int:
    """Return the length of what the downstream rule carries, which is always the same."""
    start = DOWNSTREAM_RULES[params.downstream_codec].start
    return count_carried_bytes(start(params.parameters_count, params.downstream_level))


def compute_state_bytes_max(params: ChainParams, devices_count: int) -> int:
    """Return the length of the longest snapshot of a state.

    Its tables are full, and it holds updates and scores from everybody, the model, and what is carried.
    """
    scorers = devices_count + VALIDATORS_MAX
    updates = devices_count * compute_device_packet_bytes_max(params)
    scores = scorers * (scorers * SCORE_BYTES + SMALL_BYTES_MAX)
    return STATE_TABLES_BYTES_MAX + scores + updates + _compute_model(params)


def compute_miner_packet_bytes_max(params: ChainParams, devices_count: int, validators_count: int) -> int:
    """Return the length of the longest packet between miners: as for a device, or a state.

    A state that no packet can carry, as with long updates of many devices, is not sent (see `miner.core.state_sync`).
    """
    state = compute_state_bytes_max(params, devices_count) + HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + FRAME_BYTES
    longest = max(state + SETS_BYTES_MAX, compute_packet_bytes_max(params, devices_count, validators_count))
    return min(longest, PACKET_BYTES_MAX)


def _compute_model(params: ChainParams) -> int:
    """Return the length of a model and of what its compression has left out."""
    return VALUE_BYTES * params.parameters_count + compute_carried_bytes(params)


def compute_packet_bytes_max(params: ChainParams, devices_count: int, validators_count: int) -> int:
    """Return the length of the longest packet that devices receive from a miner.

    It is a block with its certificate, a light body, or a model with its validators (the payloads that may replace the
    model are shorter).
    """
    body = compute_body_bytes_max(params, devices_count, validators_count)
    longest = max(body, compute_light_body_bytes_max(params), _compute_model(params))
    return longest + SETS_BYTES_MAX + HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + SMALL_BYTES_MAX + FRAME_BYTES
