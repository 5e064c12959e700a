from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from flchain.aggregation import AGGREGATION_RULES, WEIGHT_LIMIT, WeightedUpdate
from flchain.base.errors import MalformedUpdate
from flchain.base.fixedpoint import LIMIT
from flchain.base.types import Address, ModelVector
from flchain.codecs import CODECS, adaptive, sparse_ternary
from flchain.codecs.bits import golomb

SPARSE = CODECS["sparse-ternary"]
LEVELS = st.one_of(st.integers(1, 12), st.sampled_from([20, 50, 500]))
CASES = st.sampled_from(
    [(name, level) for name in CODECS if name != "adaptive" for level in (1, 2, 5, 16, 500)]
    + [("adaptive", adaptive.pack_level(*numbers)) for numbers in ((16, 0), (30, 3), (200, 0), (10_000, 10))]
)
SEED = b"seed"


def to_vector(values: list[int]) -> ModelVector:
    return np.array(values, dtype=np.int32)


def values_within(magnitude: int) -> st.SearchStrategy[int]:
    # Small values make ties and zeros; large ones make sums that must not overflow.
    return st.one_of(st.integers(-3, 3), st.integers(-magnitude, magnitude))


@st.composite
def vector_pairs(draw: st.DrawFn, magnitude: int) -> tuple[ModelVector, ModelVector]:
    size = draw(st.integers(1, 120))
    values = st.lists(values_within(magnitude), min_size=size, max_size=size)
    return to_vector(draw(values)), to_vector(draw(values))


def reencode(tensor: ModelVector) -> bytes:
    """The payload of a ternary tensor, from the tensor alone."""
    positions = np.flatnonzero(tensor)
    if positions.size == 0:
        return bytes(sparse_ternary.HEADER_BYTES)
    mu = int(np.abs(tensor[positions[0]]))
    return sparse_ternary.build_payload(positions, tensor[positions] > 0, mu, tensor.size)


@given(pair=vector_pairs(LIMIT), level=LEVELS)
def test_a_tensor_and_its_payload_name_each_other(pair: tuple[ModelVector, ModelVector], level: int) -> None:
    """Decoding gives a ternary tensor of at most k changes within the limits, whose one payload is the one decoded."""
    delta, residual = pair
    payload = SPARSE.encode(delta, residual, level).payload
    tensor = SPARSE.decode(payload, delta.size, level)
    assert np.unique(np.abs(tensor[tensor != 0])).size <= 1
    assert np.count_nonzero(tensor) <= max(1, delta.size // level)
    assert len(payload) <= SPARSE.payload_bytes_max(delta.size, level)
    assert reencode(tensor) == payload


@given(data=st.data(), size=st.integers(1, 200), mu=st.integers(1, LIMIT))
def test_any_ternary_tensor_survives_the_wire(data: st.DataObject, size: int, mu: int) -> None:
    """Whatever the positions and signs, decode(build_payload(tensor)) is the tensor."""
    signs = data.draw(st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=size, max_size=size))
    tensor = to_vector([sign * mu for sign in signs])
    assert SPARSE.decode(reencode(tensor), size, 1).tolist() == tensor.tolist()


