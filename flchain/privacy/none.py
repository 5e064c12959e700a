"""Clipping alone: bounds influence, gives no differential privacy."""

from __future__ import annotations

from flchain.base.fixedpoint import FloatVector
from flchain.privacy.clipping import clip_l2


def protect(
    delta: FloatVector, clip_norm: float, noise_multiplier: float, standard_normals: FloatVector | None
) -> FloatVector:
    """Return the clipped delta. The last two arguments are ignored."""
    return clip_l2(delta, clip_norm)
