"""Clipping to an L2 norm: how much one device can tell, or do, is bounded."""

from __future__ import annotations

import math

import numpy as np

from flchain.base.fixedpoint import FloatVector


def clip_l2(delta: FloatVector, norm_max: float) -> FloatVector:
    """Return delta * min(1, norm_max / ||delta||), for (P,) float32 (Abadi et al. 2016, arXiv 1607.00133, Alg. 1).

    The norm is taken in float64, and the result's is at most norm_max up to float32 rounding (a part in 10**7).
    norm_max may be infinite: nothing is clipped. Raises ValueError if it is not above 0, or delta is not finite.

    >>> clip_l2(np.array([3, -4], dtype=np.float32), norm_max=2.5).tolist()
    [1.5, -2.0]
    """
    if not norm_max > 0:
        raise ValueError(f"clip norm {norm_max} is not above 0")
    wide = delta.astype(np.float64)
    norm = math.sqrt(float(np.dot(wide, wide)))
    if not math.isfinite(norm):
        raise ValueError("a delta with NaN or infinity cannot be clipped")
    if norm <= norm_max:
        return delta.astype(np.float32)
    return (wide * (norm_max / norm)).astype(np.float32)