@given(case=CASES, pair=vector_pairs(LIMIT // 4))
def test_error_feedback_loses_nothing(case: tuple[str, int], pair: tuple[ModelVector, ModelVector]) -> None:
    """decoded + new residual == delta + old residual, to the last step, while nothing saturates; codecs that keep no
    error leave none."""
    (name, level), (delta, residual) = case, pair
    encoded = CODECS[name].encode(delta, residual, level, SEED)
    decoded = CODECS[name].decode(encoded.payload, delta.size, level, SEED)
    if not CODECS[name].keeps_error:
        assert not encoded.residual.any()
        return
    sent_and_kept = decoded.astype(np.int64) + encoded.residual
    assert sent_and_kept.tolist() == (delta.astype(np.int64) + residual).tolist()


@given(case=CASES, payload=st.binary(max_size=80), size=st.integers(1, 120))
def test_garbage_raises_malformed_update_and_nothing_else(case: tuple[str, int], payload: bytes, size: int) -> None:
    """Random bytes decode to a vector of the model's size or raise MalformedUpdate."""
    name, level = case
    try:
        decoded = CODECS[name].decode(payload, size, level, SEED)
    except MalformedUpdate:
        return
    assert decoded.shape == (size,)
    assert decoded.dtype == np.int32


@given(body=st.binary(max_size=60), size=st.integers(1, 120), mu=st.integers(1, LIMIT), data=st.data())
def test_garbage_behind_a_sound_header_is_canonical_or_refused(
    body: bytes, size: int, mu: int, data: st.DataObject
) -> None:
    """With count and Rice parameter right, so that the bits are reached: what decodes has exactly these bytes."""
    count = data.draw(st.integers(1, min(size, 40)))
    rice = golomb.compute_rice_parameter(count, size)
    check_canonical(count.to_bytes(4, "little") + mu.to_bytes(4, "little") + bytes([rice]) + body, size, 1)


@given(pair=vector_pairs(LIMIT), level=LEVELS, data=st.data())
def test_a_changed_payload_is_canonical_or_refused(
    pair: tuple[ModelVector, ModelVector], level: int, data: st.DataObject
) -> None:
    """One bit flipped, a byte cut, added or replaced: it raises, or is the one payload of another tensor."""
    delta, residual = pair
    payload = SPARSE.encode(delta, residual, level).payload
    place = data.draw(st.integers(0, len(payload) - 1))
    mask, extra = data.draw(st.sampled_from([1 << n for n in range(8)])), data.draw(st.binary(min_size=1, max_size=2))
    for changed in (
        payload[:place] + bytes([payload[place] ^ mask]) + payload[place + 1 :],
        payload[:place] + payload[place + 1 :],
        payload[:place] + extra + payload[place:],
        payload + extra,
        payload + b"\x00",
    ):
        check_canonical(changed, delta.size, level)


@given(case=CASES, pair=vector_pairs(LIMIT), data=st.data())
def test_a_changed_payload_says_something_else_or_is_refused(
    case: tuple[str, int], pair: tuple[ModelVector, ModelVector], data: st.DataObject
) -> None:
    """In every codec: one bit flipped, a byte cut, added or replaced raises, or gives another vector (or table)."""
    name, level = case
    codec, size = CODECS[name], pair[0].size
    payload = codec.encode(*pair, level, SEED).payload
    assert len(payload) <= codec.payload_bytes_max(size, level)
    said = read_payload(name, payload, size, level)
    place = data.draw(st.integers(0, len(payload) - 1))
    mask, extra = data.draw(st.sampled_from([1 << n for n in range(8)])), data.draw(st.binary(min_size=1, max_size=2))
    for changed in (
        payload[:place] + bytes([payload[place] ^ mask]) + payload[place + 1 :],
        payload[:place] + payload[place + 1 :],
        payload[:place] + extra + payload[place:],
        payload[:place] + extra + payload[place + len(extra) :],
        payload + b"\x00",
    ):
        if changed == payload:
            continue
        with contextlib.suppress(MalformedUpdate):
            assert read_payload(name, changed, size, level).tobytes() != said.tobytes()


def read_payload(name: str, payload: bytes, size: int, level: int) -> ModelVector:
    """What a payload says: the vector, or the table of a sketch."""
    codec = CODECS[name]
    if codec.decode_summary is not None:
        return codec.decode_summary(payload, size, level)
    return codec.decode(payload, size, level, SEED)


def check_canonical(payload: bytes, size: int, level: int) -> None:
    try:
        tensor = SPARSE.decode(payload, size, level)
    except MalformedUpdate:
        return
    assert reencode(tensor) == payload


@given(data=st.data(), count=st.integers(1, 12), size=st.integers(1, 12))
def test_the_order_of_updates_does_not_show(data: st.DataObject, count: int, size: int) -> None:
    """Every rule gives the same bits for every order in which a node holds the updates."""
    rows = st.lists(values_within(LIMIT), min_size=size, max_size=size)
    updates = [
        WeightedUpdate(
            Address(bytes([index]) * 20), data.draw(st.integers(1, WEIGHT_LIMIT - 1)), to_vector(data.draw(rows))
        )
        for index in range(count)
    ]
    shuffled = data.draw(st.permutations(updates))
    for rule in AGGREGATION_RULES.values():
        assert_same_bits(rule.aggregate(tuple(updates)), rule.aggregate(tuple(shuffled)))


def assert_same_bits(left: npt.NDArray[np.int32], right: npt.NDArray[np.int32]) -> None:
    assert left.dtype == right.dtype == np.int32
    assert left.tobytes() == right.tobytes()
