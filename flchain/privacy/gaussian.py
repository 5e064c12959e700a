"""Clipping, then Gaussian noise on every parameter (Abadi et al. 2016, arXiv 1607.00133, Alg. 1)."""

from __future__ import annotations

import math

import numpy as np

from flchain.base.fixedpoint import FloatVector
from flchain.privacy.clipping import clip_l2


def protect(
    delta: FloatVector, clip_norm: float, noise_multiplier: float, standard_normals: FloatVector | None
) -> FloatVector:
    """Return the clipped delta + N(0, (noise_multiplier * clip_norm)**2) for each parameter.

    Raises ValueError without normals of delta's shape, with a negative or infinite multiplier, or with an infinite
    clip norm (no noise hides an unbounded change).
    """
    if standard_normals is None or standard_normals.shape != delta.shape:
        raise ValueError("the gaussian mechanism needs one standard normal for each parameter")
    deviation = noise_multiplier * clip_norm
    if not (noise_multiplier >= 0 and math.isfinite(deviation)):
        raise ValueError(f"noise multiplier {noise_multiplier} with clip norm {clip_norm}")
    noised = clip_l2(delta, clip_norm).astype(np.float64) + deviation * standard_normals.astype(np.float64)
    return noised.astype(np.float32)
