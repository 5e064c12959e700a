"""The money maths of the scheduler: what a split of the CPU can be expected to earn.

A plan (s, m) gives training the share s and mining the share m of n cores until the update is done, and then mining
what is best alone, until the commitments close in D seconds. With W core-seconds of training left, reward R coins,
chance of acceptance a, coin value v, and cost c of a core-second, its expected profit is

    V(s, m) = v a R P(s)  -  c E[core-seconds of training]  +  M(m, T(s))  +  M(m', D - T(s))                        (1)

    P(s) = mean over the D_i of Phi((e s n D_i - W) / sqrt(span (d s n)^2 + (w W)^2))                                (2)

P is the probability that the work is done by the deadline. The D_i are the deadlines that there may be, those of the
last rounds, all as likely, and D is their mean; e is the expected part of an asked share that other load leaves, d
its standard deviation, span = min(2 tau D_i, D_i^2) for load that stays as it is for about tau seconds, and w the
relative error of W; both errors are taken as normal. T(s) = min(D, W / (e s n)) is when training ends. P rises
steeply where s passes W / (n D) and then saturates: the first shares are worth little, those around the need are
worth most, more is waste. M(m, t), what mining with x = e m n cores for t seconds earns after its costs, is

    scores (until a deadline): v r E[units done by then] - c x t, with nothing for a unit half done                 (3)
    blocks (proof of work): t v r / i * x / (x + X) - c x t, with X the rivals' cores and i the block interval       (4)

(4) is the proportional share of Tullock's contest; its diminishing returns are why mining slowly and all the time
beats mining fast and in between, so that an interior split can be best. The split of a client's power between
training and mining by two rewards and a cost is that of Wang, Hu, Li, Xu, Xiong, "Incentive Mechanism Design for
Joint Resource Allocation in Blockchain-based Federated Learning" (arXiv 2202.10938); FLchain in edge computing and
its resource allocation: Nguyen et al., "Federated Learning Meets Blockchain in Edge Computing" (IEEE Internet of
Things Journal 2021). (1) to (4) are ours: theirs has no deadline. `docs/scheduler.md` works one example through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.scheduling.values import MiningOffer, Situation, seconds_until

HORIZON_S = 300.0
"""Planning horizon where no deadline is known."""
MINING_HORIZON_S = 60.0
"""Planning horizon where nothing is to be trained."""
SEND_S = 1.0
"""Seconds that encoding, signing and sending take after training."""
UNIT_SD = 0.05
"""Error of the core-seconds of a unit: its standard deviation as a fraction."""
UNITS_COUNTED_MAX = 8
"""Above this many units due, a half-done unit no longer matters."""


def normal_cdf(z: float) -> float:
    """Return Phi, the distribution function of the standard normal."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def expect_smaller(mean: float, sd: float, limit: float) -> float:
    """Return E[min(limit, X)] of a normal X, not below 0."""
    if sd <= 0:
        return max(0.0, min(mean, limit))
    z = (mean - limit) / sd
    above = sd * (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) + z * normal_cdf(z))
    return max(0.0, mean - above)


@dataclass(frozen=True)
class Supply:
    """The part of an asked share that other load leaves: mean 0..1, standard deviation, and correlation time."""

    mean: float
    sd: float
    span_s: float


def get_supply(situation: Situation) -> Supply:
    """Return it for a request of all that the limits leave: groups of lower weight get what others do not use."""
    cpu, asked = situation.cpu, max(situation.share_max, 1e-6)
    left, sd = 1.0 - cpu.other_load, cpu.other_load_sd
    mean = expect_smaller(left, sd, asked) / asked
    bites = normal_cdf((asked - left) / sd) if sd > 0 else 0.0
    return Supply(min(1.0, mean), min(1.0, sd / asked * bites), cpu.other_load_span_s)


@dataclass(frozen=True)
class TrainingPlan:
    """The training that is due: W, D and h of the module's text, and what success is worth, in money."""

    work_core_s: float
    left_s: float
    worth: float
    work_sd: float
    lefts_s: tuple[float, ...]
    """Seconds until each of the possible deadlines, all equally likely."""


