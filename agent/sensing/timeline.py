"""Two clocks: the boot clock orders samples, the wall clock only dates them, and may jump.

A board without a battery-backed clock starts in 1970, or when its battery died, until a time server answers. So every
sample is stored by the boot clock, and each boot has one offset (wall minus boot) that is corrected until its end:
samples taken before the correction are dated by it as well. No sample is dropped for its age by an untrusted wall
clock; then only the time that the board has been running since counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

JUMP_US = 2_000_000
"""A wall clock that moved by more than this against the boot clock was set; smaller changes are drift."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One power-on of the board. Times in us: first and last of the boot clock, offset wall minus boot."""

    number: int
    key: str
    """The kernel's boot id."""
    offset_us: int
    is_trusted: bool
    """True if the wall clock was trusted when the offset was taken."""
    first_us: int
    last_us: int

    def to_wall(self, time_us: int) -> int:
        """Return the Unix time in us of an instant of this boot."""
        return time_us + self.offset_us

    def from_wall(self, wall_us: int) -> int:
        """Return the instant of this boot for a Unix time in us."""
        return wall_us - self.offset_us


def process_clock(boot: Boot, now_us: int, wall_us: int, is_trusted: bool) -> tuple[Boot, int]:
    """Return the boot with its newest offset, and by how many us the wall clock was set (0: it was not).

    An offset taken while the clock was trusted is replaced only by another such one.
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
    """Return the instant of `boot` before which samples are older than age_max_us; boots in order, this one last.

    With a trusted clock then and now, by wall time; otherwise by the time that the board has certainly run since.
    """
    present = boots[-1]
    if boot.number == present.number:
        return present.last_us - age_max_us
    if boot.is_trusted and present.is_trusted:
        return boot.from_wall(present.to_wall(present.last_us)) - age_max_us
    running_us = sum(later.last_us - later.first_us for later in boots if later.number > boot.number)
    return boot.last_us + running_us - age_max_us


def compute_age_us(boots: Sequence[Boot], boot: Boot, time_us: int) -> int:
    """Return the least age of an instant of `boot`; never negative."""
    return max(0, compute_age_cutoff_us(boots, boot, 0) - time_us)
