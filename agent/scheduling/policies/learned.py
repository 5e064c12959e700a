"""The policy `learned`: a contextual bandit that models no prices and learns from the money that was earned.

LinUCB with one linear model of action and context: Li, Chu, Langford, Schapire, "A Contextual-Bandit Approach to
Personalized News Article Recommendation" (WWW 2010), in the form of Chu, Li, Reyzin, Schapire, "Contextual Bandits
with Linear Payoff Functions" (AISTATS 2011). Old observations fade by a factor, as in Russac, Vernade, Cappe,
"Weighted Linear Bandits for Non-Stationary Environments" (NeurIPS 2019):

    theta = A^-1 b;   take the split with the largest  theta . x + ALPHA sqrt(x . A^-1 x)
    A <- FADE A + x x^T + (1 - FADE) I,   b <- FADE b + reward x

It plays once a round, since an update is paid once a round. Ties go to the first split in the list; it uses no
chance. Its memory is D^2 + D floats and the play that is open, a plain value of bounded size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.scheduling.policies.economics import get_supply, get_training
from agent.scheduling.policies.plain import lend
from agent.scheduling.values import Situation, Wish
from flchain.base.types import Millis

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
ACTIONS = tuple((train, mine) for train in LEVELS for mine in LEVELS if train + mine <= 1)
"""The splits that it plays: parts of what the limits leave, for training and for mining."""
D = 8
ALPHA = 0.3
FADE = 0.99
PLAY_MS_MAX = 600_000
"""A play ends with the round, or after this if no round ends."""
SCALE_FADE = 0.9
START = Millis(0)


@dataclass(frozen=True)
class LearnedMemory:
    """What it has learned: A (D rows of D) and b (D), the scale of rewards, and the play that is open."""

    a: tuple[tuple[float, ...], ...] = tuple(tuple(float(row == column) for column in range(D)) for row in range(D))
    b: tuple[float, ...] = (0.0,) * D
    scale: float = 0.0
    """Mean size of a play's reward in money a second: the unit of the model's rewards."""
    action: tuple[float, float] | None = None
    features: tuple[float, ...] = ()
    round: int | None = None
    started_ms: Millis = START
    earned: float = 0.0
    """`Situation.earned` when the play began."""
    plays: int = 0


def choose_learned(situation: Situation, memory: LearnedMemory) -> tuple[Wish, LearnedMemory]:
    """Continue this round's play, or learn from the last one and start a new one."""
    number = None if situation.round is None else situation.round.number
    is_over = number != memory.round or situation.now_ms - memory.started_ms >= PLAY_MS_MAX
    if memory.action is None or is_over:
        memory = _play(situation, _learn(situation, memory), number)
    assert memory.action is not None
    shares = lend(situation, *memory.action)
    return Wish(shares, f"play {memory.plays} of {memory.action[0]:.0%}/{memory.action[1]:.0%}"), memory


def _learn(situation: Situation, memory: LearnedMemory) -> LearnedMemory:
    seconds = (situation.now_ms - memory.started_ms) / 1000
    if memory.action is None or seconds <= 0 or not math.isfinite(situation.earned):
        return memory
    rate = (situation.earned - memory.earned) / seconds
    scale = abs(rate) if memory.scale == 0 else SCALE_FADE * memory.scale + (1 - SCALE_FADE) * abs(rate)
    # a windfall counts, but for no more than three usual plays
    reward = max(-3.0, min(3.0, rate / scale)) if scale > 0 else 0.0
    x = np.array(memory.features)
    a = FADE * np.array(memory.a) + np.outer(x, x) + (1 - FADE) * np.eye(D)
    b = FADE * np.array(memory.b) + reward * x
    return LearnedMemory(tuple(map(tuple, a.tolist())), tuple(b.tolist()), scale, plays=memory.plays)


def _play(situation: Situation, memory: LearnedMemory, number: int | None) -> LearnedMemory:
    contexts = np.array([_describe(situation, *action) for action in ACTIONS])
    inverse = np.linalg.inv(np.array(memory.a))
    bounds = contexts @ (inverse @ np.array(memory.b)) + ALPHA * np.sqrt(
        np.einsum("ij,jk,ik->i", contexts, inverse, contexts).clip(0)
    )
    best = int(np.argmax(bounds))
    return LearnedMemory(
        memory.a,
        memory.b,
        memory.scale,
        action=ACTIONS[best],
        features=tuple(contexts[best].tolist()),
        round=number,
        started_ms=situation.now_ms,
        earned=situation.earned,
        plays=memory.plays + 1,
    )


def _describe(situation: Situation, train: float, mine: float) -> npt.NDArray[np.float64]:
    """Return the features, shape (D,), each in [-1, 1]: the split, and its products with the context."""
    cores, cost = situation.cpu.cores, situation.prices.core_second_cost
    training, need, worth = get_training(situation), 0.0, 0.0
    if training is not None:
        work_cost = cost * training.work_core_s
        rate = get_supply(situation).mean * cores * situation.share_max
        need = training.work_core_s / max(1e-9, rate * training.left_s)
        worth = (training.worth - work_cost) / max(1e-12, training.worth + work_cost)
    density = max((offer.density for offer in situation.offers), default=0.0) * situation.prices.coin_value
    margin = (density - cost) / max(1e-12, density + cost)
    in_time = float(train >= need) if training is not None else 0.0
    about = [math.sqrt(mine) * margin, mine * margin, worth * in_time, worth * train, in_time]
    return np.array([1.0, train, mine, *about]).clip(-1.0, 1.0)
