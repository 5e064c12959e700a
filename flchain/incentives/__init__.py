"""What a settled round pays, and what it does to reputations. The reward rule is agreed on at genesis, by name."""

from __future__ import annotations

from flchain.incentives.reputation import REPUTATION_MAX, compute_reputation
from flchain.incentives.rewards import RewardRule, reward_by_samples, reward_per_update, split_reward

REWARD_RULES: dict[str, RewardRule] = {
    "per-update": reward_per_update,
    "by-samples": reward_by_samples,
}

__all__ = ["REPUTATION_MAX", "REWARD_RULES", "RewardRule", "compute_reputation", "split_reward"]
