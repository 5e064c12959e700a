"""Section [scheduler] of agent.toml: what the CPU is worth, and what training and mining must never do to the board."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.scheduling.policies import POLICIES

HOURS_PATTERN = "|([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]"
SHARE = {"min": 0.0, "max": 1.0}
MONEY_MAX = 1e6
PERIOD_S_MAX = 30
"""The energy meter counts nothing between two looks at the board that are further apart (`agent.scheduling.energy`)."""


@dataclass(frozen=True)
class SchedulerSettings:
    """How this board's CPU is split between training, mining and rest. Shares are of all cores together."""

    policy: str = field(
        default="profit",
        metadata={"choices": tuple(POLICIES), "help": "fixed, train-first and mine-first ask no price"},
    )
    share_max: float = field(default=1.0, metadata={**SHARE, "help": "training and mining together get at most this"})
    fixed_train: float = field(default=0.64, metadata={**SHARE, "help": "of policy fixed; 0: never"})
    fixed_mine: float = field(default=0.36, metadata={**SHARE, "help": "of policy fixed; 0: never"})
    quiet_hours: str = field(
        default="",
        metadata={"pattern": HOURS_PATTERN, "help": 'local time in which all rests, such as "22:00-06:00"'},
    )
    period_s: int = field(
        default=5, metadata={"min": 1, "max": PERIOD_S_MAX, "help": "look at the board and decide this often"}
    )
    coin_value: float | None = field(
        default=None,
        metadata={
            "min": 0.0,
            "max": MONEY_MAX,
            "help": "money for one coin; all money is in one currency of yours. Not set: training comes first",
            "example": 0.001,
        },
    )
    energy_price_per_kwh: float = field(
        default=0.3, metadata={"min": 0.0, "max": MONEY_MAX, "help": "money for one kWh"}
    )
    wear_per_core_hour: float = field(
        default=0.0002,
        metadata={"min": 0.0, "max": MONEY_MAX, "help": "money that an hour of one busy core costs in wear"},
    )
    is_mining_on_battery: bool = field(default=False, metadata={"help": "also mine while a battery feeds the board"})
    battery_floor: float = field(
        default=0.2, metadata={**SHARE, "help": "charge that training and mining must leave; 0: do not care"}
    )
    battery_capacity_wh: float = field(
        default=0.0, metadata={"min": 0.0, "max": 1e6, "help": "0: as the board tells it, if it does"}
    )
    battery_reserve_h: int = field(
        default=12,
        metadata={"min": 1, "max": 48, "help": "hours the charge must last if no harvest is foreseen"},
    )
    temperature_limit_c: float = field(
        default=75.0,
        metadata={"min": 30.0, "max": 110.0, "help": "of the hottest sensor, never above while we compute"},
    )
    unmeasured_share_max: float = field(
        default=0.75, metadata={**SHARE, "help": "the most while neither temperature nor throttling can be read"}
    )
    memory_floor_mb: int = field(
        default=64,
        metadata={"min": 0, "max": 1_000_000, "help": "with less free memory mining stops, at half all does"},
    )
    hold_s: int = field(
        default=15, metadata={"min": 1, "max": 3600, "help": "a share is raised at most once in so many seconds"}
    )

    def __post_init__(self) -> None:
        if self.fixed_train + self.fixed_mine > 1.0 + 1e-9:
            raise ValueError(
                f"fixed_train and fixed_mine: together at most 1, are {self.fixed_train + self.fixed_mine:g}"
            )

    def is_quiet(self, minute_of_day: int | None) -> bool:
        """True in the quiet hours, and while the clock is not known if there are any."""
        if not self.quiet_hours:
            return False
        if minute_of_day is None:
            return True
        start, end = (60 * int(text[:2]) + int(text[3:]) for text in self.quiet_hours.split("-"))
        return start <= minute_of_day < end if start <= end else minute_of_day >= start or minute_of_day < end
