"""The policies that need no prices: `fixed`, `train-first`, `mine-first`. For comparisons and predictability."""

from __future__ import annotations

from agent.scheduling.readings import Shares
from agent.scheduling.values import Situation, Wish


def choose_train_first(situation: Situation) -> Wish:
    """Give training all that it can use, and mining what is left."""
    train = situation.train_max
    return Wish(Shares(train, min(_get_mine_max(situation), situation.share_max - train)), "training first")


def choose_mine_first(situation: Situation) -> Wish:
    """Give mining all that it can use, and training what is left."""
    mine = _get_mine_max(situation)
    return Wish(Shares(min(situation.train_max, situation.share_max - mine), mine), "mining first")


def choose_fixed(situation: Situation) -> Wish:
    """Apply the operator's split to what the limits leave."""
    return Wish(lend(situation, situation.fixed.train, situation.fixed.mine), "fixed split")


def lend(situation: Situation, train: float, mine: float) -> Shares:
    """Divide what the limits leave. What one side cannot use goes to the other, unless that one's part is 0."""
    total = min(1.0, train + mine) * situation.share_max
    train_max, mine_max = situation.train_max, _get_mine_max(situation)
    given = min(train * situation.share_max, train_max)
    mined = min(mine * situation.share_max, mine_max)
    if mine > 0:
        mined = max(mined, min(mine_max, total - given))
    if train > 0:
        given = max(given, min(train_max, total - mined))
    return Shares(given, mined)


def _get_mine_max(situation: Situation) -> float:
    return min(situation.mine_max, situation.cpu.mine_share_max, situation.share_max) if situation.offers else 0.0
