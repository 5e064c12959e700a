"""Check the clock against the chain's certified time, the time server, and the battery-backed clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from flchain_edge.checks.checkup import Finding, fail, ok, warn
from flchain_edge.formatting import format_moment, format_span
from flchain_edge.process.kernel_clock import is_clock_synchronised

BEHIND_S_MAX = 60.0
"""A block's time may be this much ahead of an honest clock."""
RTC_OFF_S_MAX = 60.0
RTC = Path("class/rtc/rtc0/since_epoch")


def check_clock(certified_ms: int | None, trusting_s: int, sysfs_root: Path = Path("/sys")) -> Iterator[Finding]:
    """Check the clock. `certified_ms`: time of the newest certified header known here; `trusting_s`: the chain's."""
    now_s = time.time()
    if certified_ms is not None:
        yield _compare_with_chain(now_s, certified_ms / 1000, trusting_s)
    if is_clock_synchronised():
        yield ok(f"{format_moment(1000 * now_s)}, synchronised with a time server")
    else:
        yield warn(
            f"{format_moment(1000 * now_s)}, not synchronised with a time server",
            "timedatectl set-ntp true, or install systemd-timesyncd or chrony",
        )
    yield _check_rtc(sysfs_root / RTC, now_s)


def _compare_with_chain(now_s: float, certified_s: float, trusting_s: int) -> Finding:
    ahead_s = now_s - certified_s
    if ahead_s < -BEHIND_S_MAX:
        return fail(
            f"the clock is {format_span(-ahead_s)} behind the chain's newest block", "set it: timedatectl set-ntp true"
        )
    if ahead_s > trusting_s:
        return fail(
            f"the newest block here is {format_span(ahead_s)} old; headers are trusted for {format_span(trusting_s)}",
            "if the clock is right, set `checkpoint` to a recent header's hash (flchain chain show DIR head)",
        )
    return ok(f"the chain's newest block known here is {format_span(max(0.0, ahead_s))} old")


def _check_rtc(file: Path, now_s: float) -> Finding:
    try:
        rtc_s = float(file.read_text())
    except (OSError, ValueError):
        return ok("no battery-backed clock: after a boot the time comes from the network or from the chain")
    if abs(rtc_s - now_s) > RTC_OFF_S_MAX:
        return warn(
            f"the battery-backed clock is {format_span(abs(rtc_s - now_s))} off",
            "hwclock --systohc; if it goes wrong again, replace its battery",
        )
    return ok("the battery-backed clock agrees")
