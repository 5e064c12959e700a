"""The policy `profit`: the split with the largest expected profit, equation (1) of `economics`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.scheduling.policies.economics import (
    MINING_HORIZON_S,
    Supply,
    TrainingPlan,
    compute_finish_chance,
    expect_mining,
    get_supply,
    get_training,
)
from agent.scheduling.readings import Shares
from agent.scheduling.values import Situation, Wish

STEPS = 100
"""Splits are compared in hundredths: two hundred evaluations, a few milliseconds on a small board."""
TIE = 1e-9


@dataclass(frozen=True)
class Plan:
    """A split and what it is expected to earn until the deadline, in money."""

    shares: Shares
    value: float
    chance: float
    """The probability that the update is in time."""


def choose_profit(situation: Situation) -> Wish:
    """Return the best plan. Among equals the one that trains more: work that is done early cannot be late."""
    training, supply = get_training(situation), get_supply(situation)
    plan = find_best_plan(situation, training, supply)
    if training is None:
        reason = "nothing to train"
    elif situation.share_max == 0:
        reason = ""
    elif plan.shares.train == 0:
        chance = compute_finish_chance(training, situation.train_max, situation.cpu.cores, supply)
        reason = "update cannot be in time" if chance < 0.05 else f"update worth {training.worth:.3g} is not worth it"
    else:
        reason = f"{min(plan.chance, 0.99):.0%} sure"
    return Wish(plan.shares, reason)


def find_best_plan(situation: Situation, training: TrainingPlan | None, supply: Supply) -> Plan:
    """Compare every split in steps of a hundredth."""
    horizon = MINING_HORIZON_S if training is None else max(1.0, training.left_s)
    alone = find_best_mining(situation, horizon, supply)
    top = math.floor(situation.train_max * STEPS + TIE) if training is not None else 0
    best: Plan | None = None
    for step in range(top, -1, -1):
        plan = evaluate(situation, training, supply, step / STEPS, alone=alone, horizon=horizon)
        if best is None or plan.value > best.value + TIE * max(1e-12, abs(best.value)):
            best = plan
    assert best is not None
    return best


def find_best_mining(situation: Situation, t: float, supply: Supply) -> float:
    """Return the share with which mining alone earns most in `t` seconds."""
    top = math.floor(min(situation.mine_max, situation.cpu.mine_share_max) * STEPS + TIE) if situation.offers else 0
    values = [expect_mining(situation, step / STEPS, t, supply)[0] for step in range(top + 1)]
    best = max(values)
    # work that is done sooner cannot be late and costs no more; but work without a gain is not done
    return max(step for step in range(top + 1) if values[step] >= best - TIE * abs(best)) / STEPS if best > 0 else 0.0


def evaluate(
    situation: Situation, training: TrainingPlan | None, supply: Supply, train: float, *, alone: float, horizon: float
) -> Plan:
    """Return equation (1) for this share of training and the best share of mining beside it."""
    cores, cost = situation.cpu.cores, situation.prices.core_second_cost
    value, chance, ends_s = 0.0, 0.0, 0.0
    if training is not None and train > 0:
        rate = max(1e-12, supply.mean * train * cores)
        ends_s = min(horizon, training.work_core_s / rate)
        chance = compute_finish_chance(training, train, cores, supply)
        value = training.worth * chance - cost * rate * ends_s
    beside = min(alone, max(0.0, math.floor((situation.share_max - train) * STEPS + TIE) / STEPS))
    if train == 0:
        mined, _ = expect_mining(situation, alone, horizon, supply)
        return Plan(Shares(0.0, alone), mined, 0.0)
    first, spent = expect_mining(situation, beside, ends_s, supply)
    then, _ = expect_mining(situation, alone, horizon - ends_s, supply, spent)
    return Plan(Shares(train, beside), value + first + then, chance)
