"""How the board's CPU is split between training, mining and rest: decide(state, inputs, now_ms) -> (state, decision).

A policy proposes, within limits that no policy can leave (`limits`), and what it proposes is followed
without haste:  down at once; up, by DEAD_BAND at least, once in `hold_s`, or once for each new turn of a round (a
phase that opens, a training that ends, mining that is offered). `docs/scheduler.md` explains it to operators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agent.scheduling.limits import Limits, LimitsState, compute_limits
from agent.scheduling.policies import POLICIES, PRICED, Memory
from agent.scheduling.policies.economics import MINING_HORIZON_S, expect_mining, get_supply, get_training
from agent.scheduling.policies.plain import choose_train_first
from agent.scheduling.readings import Shares
from agent.scheduling.settings import MONEY_MAX, SchedulerSettings
from agent.scheduling.values import (
    DEADLINES_MAX,
    OFFERS_MAX,
    UNKNOWN_BOARD,
    CpuOutlook,
    Decision,
    MiningOffer,
    Prices,
    RoundOutlook,
    SchedulerInputs,
    Situation,
    Wish,
    compute_core_second_cost,
    is_number,
)
from flchain.base.frozen import replace
from flchain.base.types import Millis
from flchain.wire.messages import Phase

DEAD_BAND = 0.05
"""A share that would change by less than this stays, unless it is to end."""
EXPLANATION_CHARS_MAX = 199
LARGEST = 1e9
"""Largest number that is taken for a measurement: anything above it is a mistake."""
MINUTES_PER_DAY = 24 * 60
REST = Shares(0.0, 0.0)

Turn = tuple[Phase | None, bool, bool]
"""A turn is a phase, whether training is due and whether mining is offered: at most 24 a round, each used once."""


@dataclass(frozen=True)
class SchedulerState:
    """What the scheduler remembers between decisions."""

    settings: SchedulerSettings
    shares: Shares = REST
    raised_ms: Millis | None = None
    """When a share was last raised."""
    limits: LimitsState = field(default_factory=LimitsState)
    round: int | None = None
    turns: frozenset[Turn] = frozenset()
    """The turns that this round has had."""
    memory: Memory = None
    """The policy's own."""


def build_scheduler_state(settings: SchedulerSettings, memory: Memory = None) -> SchedulerState:
    """Return the state after a start; `memory` is what the policy learned in an earlier run."""
    return SchedulerState(settings, memory=memory)


def decide(state: SchedulerState, inputs: SchedulerInputs, now_ms: Millis) -> tuple[SchedulerState, Decision]:
    """Return the split until the next decision, a few seconds later. `now_ms` is of a monotonic clock."""
    limits_state, limits = compute_limits(state.limits, state.settings, inputs, state.shares, now_ms)
    situation = build_situation(state.settings, inputs, limits, now_ms)
    wish, memory = _ask_policy(state, situation)
    wish = replace(wish, shares=_fit(wish.shares, limits))
    state = _open_round(replace(state, limits=limits_state, memory=memory), situation)
    turn = _name_turn(situation)
    shares = _follow(state, wish.shares, limits, turn in state.turns, now_ms)
    is_raised = shares.train > state.shares.train or shares.mine > state.shares.mine
    state = replace(
        state,
        shares=shares,
        raised_ms=now_ms if is_raised else state.raised_ms,
        turns=state.turns | {turn},
    )
    text = explain(situation, shares, wish, limits, inputs.minute_of_day)
    return state, Decision(shares, text, _would_mine(state, situation, inputs.prospect))


def _ask_policy(state: SchedulerState, situation: Situation) -> tuple[Wish, Memory]:
    """Replace a policy that weighs money while no price of a coin is known."""
    name = state.settings.policy
    if situation.prices.is_known or name not in PRICED:
        return POLICIES[name](situation, state.memory)
    wish = choose_train_first(situation)
    reason = f"{wish.reason}, no prices set" if situation.is_training_due else "nothing to train"
    return replace(wish, reason=reason), state.memory


def _would_mine(state: SchedulerState, situation: Situation, prospect: MiningOffer | None) -> bool:
    """Ask the policy itself, and discard what it would learn from the question."""
    if prospect is None or situation.mine_max <= 0 or not _is_sound(prospect):
        return False
    wish, _ = _ask_policy(state, replace(situation, round=None, offers=(prospect,)))
    return wish.shares.mine > 0


def build_situation(settings: SchedulerSettings, inputs: SchedulerInputs, limits: Limits, now_ms: Millis) -> Situation:
    """Return what the policy sees, without values that are not numbers."""
    energy, coin = settings.energy_price_per_kwh, settings.coin_value or 0.0
    is_known = settings.coin_value is not None or inputs.coin_value is not None
    if inputs.energy_price_per_kwh is not None:  # may be below 0 where the grid pays for being relieved
        energy = _clean(inputs.energy_price_per_kwh, -MONEY_MAX, MONEY_MAX, energy)
    if inputs.coin_value is not None:
        coin = _clean(inputs.coin_value, 0.0, MONEY_MAX, coin)
    cost = compute_core_second_cost(inputs.profile or UNKNOWN_BOARD, energy, settings.wear_per_core_hour)
    offers = sorted((o for o in inputs.offers if _is_sound(o)), key=lambda o: o.density, reverse=True)
    return Situation(
        now_ms=now_ms,
        share_max=limits.share_max,
        mine_max=limits.mine_max,
        cpu=_clean_cpu(inputs.cpu),
        round=_clean_round(inputs.round),
        offers=tuple(offers[:OFFERS_MAX]) if limits.mine_max > 0 else (),
        prices=Prices(coin, cost, is_known),
        fixed=Shares(settings.fixed_train, min(settings.fixed_mine, 1.0 - settings.fixed_train)),
        earned=_clean(inputs.earned, -LARGEST, LARGEST),
    )


