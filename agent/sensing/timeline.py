"""Two clocks: the boot clock orders samples, the wall clock only dates them; what to do when the wall clock jumps.

A board without a clock of its own starts in 1970, or in the year of a dead battery, until a time server answers. So
every sample is kept by the boot clock, and each boot has one offset (wall minus boot) that is corrected until the end:
samples taken before the correction are dated by it as well. Nothing is dropped for its age by a wall clock that nobody
vouches for; the time the board has been running since is then what counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

JUMP_US = 2_000_000
"""A wall clock that moved by more than this against the boot clock was set; slower changes are its drift."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One power-on of the board. Times in us: first and last of the boot clock, offset wall minus boot."""

    number: int
    key: str
    """The kernel's boot id."""
    offset_us: int
    is_trusted: bool
    """Whether the offset was taken while something vouched for the wall clock."""
    first_us: int
    last_us: int

    def to_wall(self, time_us: int) -> int:
        """Unix time in us of an instant of this boot."""
        return time_us + self.offset_us

    def from_wall(self, wall_us: int) -> int:
        """The instant of this boot for a Unix time in us."""
        return wall_us - self.offset_us


def process_clock(boot: Boot, now_us: int, wall_us: int, is_trusted: bool) -> tuple[Boot, int]:
    """The boot with its newest offset, and by how many us the wall clock was set (0: it was not).

    An offset taken while the clock was trusted gives way only to another such one.
    """
    boot = replace(boot, last_us=max(boot.last_us, now_us))
    if boot.is_trusted and not is_trusted:
        return boot, 0
    offset_us = wall_us - now_us
    jump_us = offset_us - boot.offset_us
    return (
        replace(boot, offset_us=offset_us, is_trusted=is_trusted),
        jump_us if abs(jump_us) > JUMP_US else 0,
    )


def compute_age_cutoff_us(boots: Sequence[Boot], boot: Boot, age_max_us: int) -> int:
    """The instant of `boot` before which its samples are older than age_max_us; boots in order, the present one last.

    With a trusted clock then and now, by the wall; else by the time that the board has surely been running since.
    """
    present = boots[-1]
    if boot.number == present.number:
        return present.last_us - age_max_us
    if boot.is_trusted and present.is_trusted:
        return boot.from_wall(present.to_wall(present.last_us)) - age_max_us
    running_us = sum(later.last_us - later.first_us for later in boots if later.number > boot.number)
    return boot.last_us + running_us - age_max_us


def compute_age_us(boots: Sequence[Boot], boot: Boot, time_us: int) -> int:
    """How old an instant of `boot` is, at least; never negative."""
    return max(0, compute_age_cutoff_us(boots, boot, 0) - time_us)
