from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from flchain.base import fixedpoint
from flchain.base.errors import MalformedUpdate
from flchain.base.fixedpoint import LIMIT, SCALE


def test_one_unit_is_scale_steps() -> None:
    """1.0 is 2**20 steps, and the sign is kept."""
    assert fixedpoint.to_fixed(np.array([1.0, -1.0, 0.0, 0.5], dtype=np.float32)).tolist() == [
        SCALE,
        -SCALE,
        0,
        SCALE // 2,
    ]


def test_halves_of_a_step_go_to_even() -> None:
    """0.5, 1.5, 2.5 and -0.5, -1.5 steps become 0, 2, 2 and 0, -2."""
    steps = np.array([0.5, 1.5, 2.5, -0.5, -1.5], dtype=np.float32) / np.float32(SCALE)
    assert fixedpoint.to_fixed(steps).tolist() == [0, 2, 2, 0, -2]


def test_conversion_saturates_symmetrically() -> None:
    """Values beyond the range take its ends, and -2**31 never appears."""
    values = np.array([2048.0, -2048.0, 3e38, -3e38], dtype=np.float32)
    assert fixedpoint.to_fixed(values).tolist() == [LIMIT, -LIMIT, LIMIT, -LIMIT]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused(value: float) -> None:
    """A trainer's NaN or infinity is an error, not some integer."""
    with pytest.raises(ValueError, match="NaN or infinity"):
        fixedpoint.to_fixed(np.array([0.0, value], dtype=np.float32))


def test_integers_up_to_sixteen_units_survive_float32() -> None:
    """to_fixed undoes to_float for every magnitude up to 2**24 steps."""
    values = np.array([0, 1, -1, 12345, 2**24 - 1, 2**24, -(2**24)], dtype=np.int32)
    floats = fixedpoint.to_float(values)
    assert floats.dtype == np.float32
    assert fixedpoint.to_fixed(floats).tolist() == values.tolist()


def test_addition_saturates_instead_of_wrapping() -> None:
    """LIMIT + 1 stays LIMIT, -LIMIT - LIMIT stays -LIMIT."""
    base = np.array([LIMIT, -LIMIT, 5], dtype=np.int32)
    delta = np.array([1, -LIMIT, -7], dtype=np.int32)
    assert fixedpoint.add(base, delta).tolist() == [LIMIT, -LIMIT, -2]


def test_vectors_of_different_models_do_not_add() -> None:
    """A vector of one element is not broadcast over a model."""
    with pytest.raises(ValueError, match="cannot add"):
        fixedpoint.add(np.zeros(3, dtype=np.int32), np.zeros(1, dtype=np.int32))


@pytest.mark.parametrize("denominator", [1, 2, 3, 5, 10, 2**40 + 1, 2**63 - 1])
def test_division_is_to_the_nearest_with_halves_away_from_zero(denominator: int) -> None:
    """Against exact fractions, at small numbers, at halves and at both ends of int64."""
    near = [k * denominator // 2 + d for k in range(-5, 6) for d in (-1, 0, 1)]
    numerators = [n for n in [*range(-30, 31), *near, 2**63 - 1, -(2**63)] if -(2**63) <= n < 2**63]
    expected = []
    for numerator in numerators:
        magnitude = int(Fraction(abs(numerator), denominator) + Fraction(1, 2))
        expected.append(magnitude if numerator >= 0 else -magnitude)
    assert fixedpoint.divide_rounded(np.array(numerators, dtype=np.int64), denominator).tolist() == expected


@pytest.mark.parametrize("denominator", [0, -1, 2**63])
def test_division_by_no_count_is_refused(denominator: int) -> None:
    """Only a positive int64 divides."""
    with pytest.raises(ValueError, match="denominator"):
        fixedpoint.divide_rounded(np.zeros(1, dtype=np.int64), denominator)


def test_bytes_are_little_endian_and_come_back() -> None:
    """The hashed form is fixed, whatever the machine's own byte order."""
    values = np.array([1, -2, LIMIT], dtype=np.int32)
    data = fixedpoint.encode_vector(values)
    assert data.hex() == "01000000feffffffffffff7f"
    assert fixedpoint.encode_vector(values.astype(">i4").view()) == data
    back = fixedpoint.decode_vector(data, 3)
    assert back.tolist() == values.tolist()
    assert back.flags.writeable


@pytest.mark.parametrize("data", [b"", b"\x00" * 7, b"\x00" * 9, b"\x00" * 12, b"\x00\x00\x00\x80" + b"\x00" * 4])
def test_bytes_of_no_vector_are_refused(data: bytes) -> None:
    """A wrong length, or the one int32 outside the symmetric range, is the peer's fault."""
    with pytest.raises(MalformedUpdate):
        fixedpoint.decode_vector(data, 2)
