"""What a settled round pays, and what it does to reputations. Integers only; REWARD_RULES are agreed at genesis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from flchain.base.types import SHARE_ALL, Address, BasisPoints

RewardRule: TypeAlias = Callable[[tuple[tuple[Address, int], ...], int], Mapping[Address, int]]
"""(accepted devices with their capped samples, reward per update) -> what each earns, in the chain's smallest unit."""

REPUTATION_MAX = SHARE_ALL


def reward_per_update(accepted: tuple[tuple[Address, int], ...], reward: int) -> Mapping[Address, int]:
    """Every accepted update earns the same."""
    return {address: reward for address, _ in accepted}


def reward_by_samples(accepted: tuple[tuple[Address, int], ...], reward: int) -> Mapping[Address, int]:
    """The same purse shared by (capped) samples: floor(reward * updates * samples / all samples)."""
    total = sum(samples for _, samples in accepted)
    return {address: reward * len(accepted) * samples // total for address, samples in accepted}


REWARD_RULES: dict[str, RewardRule] = {"per-update": reward_per_update, "by-samples": reward_by_samples}


def compute_reputation(reputation: BasisPoints, is_accepted: bool) -> BasisPoints:
    """A tenth of the way to the top for an accepted update, a fifth of the way down for a refused one."""
    if is_accepted:
        return BasisPoints(reputation + (REPUTATION_MAX - reputation) // 10)
    return BasisPoints(reputation - reputation // 5)
