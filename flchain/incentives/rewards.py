"""What a settled round pays, in the chain's smallest unit of money. Integers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from flchain.base.types import SHARE_ALL, Address, BasisPoints, Stake


class RewardRule(Protocol):
    """Pay the devices whose updates were accepted."""

    def __call__(self, accepted: tuple[tuple[Address, int], ...], reward: int) -> Mapping[Address, int]:
        """Return what each device earns, from (device, capped samples) pairs and the reward of one update."""


def reward_per_update(accepted: tuple[tuple[Address, int], ...], reward: int) -> Mapping[Address, int]:
    """Pay the same for every accepted update."""
    return {address: reward for address, _ in accepted}


def reward_by_samples(accepted: tuple[tuple[Address, int], ...], reward: int) -> Mapping[Address, int]:
    """Share the same purse by capped samples, each part rounded down.

    >>> reward_by_samples(((Address(b"a" * 20), 100), (Address(b"b" * 20), 300)), reward=10).values()
    dict_values([5, 15])
    """
    total = sum(samples for _, samples in accepted)
    return {address: reward * len(accepted) * samples // total for address, samples in accepted}


def split_reward(
    reward: int, validator: Address, commission_bp: BasisPoints, delegations: Sequence[tuple[Address, Stake]]
) -> dict[Address, int]:
    """Split a validator's reward: the commission to itself, the rest to its delegators by stake, odd units to itself.

    `delegations` are (delegator, amount) behind this validator, its own bond among them. The parts add up to `reward`.

    >>> me, other = Address(b"m" * 20), Address(b"o" * 20)
    >>> parts = split_reward(1_000, me, BasisPoints(1_000), [(me, Stake(10)), (other, Stake(20))])
    >>> parts[me], parts[other]
    (400, 600)
    """
    shared = reward - reward * commission_bp // SHARE_ALL
    total = sum(amount for _, amount in delegations)
    parts: dict[Address, int] = {}
    for delegator, amount in delegations:
        parts[delegator] = parts.get(delegator, 0) + shared * amount // total
    parts[validator] = parts.get(validator, 0) + reward - sum(parts.values())
    return parts
