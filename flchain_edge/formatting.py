"""Numbers as a person at a board reads them: durations, instants, bytes, shares. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def format_span(seconds: float) -> str:
    """Return the two largest units: "3 d 4 h", "12 s"."""
    left = max(0, round(seconds))
    for index, (size, unit) in enumerate(_SPANS):
        if left >= size or unit == "s":
            whole, rest = divmod(left, size)
            text = f"{whole} {unit}"
            if index + 1 < len(_SPANS) and rest >= _SPANS[index + 1][0]:
                small, name = _SPANS[index + 1]
                text += f" {rest // small} {name}"
            return text
    raise AssertionError("seconds end the table")


def format_moment(unix_ms: float | None) -> str:
    """Return the time in UTC, to the minute."""
    if unix_ms is None:
        return "an unknown time"
    return datetime.fromtimestamp(unix_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def format_bytes(count: float | None) -> str:
    """Return a count in decimal units, as cards and networks are sold."""
    if count is None:
        return "-"
    return next(
        (f"{count / size:.{1 if count < 100 * size else 0}f} {unit}" for size, unit in _SIZES if count >= size),
        f"{count:.0f} B",
    )


def format_share(part: float | None) -> str:
    """Return a share in percent."""
    return "-" if part is None else f"{part:.0%}"


def format_table(rows: list[tuple[str, ...]], right: frozenset[int] = frozenset()) -> list[str]:
    """Return the rows with their columns aligned, those with a number in `right` to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(w) if n in right else cell.ljust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines
