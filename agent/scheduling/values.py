"""The scheduler's inputs and answers: plain frozen values. Money is in the operator's currency."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.scheduling.energy import BoardProfile
from agent.scheduling.readings import BoardReading, Shares
from flchain.base.types import Millis
from flchain.wire.messages import Phase

OFFERS_MAX = 4
"""Offers of mining that one decision considers, best first; worse ones beyond are ignored."""
DEADLINES_MAX = 16
HARVEST_HOURS_MAX = 48
UNKNOWN_BOARD = BoardProfile("unknown", idle_w=2.7, core_w=0.93, cores=4, source="rough: as a Raspberry Pi 4")


@dataclass(frozen=True)
class RoundOutlook:
    """The open round as this device sees it."""

    number: int
    phase: Phase
    training_left_core_s: float
    """Work left, by measured progress; 0 if there is nothing to train (any more)."""
    reward: float
    """Coins for an accepted update."""
    acceptance: float = 1.0
    """The probability that an update that is in time is accepted."""
    deadline_ms: Millis | None = None
    """When the commitments are expected to close, by the clock of `decide`; None if nothing is known."""
    deadline_offsets_s: tuple[float, ...] = ()
    """Possible errors of the deadline, seconds, all equally likely, at most DEADLINES_MAX; empty: it is exact."""
    work_sd: float = 0.1
    """Error of `training_left_core_s`: its standard deviation as a fraction of it."""

    @property
    def is_training_due(self) -> bool:
        """True while an update can still be made for this round."""
        return self.training_left_core_s > 0 and self.phase in (Phase.OPEN, Phase.COMMIT)


@dataclass(frozen=True)
class MiningOffer:
    """Mining that pays: a number of scores (PoK), or a part in an endless search for blocks (PoW)."""

    reward: float
    """Coins for one unit: a score, or a block."""
    core_s: float
    """Core-seconds that one unit takes; a block takes those of all miners: rivals' cores times the block interval."""
    due: int | None = None
    """Units that are asked for; None: no end."""
    deadline_ms: Millis | None = None
    rivals_cores: float | None = None
    """The rivals' computing power, in cores like this board's; None: there is no contest."""

    @property
    def density(self) -> float:
        """Coins a core-second, before rivals."""
        return self.reward / self.core_s if self.core_s > 0 else 0.0


@dataclass(frozen=True)
class CpuOutlook:
    """The board's CPU and what other processes take of it. Loads are shares of the whole CPU, 0 to 1."""

    cores: float
    other_load: float = 0.0
    """Load of everything that has priority over training and mining, mean of the last minutes."""
    other_load_sd: float = 0.0
    other_load_span_s: float = 10.0
    """How long that load stays about the same (correlation time)."""
    train_cores_max: float | None = None
    """Cores that training can use: its threads; None: all."""
    mine_cores_max: float | None = None

    @property
    def train_share_max(self) -> float:
        """The largest share that training can use."""
        return min(1.0, (self.train_cores_max or self.cores) / self.cores)

    @property
    def mine_share_max(self) -> float:
        """The largest share that mining can use."""
        return min(1.0, (self.mine_cores_max or self.cores) / self.cores)


@dataclass(frozen=True)
class SchedulerInputs:
    """Everything a decision is made from."""

    reading: BoardReading
    cpu: CpuOutlook
    round: RoundOutlook | None = None
    offers: tuple[MiningOffer, ...] = ()
    """What can be mined now."""
    prospect: MiningOffer | None = None
    """What this round will offer if the device pledges scores in time; None: nothing, ever."""
    minute_of_day: int | None = None
    """Local time, 0 to 1439; None while the time is unknown, which counts as quiet hours if some are configured."""
    harvest_w: tuple[float, ...] = ()
    """Expected mean power into the battery, one value an hour from now on; 0 after the last."""
    profile: BoardProfile | None = None
    """The board's power profile; None: UNKNOWN_BOARD is assumed."""
    earned: float = 0.0
    """Money made since the start, less costs: what the policy `learned` learns from."""
    coin_value: float | None = None
    """Money for one coin now; None: as in the settings, where it may be unknown."""
    energy_price_per_kwh: float | None = None
    """None: as in the settings."""


@dataclass(frozen=True)
class Prices:
    """What a coin is worth and what a core-second costs, in money."""

    coin_value: float
    core_second_cost: float
    """Energy and wear: `compute_core_second_cost`."""
    is_known: bool = True
    """False if no price of a coin is known; `coin_value` then means nothing."""


def compute_core_second_cost(profile: BoardProfile, price_per_kwh: float, wear_per_core_hour: float) -> float:
    """Return the cost of a second of one busy core: what it adds to the board's draw, and its wear."""
    return (profile.core_w * price_per_kwh / 1000 + wear_per_core_hour) / 3600


@dataclass(frozen=True)
class Situation:
    """What a policy sees: cleaned inputs, prices, and the shares that the limits leave it."""

    now_ms: Millis
    share_max: float
    """Share for training and mining together."""
    mine_max: float
    """Share for mining alone: 0 where the limits forbid it."""
    cpu: CpuOutlook
    round: RoundOutlook | None
    offers: tuple[MiningOffer, ...]
    """At most OFFERS_MAX, best first; empty where mining is forbidden."""
    prices: Prices
    fixed: Shares
    """The split that the operator set for the policy `fixed`."""
    earned: float

    @property
    def is_training_due(self) -> bool:
        """True if training can earn anything."""
        return self.round is not None and self.round.is_training_due

    @property
    def train_max(self) -> float:
        """The largest share that training can use, 0 if none is due."""
        return min(self.share_max, self.cpu.train_share_max) if self.is_training_due else 0.0


@dataclass(frozen=True)
class Wish:
    """What a policy wants, and why, in a few words."""

    shares: Shares
    reason: str


@dataclass(frozen=True)
class Decision:
    """How to split the CPU until the next decision, and one line for people."""

    shares: Shares
    explanation: str
    is_mining_allowed: bool = False
    """True if it would mine, given something to mine and nothing to train: then the device may pledge scores."""


def seconds_until(deadline_ms: Millis | None, now_ms: Millis) -> float | None:
    """Return seconds, not below 0; None for no deadline."""
    return None if deadline_ms is None else max(0.0, (deadline_ms - now_ms) / 1000)


def is_number(value: float | None) -> bool:
    """Return False for None, nan and infinities: a broken sensor's value counts as unmeasured."""
    return value is not None and math.isfinite(value)
