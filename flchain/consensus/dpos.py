"""Who agrees: delegated proof of stake in exact integers. Stake elects validators, and gives each a capped power."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flchain.base.types import SHARE_ALL, Address, BasisPoints, Power, Stake

STAKE_BITS_MAX = 40
"""Powers come to about 2**40 at most, so that they and the priorities made of them are integers that travel."""


def elect(stakes: Iterable[tuple[Address, Stake]], seats: int) -> tuple[tuple[Address, Stake], ...]:
    """The `seats` candidates with the most stake, in order of address. Of equal stakes the lower address is first."""
    ranked = sorted(stakes, key=lambda item: (-item[1], item[0]))
    return tuple(sorted(ranked[:seats]))


def scale_stakes(stakes: Sequence[int]) -> tuple[int, ...]:
    """The stakes (at least 1) in units of one, or of that power of two that brings their sum down to STAKE_BITS_MAX."""
    shift = max(0, sum(stakes).bit_length() - STAKE_BITS_MAX)
    return tuple(max(1, stake >> shift) for stake in stakes)


def cap_powers(stakes: Sequence[int], cap_bp: int) -> tuple[Power, ...]:
    """The voting power that each stake (at least 1) gives: the stake, but of the total of powers at most `cap_bp`.

    What is above is cut off, not shared out. Where so few share the power that the cap cannot hold, all are equal.
    """
    count = len(stakes)
    if count * cap_bp <= SHARE_ALL:
        return (Power(max(1, sum(stakes) // max(1, count))),) * count
    ranked = sorted(stakes, reverse=True)
    # With the first `capped` at v and the others as they are, v is the cap: v = cap (capped v + others).
    for capped in range(count):
        others = sum(ranked[capped:])
        value = cap_bp * others // (SHARE_ALL - capped * cap_bp)
        if ranked[capped] <= value:
            return tuple(Power(min(stake, value)) for stake in stakes)
    raise AssertionError("the last one that can be capped always fits")


def compute_slashed(amount: Stake, slash_bp: BasisPoints) -> Stake:
    """What is left of an amount after slashing, rounded down: no dust escapes."""
    return Stake(amount * (SHARE_ALL - slash_bp) // SHARE_ALL)