def get_training(situation: Situation) -> TrainingPlan | None:
    """Return the training that is due, or None."""
    outlook = situation.round
    if outlook is None or not outlook.is_training_due:
        return None
    left = HORIZON_S
    if outlook.deadline_ms is not None:
        left = (outlook.deadline_ms - situation.now_ms) / 1000 - SEND_S
    offsets = outlook.deadline_offsets_s or (0.0,)
    # the phase is still open: deadlines that have passed are ruled out, unless all have
    lefts = tuple(left + offset for offset in offsets if left + offset > 0) or (0.0,)
    worth = situation.prices.coin_value * outlook.reward * outlook.acceptance
    return TrainingPlan(outlook.training_left_core_s, sum(lefts) / len(lefts), worth, outlook.work_sd, lefts)


def compute_finish_chance(plan: TrainingPlan, share: float, cores: float, supply: Supply) -> float:
    """Return P, equation (2)."""
    if share <= 0:
        return 0.0
    rate, spread = supply.mean * share * cores, supply.sd * share * cores
    chance = 0.0
    for left_s in plan.lefts_s:
        span = min(2 * supply.span_s * left_s, left_s * left_s)
        variance = span * spread * spread + (plan.work_sd * plan.work_core_s) ** 2
        slack = rate * left_s - plan.work_core_s
        chance += normal_cdf(slack / math.sqrt(variance)) if variance > 0 else float(slack >= 0)
    return chance / len(plan.lefts_s)


def expect_units(done: float, sd: float, due: int) -> float:
    """Return the expected number of whole units of `due`, if `done` units of work are done (normal, with `sd`)."""
    if sd <= 0:
        return float(min(due, math.floor(done + 1e-9)))
    if due <= UNITS_COUNTED_MAX:
        return sum(normal_cdf((done - k) / sd) for k in range(1, due + 1))
    return expect_smaller(done, sd, due)


def _expect_scores(situation: Situation, cores: float, t: float, *, spent: float, noise: float) -> tuple[float, float]:
    """Return (coins, core-seconds used) of the due units, best first, after `spent` core-seconds went into them."""
    coins, used = 0.0, 0.0
    for offer in situation.offers:
        if offer.due is None:
            continue
        whole = offer.due * offer.core_s
        before = min(spent, whole)
        spent -= before
        left = seconds_until(offer.deadline_ms, situation.now_ms)
        span = t if left is None else min(t, left)
        able = before + max(0.0, cores * span - used)
        units = expect_units(able / offer.core_s, noise * able / offer.core_s, offer.due)
        coins += offer.reward * max(0.0, units - before / offer.core_s)
        used += max(0.0, min(whole, able) - before)
    return coins, used


def expect_mining(
    situation: Situation, share: float, t: float, supply: Supply, spent: float = 0.0
) -> tuple[float, float]:
    """Return (money after costs, core-seconds on due units) of mining with `share` for `t` seconds: (3) and (4)."""
    cores = supply.mean * share * situation.cpu.cores
    if cores <= 0 or t <= 0:
        return 0.0, 0.0
    prices = situation.prices
    noise = math.hypot(UNIT_SD, supply.sd / supply.mean)
    coins, used = _expect_scores(situation, cores, t, spent=spent, noise=noise)
    busy = used
    endless = next((offer for offer in situation.offers if offer.due is None), None)
    if endless is not None:
        rest = max(0.0, t - used / cores)
        coins += rest * compute_block_rate(endless, cores)
        busy += rest * cores
    return prices.coin_value * coins - prices.core_second_cost * busy, used


def compute_block_rate(offer: MiningOffer, cores: float) -> float:
    """Return coins a second with this many cores, equation (4); without rivals in proportion to the cores."""
    rate = offer.density * cores
    if offer.rivals_cores is None:
        return rate
    # density is r / (X i), so that density * x * X / (x + X) is r / i * x / (x + X)
    return rate * offer.rivals_cores / (cores + offer.rivals_cores) if offer.rivals_cores > 0 else 0.0
