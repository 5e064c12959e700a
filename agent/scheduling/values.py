"""What the scheduler is told and what it answers: plain frozen values. Money is in the operator's currency."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.scheduling.energy import BoardProfile
from agent.scheduling.readings import BoardReading, Shares
from flchain.base.types import Millis
from flchain.wire.messages import Phase

OFFERS_MAX = 4
"""Offers of mining that one decision looks at; those beyond, the worse ones, count as not made."""
DEADLINES_MAX = 16
HARVEST_HOURS_MAX = 48
UNKNOWN_BOARD = BoardProfile("unknown", idle_w=2.7, core_w=0.93, cores=4, source="rough: as a Raspberry Pi 4")


@dataclass(frozen=True)
class RoundOutlook:
    """The open round as this device sees it."""

    number: int
    phase: Phase
    training_left_core_s: float
    """By measured progress; 0 if there is nothing to train (any more)."""
    reward: float
    """Coins for an accepted update."""
    acceptance: float = 1.0
    """The chance, 0 to 1, that an update which is in time is accepted."""
    deadline_ms: Millis | None = None
    """When the commitments are expected to close, of the clock of `decide`; None if nothing is known."""
    deadline_offsets_s: tuple[float, ...] = ()
    """How far off that may be, seconds: each as likely, at most DEADLINES_MAX; none: it is exact."""
    work_sd: float = 0.1
    """How far off `training_left_core_s` may be, standard deviation as a fraction of it."""

    @property
    def is_training_due(self) -> bool:
        """True while an update can still be made for this round."""
        return self.training_left_core_s > 0 and self.phase in (Phase.OPEN, Phase.COMMIT)


@dataclass(frozen=True)
class MiningOffer:
    """Mining that pays: so many scores (PoK), or shares in the search for blocks for as long as one likes (PoW)."""

    reward: float
    """Coins for one unit: a score, or a block."""
    core_s: float
    """Core-seconds that one unit takes; of a block: by all who search, so rivals' cores times the block interval."""
    due: int | None = None
    """Units that are asked for; None: without end."""
    deadline_ms: Millis | None = None
    rivals_cores: float | None = None
    """What the others who search have, in cores like this board's; None: what one gets is no contest."""

    @property
    def density(self) -> float:
        """Coins a core-second, before rivals."""
        return self.reward / self.core_s if self.core_s > 0 else 0.0


@dataclass(frozen=True)
class CpuOutlook:
    """The board's CPU and what others want of it. Loads are shares of the whole CPU, 0 to 1."""

    cores: float
    other_load: float = 0.0
    """Of everything that goes before training and mining, mean of the last minutes."""
    other_load_sd: float = 0.0
    other_load_span_s: float = 10.0
    """How long that load stays as it is (correlation time)."""
    train_cores_max: float | None = None
    """Cores that training can use: its threads; None: all."""
    mine_cores_max: float | None = None

    @property
    def train_share_max(self) -> float:
        """A larger share would do nothing for training."""
        return min(1.0, (self.train_cores_max or self.cores) / self.cores)

    @property
    def mine_share_max(self) -> float:
        """A larger share would do nothing for mining."""
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
    """What there will be to mine in this round if the device says in time that it will; None: nothing, ever."""
    minute_of_day: int | None = None
    """Local time, 0 to 1439; None while the clock cannot be believed, which counts as quiet hours if there are any."""
    harvest_w: tuple[float, ...] = ()
    """Expected mean power into the battery, one an hour from now on; hours beyond the last have none."""
    profile: BoardProfile | None = None
    """What the board draws; None: taken to be UNKNOWN_BOARD."""
    earned: float = 0.0
    """Money made since the start, costs taken off: what the policy `learned` learns from."""
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
    """False if nobody has said what a coin is worth; `coin_value` then says nothing."""


def compute_core_second_cost(profile: BoardProfile, price_per_kwh: float, wear_per_core_hour: float) -> float:
    """Money for a second of one busy core: what it adds to the board's draw, and its wear."""
    return (profile.core_w * price_per_kwh / 1000 + wear_per_core_hour) / 3600


@dataclass(frozen=True)
class Situation:
    """What a policy sees: cleaned inputs, prices, and how much the limits leave it."""

    now_ms: Millis
    share_max: float
    """Training and mining together."""
    mine_max: float
    """Mining alone: 0 where the limits forbid it."""
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
        """The largest share of use to training, 0 if there is none due."""
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
    """Whether it would mine if there were something to mine and nothing to train: what a device may promise."""


def seconds_until(deadline_ms: Millis | None, now_ms: Millis) -> float | None:
    """Seconds, not below 0; None for no deadline."""
    return None if deadline_ms is None else max(0.0, (deadline_ms - now_ms) / 1000)


def is_number(value: float | None) -> bool:
    """False for None, nan and infinities: what a broken sensor tells is unmeasured."""
    return value is not None and math.isfinite(value)
