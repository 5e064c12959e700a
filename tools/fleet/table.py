"""The fleet as a table that fits 80 columns, in ASCII: columns never move, what does not fit is cut. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flchain.wire.fleet import Status
from tools.fleet.roster import Board, Standing, count_standings, count_versions

WIDTH_MIN = 80
REASON_WIDTH_MIN = 24
"""With less room beside the table the reasons stand below it."""
REASONS_MAX = 20
"""Reasons below the table; how many more there are is said."""
CUT = "~"
"""What ends a text that was cut."""
COLOURS = {Standing.SICK: "\x1b[31m", Standing.SILENT: "\x1b[35m", Standing.STRAINED: "\x1b[33m"}
PLAIN = "\x1b[0m"
WORDS = {Standing.SICK: "sick", Standing.SILENT: "silent", Standing.NEVER: "never heard", Standing.STRAINED: "strained"}


@dataclass(frozen=True)
class _Column:
    title: str
    width: int
    show: Callable[[Board, Status], str]
    is_right: bool = False


def _show_health(board: Board, status: Status) -> str:
    word = status.health.name.lower().replace("_", " ")
    return f"SILENT ({word})" if board.standing is Standing.SILENT else word


COLUMNS = (
    _Column("BOARD", 16, lambda board, status: board.title),
    _Column("VERSION", 8, lambda board, status: status.version or "?"),
    _Column("TASK", 10, lambda board, status: status.task or "?"),
    _Column("ROUND", 6, lambda board, status: str(status.round), is_right=True),
    _Column("HEALTH", 17, _show_health),
    _Column("BATT", 4, lambda board, status: _with_unit(status.battery_percent, "%"), is_right=True),
    _Column("TEMP", 4, lambda board, status: _with_unit(status.temperature_c, "C"), is_right=True),
    _Column("AGE", 7, lambda board, status: format_age(board.age_s), is_right=True),
)
TABLE_WIDTH = sum(column.width for column in COLUMNS) + len(COLUMNS) - 1
assert TABLE_WIDTH < WIDTH_MIN, "a terminal of 80 columns shows the whole table"


def _with_unit(value: int | None, unit: str) -> str:
    return "-" if value is None else f"{value}{unit}"


def format_age(seconds: float | None) -> str:
    """Return an age in its largest unit, at most five characters: 12s, 14m, 3h, 12d."""
    if seconds is None:
        return "?"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def cut(text: str, width: int) -> str:
    """Return the text in this width."""
    return text if len(text) <= width else text[: max(0, width - 1)] + CUT


def format_roster(boards: Sequence[Board], *, width: int, has_colours: bool) -> list[str]:
    """Return the table, then the reasons if there is no room for them in it, then what sums it up."""
    room = width - TABLE_WIDTH - 2
    is_wide = room >= REASON_WIDTH_MIN
    lines = [_join([_fit(column.title, column) for column in COLUMNS]) + ("  REASON" if is_wide else "")]
    for board in boards:
        line = _format_board(board)
        if is_wide and (reason := get_reason(board)):
            line = f"{line:<{TABLE_WIDTH}}  {cut(reason, room)}"
        line = line.rstrip()
        colour = COLOURS.get(board.standing, "") if has_colours else ""
        lines.append(f"{colour}{line}{PLAIN}" if colour else line)
    if not is_wide:
        lines += _format_reasons(boards, width)
    return [*lines, "", *(cut(line, max(width, WIDTH_MIN)) for line in format_summary(boards))]


def _format_board(board: Board) -> str:
    status = board.status
    if status is None:
        known = {"BOARD": board.title, "HEALTH": "NEVER HEARD"}
        return _join([_fit(known.get(column.title, "-"), column) for column in COLUMNS])
    return _join([_fit(column.show(board, status), column) for column in COLUMNS])


def _fit(text: str, column: _Column) -> str:
    text = cut(text, column.width)
    return text.rjust(column.width) if column.is_right else text.ljust(column.width)


def _join(cells: Sequence[str]) -> str:
    return " ".join(cells)


def get_reason(board: Board) -> str:
    """Return why a board is not well; with nothing to say, how far it is with an update."""
    status = board.status
    if status is None:
        return ""
    if status.reason:
        return status.reason
    return f"release {status.release}: {status.update.name.lower().replace('_', ' ')}" if status.update else ""


def _format_reasons(boards: Sequence[Board], width: int) -> list[str]:
    told = [(board.title, board.status.reason) for board in boards if board.status and board.status.reason]
    lines = [cut(f"  {title}: {reason}", width) for title, reason in told[:REASONS_MAX]]
    if len(told) > REASONS_MAX:
        lines.append(f"  and {len(told) - REASONS_MAX} more: a terminal of 110 columns shows all, --json too")
    return ["", *lines] if lines else []


def format_summary(boards: Sequence[Board]) -> list[str]:
    """Return how many boards there are, how they stand, and what they run."""
    standings = count_standings(boards)
    well = standings.get(Standing.WELL, 0)
    parts = [f"{well} well", *(f"{count} {WORDS[which]}" for which, count in standings.items() if which in WORDS)]
    noun = "board" if len(boards) == 1 else "boards"
    lines = [f"{len(boards)} {noun}: {', '.join(parts)}"]
    if versions := count_versions(boards):
        lines.append("versions: " + ", ".join(f"{version} on {count}" for version, count in versions.items()))
    return lines


def build_json(boards: Sequence[Board]) -> list[dict[str, object]]:
    """Return the boards for programs. Names are never changed; what is unknown is null."""
    return [_build_row(board) for board in boards]


def _build_row(board: Board) -> dict[str, object]:
    row: dict[str, object] = {
        "address": board.address.hex(),
        "standing": board.standing.name.lower(),
        "age_s": None if board.age_s is None else round(board.age_s, 1),
    }
    status = board.status
    if status is None:
        return row
    return row | {
        "name": status.name or None,
        "labels": list(status.labels),
        "task": status.task or None,
        "version": status.version or None,
        "suite": status.suite or None,
        "architecture": status.architecture or None,
        "round": status.round,
        "model_hash": status.model_hash.hex(),
        "health": status.health.name.lower(),
        "reason": status.reason or None,
        "battery_percent": status.battery_percent,
        "temperature_c": status.temperature_c,
        "release": status.release or None,
        "update": status.update.name.lower(),
        "up_s": status.up_s,
        "written_ms": status.written_ms or None,
    }
