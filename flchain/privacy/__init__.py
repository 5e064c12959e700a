"""What a device does to its update before anyone sees it, by the name that ChainParams holds.

Clipping bounds what one device can tell, or do, to the model; noise hides what is left. Both run on the device, so
the guarantee does not rest on a trusted server (McMahan et al. 2018, arXiv 1710.06963, with the noise added
by each client). What the codec does afterwards, error feedback included, is post-processing of noised updates.
No budget is counted here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from flchain.base.fixedpoint import FloatVector

Mechanism: TypeAlias = Callable[[FloatVector, float, float, FloatVector | None], FloatVector]
"""(delta (P,), clip_norm, noise_multiplier, standard_normals (P,) or None) -> (P,).

clip_norm is in the units of the parameters; noise_multiplier is the noise's standard deviation in units of clip_norm,
at least 0. The caller draws the normals, from a generator seeded by the system and afresh for each update.
"""


def clip_l2(delta: FloatVector, norm_max: float) -> FloatVector:
    """delta * min(1, norm_max / ||delta||), for (P,) float32 (Abadi et al. 2016, arXiv 1607.00133, Alg. 1).

    The norm is taken in float64, and the result's is at most norm_max but for float32 rounding (a part in 10**7).
    norm_max may be infinite: nothing is clipped. Raises ValueError if it is not above 0, or delta is not finite.
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


def clip_only(
    delta: FloatVector, clip_norm: float, noise_multiplier: float, standard_normals: FloatVector | None
) -> FloatVector:
    """Clipping without noise: bounds influence, gives no differential privacy. The last two arguments are ignored."""
    return clip_l2(delta, clip_norm)


def gaussian(
    delta: FloatVector, clip_norm: float, noise_multiplier: float, standard_normals: FloatVector | None
) -> FloatVector:
    """Clipped delta + N(0, (noise_multiplier * clip_norm)**2) for each parameter (Abadi et al. 2016, Alg. 1).

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


MECHANISMS: dict[str, Mechanism] = {
    "none": clip_only,
    "gaussian": gaussian,
}
