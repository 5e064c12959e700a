"""A board under a scheduler: CPU shared with other load, heat, throttling, battery. Pure, in steps of a second.

Heat is one RC stage, C dT/dt = P - (T - ambient) / R. The numbers are those of a Raspberry Pi 4 with a small heat
sink, from published measurements (docs/power.md): 2.7 W idle, 6.4 W with four busy cores, throttling at 80 C. They
are a model, not a measurement of this project.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.scheduling.energy import BoardProfile


@dataclass(frozen=True)
class Board:
    """The constants of a board. Powers are in watts, temperatures in degrees Celsius."""

    cores: int = 4
    core_w: float = 0.93
    idle_w: float = 2.7
    heat_k_per_w: float = 6.0
    heat_j_per_k: float = 25.0
    throttle_c: float = 80.0
    throttle_ends_c: float = 77.0
    throttle_factor: float = 0.6
    """The speed of a throttled core."""
    battery_wh: float = 0.0
    """0 means mains power."""
    charge_efficiency: float = 0.9
    fair_share: float = 1 / 3
    """The share of the CPU that the agent's groups get even if others want all of it: they have half the weight."""

    @property
    def profile(self) -> BoardProfile:
        """What the agent knows about the board."""
        return BoardProfile("modelled", self.idle_w, self.core_w, self.cores, "the model's own")


@dataclass(frozen=True)
class BoardState:
    """The state of a board."""

    temperature_c: float
    charge_wh: float = 0.0
    is_throttled: bool = False


@dataclass(frozen=True)
class Used:
    """One second: core-seconds of work (fewer on a throttled core), core-seconds of CPU time, and the power."""

    train_core_s: float
    mine_core_s: float
    busy_core_s: float
    power_w: float


def run_second(
    board: Board,
    state: BoardState,
    train: float,
    mine: float,
    *,
    other_load: float,
    ambient_c: float,
    harvest_w: float,
) -> tuple[BoardState, Used]:
    """Return the board after one second in which training and mining want these shares and are never idle."""
    left = max(1.0 - other_load, board.fair_share)
    asked = train + mine
    given = asked if asked <= left else left
    factor = given / asked if asked > 0 else 0.0
    others = min(other_load, 1.0 - given)
    speed = board.throttle_factor if state.is_throttled else 1.0
    busy = given * board.cores
    power_w = board.idle_w + board.core_w * speed * board.cores * (given + others)
    temperature = (
        state.temperature_c + (power_w - (state.temperature_c - ambient_c) / board.heat_k_per_w) / board.heat_j_per_k
    )
    limit = board.throttle_ends_c if state.is_throttled else board.throttle_c
    charge = state.charge_wh
    if board.battery_wh:
        net_w = board.charge_efficiency * harvest_w - power_w
        charge = min(board.battery_wh, max(0.0, charge + net_w / 3600))
    after = BoardState(temperature, charge, temperature >= limit)
    work = factor * board.cores * speed
    return after, Used(train * work, mine * work, busy, power_w)


def start(board: Board, ambient_c: float, charge_fraction: float = 1.0) -> BoardState:
    """Return a board that has been idle for long, with the temperature of that."""
    return BoardState(ambient_c + board.idle_w * board.heat_k_per_w, charge_fraction * board.battery_wh)
