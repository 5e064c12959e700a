"""Reputation: what a device's updates and a scorer's scores have been worth so far, in basis points."""

from __future__ import annotations

from flchain.base.types import SHARE_ALL, BasisPoints

REPUTATION_MAX = SHARE_ALL


def compute_reputation(reputation: BasisPoints, is_accepted: bool) -> BasisPoints:
    """Return the reputation a tenth of the way to the top if the work was accepted, otherwise a fifth of the way down.

    >>> compute_reputation(BasisPoints(5_000), is_accepted=True)
    5500
    >>> compute_reputation(BasisPoints(5_000), is_accepted=False)
    4000
    """
    if is_accepted:
        return BasisPoints(reputation + (REPUTATION_MAX - reputation) // 10)
    return BasisPoints(reputation - reputation // 5)
