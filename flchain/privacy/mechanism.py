"""What a privacy mechanism is."""

from __future__ import annotations

from typing import Protocol

from flchain.base.fixedpoint import FloatVector


class Mechanism(Protocol):
    """Protect an update before anyone sees it.

    The mechanism draws nothing: the caller draws the normals, from a generator seeded by the system and afresh for each
    update.
    """

    def __call__(
        self, delta: FloatVector, clip_norm: float, noise_multiplier: float, standard_normals: FloatVector | None
    ) -> FloatVector:
        """Return the protected update, of delta's shape (P,).

        `clip_norm` is in the units of the parameters; `noise_multiplier` is the noise's standard deviation in units of
        clip_norm, at least 0; `standard_normals` has delta's shape, or is None where the chain asks for no noise.
        Raises ValueError for a delta that is not finite, or numbers that make no sense.
        """