def _is_sound(offer: MiningOffer) -> bool:
    return (
        is_number(offer.reward)
        and 0 < offer.reward <= LARGEST
        and is_number(offer.core_s)
        and 1 / LARGEST <= offer.core_s <= LARGEST
        and (offer.due is None or 0 < offer.due <= LARGEST)
        and (offer.rivals_cores is None or (is_number(offer.rivals_cores) and 0 < offer.rivals_cores <= LARGEST))
    )


def _clean(value: float, low: float, high: float, otherwise: float = 0.0) -> float:
    """Return the value within the range, or `otherwise` if it is not a number."""
    return min(high, max(low, value)) if is_number(value) else otherwise


def _clean_cpu(cpu: CpuOutlook) -> CpuOutlook:
    return replace(cpu, other_load=_clean(cpu.other_load, 0.0, 1.0), other_load_sd=_clean(cpu.other_load_sd, 0.0, 1.0))


def _clean_round(outlook: RoundOutlook | None) -> RoundOutlook | None:
    """Return None for an impossible outlook: without knowing how much there is to do, nothing is trained."""
    if outlook is None or not is_number(outlook.training_left_core_s):
        return None
    return replace(
        outlook,
        training_left_core_s=_clean(outlook.training_left_core_s, 0.0, LARGEST),
        reward=_clean(outlook.reward, 0.0, LARGEST),
        acceptance=_clean(outlook.acceptance, 0.0, 1.0),
        deadline_offsets_s=tuple(
            offset for offset in outlook.deadline_offsets_s[-DEADLINES_MAX:] if abs(offset) <= LARGEST
        ),
        work_sd=_clean(outlook.work_sd, 0.0, 1.0),
    )


def _open_round(state: SchedulerState, situation: Situation) -> SchedulerState:
    number = None if situation.round is None else situation.round.number
    return state if number == state.round else replace(state, round=number, turns=frozenset())


def _name_turn(situation: Situation) -> Turn:
    phase = None if situation.round is None else situation.round.phase
    return phase, situation.is_training_due, bool(situation.offers)


def _fit(shares: Shares, limits: Limits) -> Shares:
    """Cut a wish to what the limits allow. Mining is cut first where both are too much."""
    train = min(max(0.0, shares.train), limits.share_max)
    return Shares(train, max(0.0, min(shares.mine, limits.mine_max, limits.share_max - train)))


def _follow(state: SchedulerState, wish: Shares, limits: Limits, is_old_turn: bool, now_ms: Millis) -> Shares:
    """Move from the running split towards the wished one, without haste."""
    current = _shrink(state.shares, limits)
    changes = [(wish.train, current.train), (wish.mine, current.mine)]
    is_small = all(abs(new - old) < DEAD_BAND - 1e-9 and (new > 0) == (old > 0) for new, old in changes)
    if is_small:
        return current
    is_raise = any(new > old for new, old in changes)
    is_held = state.raised_ms is not None and 0 <= now_ms - state.raised_ms < 1000 * state.settings.hold_s
    if is_raise and is_held and is_old_turn:
        return current  # doing half of a wish, the cut without the raise, would waste the difference
    return wish


def _shrink(shares: Shares, limits: Limits) -> Shares:
    """Cut both in proportion, where the running split exceeds what the limits allow now."""
    mine = min(shares.mine, limits.mine_max)
    total = shares.train + mine
    factor = 1.0 if total <= limits.share_max else limits.share_max / total
    return Shares(shares.train * factor, mine * factor)


def explain(situation: Situation, shares: Shares, wish: Wish, limits: Limits, minute_of_day: int | None) -> str:
    """Return one line, at most EXPLANATION_CHARS_MAX characters long."""
    parts = [_explain_training(situation, minute_of_day), _explain_mining(situation, shares)]
    parts += [limits.reason, limits.mining_reason, wish.reason]
    head = f"training {shares.train:.0%}, mining {shares.mine:.0%}"
    text = f"{head}: {'; '.join(part for part in parts if part)}"
    return text if len(text) <= EXPLANATION_CHARS_MAX else text[: EXPLANATION_CHARS_MAX - 3] + "..."


def _explain_training(situation: Situation, minute_of_day: int | None) -> str:
    training, outlook = get_training(situation), situation.round
    if training is None or outlook is None:
        return ""
    text = f"update worth {training.worth:.3g}" if situation.prices.is_known else "update"
    if outlook.deadline_ms is None:
        return text + f", {training.work_core_s:.0f} core-s left"
    left_s = (outlook.deadline_ms - situation.now_ms) / 1000
    if minute_of_day is None or left_s < 120:
        text += f" in {max(0.0, left_s):.0f} s"
    else:
        at = (minute_of_day + math.floor(left_s / 60)) % MINUTES_PER_DAY
        text += f" by {at // 60:02d}:{at % 60:02d}"
    return text + f" needs {min(999.0, training.work_core_s / max(1.0, training.left_s)):.2g} core"


def _explain_mining(situation: Situation, shares: Shares) -> str:
    if not situation.offers or not situation.prices.is_known:
        return ""
    money, _ = expect_mining(situation, max(shares.mine, 0.01), MINING_HORIZON_S, get_supply(situation))
    text = f"mining {'earns' if shares.mine > 0 else 'would earn'} {money * 3600 / MINING_HORIZON_S:.3g}/h"
    return text
