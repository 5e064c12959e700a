from __future__ import annotations

import math

import numpy as np
import pytest

from flchain.privacy import MECHANISMS, clip_l2

DELTA = np.array([3.0, -4.0, 0.0], dtype=np.float32)


def test_a_short_delta_is_not_touched() -> None:
    """Below the norm, clipping returns the same bits, in an array of its own."""
    clipped = clip_l2(DELTA, 5.0)
    assert clipped.tolist() == DELTA.tolist()
    assert clipped is not DELTA


def test_a_long_delta_keeps_its_direction_and_takes_the_norm() -> None:
    """(3, -4, 0) clipped to 2.5 is (1.5, -2, 0)."""
    assert clip_l2(DELTA, 2.5).tolist() == [1.5, -2.0, 0.0]


def test_the_clipped_norm_holds_for_large_vectors() -> None:
    """For 100,000 values, and for values whose squares overflow float32, the norm is the bound within 1e-6."""
    delta = np.random.default_rng(3).standard_normal(100_000).astype(np.float32)
    for values in (delta, delta * np.float32(1e30)):
        norm = float(np.linalg.norm(clip_l2(values, 0.7).astype(np.float64)))
        assert norm == pytest.approx(0.7, rel=1e-6)


@pytest.mark.parametrize("norm_max", [0.0, -1.0, math.nan])
def test_a_clip_norm_that_is_no_bound_is_refused(norm_max: float) -> None:
    """Zero would silence every device; NaN would clip nothing."""
    with pytest.raises(ValueError, match="clip norm"):
        clip_l2(DELTA, norm_max)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_delta_that_is_no_number_is_refused(value: float) -> None:
    """Infinity times a factor of zero must not turn into NaN in silence."""
    with pytest.raises(ValueError, match="NaN or infinity"):
        clip_l2(np.array([1.0, value], dtype=np.float32), 1.0)


def test_none_clips_and_adds_nothing() -> None:
    """The mechanism "none" is clipping alone, even if noise is offered."""
    noise = np.ones(3, dtype=np.float32)
    assert MECHANISMS["none"](DELTA, 2.5, 9.0, noise).tolist() == [1.5, -2.0, 0.0]
    assert MECHANISMS["none"](DELTA, math.inf, 0.0, None).tolist() == DELTA.tolist()


def test_gaussian_adds_the_normals_times_multiplier_and_clip_norm() -> None:
    """The deviation is noise_multiplier * clip_norm, whatever the delta's own norm: 0.5 * 2.5 here."""
    normals = np.array([1.0, -2.0, 4.0], dtype=np.float32)
    gaussian = MECHANISMS["gaussian"]
    assert gaussian(DELTA, 2.5, 0.5, normals).tolist() == [1.5 + 1.25, -2.0 - 2.5, 5.0]
    assert gaussian(DELTA * 0, 2.5, 0.5, normals).tolist() == [1.25, -2.5, 5.0]
    assert gaussian(DELTA, 2.5, 0.0, normals).tolist() == [1.5, -2.0, 0.0]


@pytest.mark.parametrize(
    ("clip_norm", "multiplier", "size"),
    [(1.0, 1.0, 2), (1.0, -0.1, 3), (1.0, math.nan, 3), (1.0, math.inf, 3), (math.inf, 1.0, 3), (math.inf, 0.0, 3)],
)
def test_gaussian_refuses_what_hides_nothing(clip_norm: float, multiplier: float, size: int) -> None:
    """Too few normals (they would be broadcast), a multiplier that is none, or an unbounded clip norm."""
    with pytest.raises(ValueError, match=r"normal|multiplier"):
        MECHANISMS["gaussian"](DELTA, clip_norm, multiplier, np.zeros(size, dtype=np.float32))


def test_gaussian_refuses_to_run_without_noise() -> None:
    """Forgetting the normals must not send the bare delta."""
    with pytest.raises(ValueError, match="standard normal"):
        MECHANISMS["gaussian"](DELTA, 1.0, 1.0, None)
