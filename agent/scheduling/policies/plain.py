"""The policies that ask no price: `fixed`, `train-first`, `mine-first`. For comparisons and for predictability."""

from __future__ import annotations

from agent.scheduling.readings import Shares
from agent.scheduling.values import Situation, Wish


def choose_train_first(situation: Situation) -> Wish:
    """Everything that training can use; mining gets what is left."""
    train = situation.train_max
    return Wish(Shares(train, min(_get_mine_max(situation), situation.share_max - train)), "training first")


def choose_mine_first(situation: Situation) -> Wish:
    """Everything that mining can use; training gets what is left."""
    mine = _get_mine_max(situation)
    return Wish(Shares(min(situation.train_max, situation.share_max - mine), mine), "mining first")


def choose_fixed(situation: Situation) -> Wish:
    """The operator's split of what the limits leave."""
    return Wish(lend(situation, situation.fixed.train, situation.fixed.mine), "fixed split")


def lend(situation: Situation, train: float, mine: float) -> Shares:
    """Parts of what the limits leave. What one side has no use for the other gets, unless its part is 0: never."""
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
