"""Delegated proof of stake in exact integers: stake elects the validators and gives each a capped power."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flchain.base.types import SHARE_ALL, Address, BasisPoints, Power, Stake

STAKE_BITS_MAX = 40
"""Powers add up to about 2**40 at most, so that they and the priorities made of them are integers that travel."""


def elect(stakes: Iterable[tuple[Address, Stake]], seats: int) -> tuple[tuple[Address, Stake], ...]:
    """Return the `seats` candidates with the most stake, in order of address.

    Of equal stakes the lower address comes first.

    >>> a, b, c = (Address(letter * 20) for letter in (b"a", b"b", b"c"))
    >>> elect([(a, Stake(5)), (b, Stake(7)), (c, Stake(5))], seats=2) == ((a, 5), (b, 7))
    True
    """
    ranked = sorted(stakes, key=lambda item: (-item[1], item[0]))
    return tuple(sorted(ranked[:seats]))


def scale_stakes(stakes: Sequence[int]) -> tuple[int, ...]:
    """Return the stakes (each at least 1), divided by the power of two that brings their sum down to STAKE_BITS_MAX
    bits.

    >>> scale_stakes([2**50, 2**49, 1])
    (549755813888, 274877906944, 1)
    """
    shift = max(0, sum(stakes).bit_length() - STAKE_BITS_MAX)
    return tuple(max(1, stake >> shift) for stake in stakes)


def cap_powers(stakes: Sequence[int], cap_bp: int) -> tuple[Power, ...]:
    """Return the voting power of each stake (at least 1): the stake itself, but at most `cap_bp` of the total of
    powers.

    What exceeds the cap is cut off, not shared out. Where too few share the power for the cap to hold, all are equal.

    >>> cap_powers([100, 10, 10, 10], cap_bp=4_000)
    (20, 10, 10, 10)
    >>> cap_powers([100, 10], cap_bp=4_000)
    (55, 55)
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
    """Return what is left of an amount after slashing, rounded down: slashing never leaves more than the share."""
    return Stake(amount * (SHARE_ALL - slash_bp) // SHARE_ALL)
