"""Section [scheduler] of agent.toml: what CPU time is worth, and the limits that protect the board."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.scheduling.policies import POLICIES

HOURS_FORM = 'two times of day, as in "22:00-06:00"'
HOURS_PATTERN = "|([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]"
SHARE = {"min": 0.0, "max": 1.0}
MONEY_MAX = 1e6
PERIOD_S_MAX = 30
"""The energy meter counts nothing between two readings further apart than this (`agent.scheduling.energy`)."""


@dataclass(frozen=True)
class SchedulerSettings:
    """How this board's CPU is split between training, mining and rest. Shares are of all cores together."""

    policy: str = field(
        default="profit",
        metadata={"choices": tuple(POLICIES), "help": "fixed, train-first and mine-first need no prices"},
    )
    share_max: float = field(default=1.0, metadata={**SHARE, "help": "most that training and mining get together"})
    fixed_train: float = field(default=0.64, metadata={**SHARE, "help": "share of policy fixed; 0: never"})
    fixed_mine: float = field(default=0.36, metadata={**SHARE, "help": "share of policy fixed; 0: never"})
    quiet_hours: str = field(
        default="",
        metadata={"pattern": HOURS_PATTERN, "form": HOURS_FORM, "help": "local time without training and mining"},
    )
    period_s: int = field(default=5, metadata={"min": 1, "max": PERIOD_S_MAX, "help": "seconds between two decisions"})
    coin_value: float | None = field(
        default=None,
        metadata={
            "min": 0.0,
            "max": MONEY_MAX,
            "help": "price of one coin; all prices in one currency. Not set: training comes first",
            "example": 0.001,
        },
    )
    energy_price_per_kwh: float = field(
        default=0.3, metadata={"min": 0.0, "max": MONEY_MAX, "help": "price of one kWh"}
    )
    wear_per_core_hour: float = field(
        default=0.0002,
        metadata={"min": 0.0, "max": MONEY_MAX, "help": "cost of wear of one busy core for an hour"},
    )
    is_mining_on_battery: bool = field(default=False, metadata={"help": "mine on battery too"})
    battery_floor: float = field(
        default=0.2, metadata={**SHARE, "help": "charge that training and mining must leave; 0: no floor"}
    )
    battery_capacity_wh: float = field(
        default=0.0, metadata={"min": 0.0, "max": 1e6, "help": "0: as the board reports it"}
    )
    battery_reserve_h: int = field(
        default=12,
        metadata={"min": 1, "max": 48, "help": "hours that the charge must last if no harvest is expected"},
    )
    temperature_limit_c: float = field(
        default=75.0,
        metadata={"min": 30.0, "max": 110.0, "help": "degrees Celsius; no training or mining above it"},
    )
    unmeasured_share_max: float = field(
        default=0.75, metadata={**SHARE, "help": "most while neither temperature nor throttling can be read"}
    )
    memory_floor_mb: int = field(
        default=64,
        metadata={"min": 0, "max": 1_000_000, "help": "less free memory stops mining, half of it stops training"},
    )
    hold_s: int = field(default=15, metadata={"min": 1, "max": 3600, "help": "seconds between two raises of a share"})

    def __post_init__(self) -> None:
        if self.fixed_train + self.fixed_mine > 1.0 + 1e-9:
            raise ValueError(
                f"fixed_train and fixed_mine: together at most 1, are {self.fixed_train + self.fixed_mine:g}"
            )

    def is_quiet(self, minute_of_day: int | None) -> bool:
        """True in quiet hours; if some are configured, also while the time is unknown."""
        if not self.quiet_hours:
            return False
        return True if minute_of_day is None else is_within(self.quiet_hours, minute_of_day)


def is_within(hours: str, minute_of_day: int) -> bool:
    """Return whether a minute lies in hours as "22:00-06:00"."""
    start, end = (60 * int(text[:2]) + int(text[3:]) for text in hours.split("-"))
    return start <= minute_of_day < end if start <= end else minute_of_day >= start or minute_of_day < end
