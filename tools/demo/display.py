"""The one live display: redrawn in place on a terminal, a line a round where there is none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tools.demo.view import DeviceRow, Snapshot, draw_bars, format_bytes, format_percent

ROWS_MAX = 12
"""Devices shown one by one; more do not fit a terminal of 35 lines beside the rest."""
MINERS_MAX = 6
REDRAW_S = 0.5
BARS_WIDTH = 40
SAID_MAX = 3
DEVICE_COLUMNS = (
    ("device", 11),
    ("round", 5),
    ("its own model", 16),
    ("trained", 8),
    ("up", 8),
    ("down", 8),
    ("accepted", 8),
    ("", 0),
)
MINER_COLUMNS = (("miner", 11), ("height", 5), ("newest block", 16), ("blocks led", 10), ("", 0))
PHASES = {
    "open": "the chain opens",
    "commit": "devices train",
    "reveal": "devices publish",
    "score": "miners test updates",
    "settle": "miners tell scores",
}
"""What the chain waits for in each phase."""


class Display:
    """Use as a context. `show` redraws, `tell` says something that stays."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._told_round = -1
        self._told_stage = ""
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, text: str) -> None:
        """A line, or several, above the live part."""
        self._console.print(Text(text), soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """The state of things now."""
        if self._live is not None:
            # Drawing takes tens of milliseconds of the processor that the nodes train on.
            now = time.monotonic()
            if snapshot.stage != self._told_stage or now - self._drawn_at >= REDRAW_S:
                self._told_stage, self._drawn_at = snapshot.stage, now
                self._live.update(draw(snapshot), refresh=True)
            return
        if snapshot.stage != self._told_stage:
            self._told_stage = snapshot.stage
            self.tell(f"{snapshot.seconds:7.1f} s  {snapshot.stage}")
        # a round is told when its accuracy is there too
        newest = len(snapshot.accuracy) - 1
        if newest > max(0, self._told_round) and snapshot.accuracy[newest] is not None:
            self._told_round = newest
            accuracy = format_percent(snapshot.accuracy[newest])
            self.tell(
                f"{snapshot.seconds:7.1f} s  round {newest}/{snapshot.rounds} final at height {snapshot.height}, "
                f"accuracy {accuracy}, led by {snapshot.leader}"
            )


def draw(snapshot: Snapshot) -> RenderableType:
    """All of it; fits 100 columns and 35 lines."""
    head = Text(snapshot.title, style="bold", no_wrap=True, overflow="ellipsis")
    folder = Text(snapshot.folder, style="dim", no_wrap=True, overflow="ellipsis")
    body = [head, folder, Text(), _draw_progress(snapshot), _draw_accuracy(snapshot), Text()]
    said = [Text(f"! {line}", style="yellow", no_wrap=True, overflow="ellipsis") for line in snapshot.said[-SAID_MAX:]]
    content = Group(*body, _draw_devices(snapshot), Text(), _draw_miners(snapshot), *said)
    return Panel(content, title="flchain demo", title_align="left", border_style="cyan", padding=(0, 1))


def _draw_progress(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=snapshot.rounds, completed=snapshot.settled, width=24, complete_style="cyan")
    # a width for each, so that the line stands still while its words change
    for width in (24, 12, 26, 11, 6):
        grid.add_column(min_width=width, no_wrap=True)
    round_shown = min(snapshot.round, snapshot.rounds)
    doing = f"{snapshot.phase}: {PHASES[snapshot.phase]}" if snapshot.phase else snapshot.stage
    grid.add_row(
        bar,
        Text(f"round {round_shown}/{snapshot.rounds}", style="bold"),
        Text(doing, style="bold"),
        Text(f"height {snapshot.height}"),
        Text(f"{snapshot.seconds:.0f} s", style="dim"),
    )
    return grid


def _draw_accuracy(snapshot: Snapshot) -> RenderableType:
    known = [value for value in snapshot.accuracy if value is not None]
    text = Text("accuracy on data nobody trained on  ", style="dim")
    text.append(draw_bars(snapshot.accuracy, BARS_WIDTH), style="green")
    text.append(f"  {format_percent(known[-1] if known else None)}", style="bold green")
    return text


def _draw_devices(snapshot: Snapshot) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, width in DEVICE_COLUMNS:
        justify: JustifyMethod = "left" if name in ("device", "its own model", "") else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=width)
    rows = snapshot.devices
    for row in rows[:ROWS_MAX]:
        table.add_row(*_list_device(row))
    if len(rows) > ROWS_MAX:
        rest = rows[ROWS_MAX:]
        table.add_row(
            f"and {len(rest)} more",
            f"{min(row.round for row in rest)}..{max(row.round for row in rest)}",
            f"{len({row.model_hash for row in rows})} different",
            "",
            format_bytes(sum(row.bytes_up for row in rest) / len(rest)),
            format_bytes(sum(row.bytes_down for row in rest) / len(rest)),
            style="dim",
        )
    return table


def _list_device(row: DeviceRow) -> tuple[str | Text, ...]:
    trained = "-" if row.training_seconds is None else f"{row.training_seconds:.2f} s"
    return (
        row.name,
        str(row.round),
        Text(row.model_hash[:16] or "-", style="cyan"),
        trained,
        format_bytes(row.bytes_up),
        format_bytes(row.bytes_down),
        str(row.accepted),
        Text(row.note, style="yellow"),
    )


def _draw_miners(snapshot: Snapshot) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, width in MINER_COLUMNS:
        justify: JustifyMethod = "right" if name in ("height", "blocks led") else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=width)
    for row in snapshot.miners[:MINERS_MAX]:
        mark = "← leads" if row.name == snapshot.leader else ""
        note = Text(row.note, style="yellow") if row.note else Text(mark, style="cyan")
        table.add_row(row.name, str(row.height), Text(row.head[:16] or "-", style="cyan"), str(row.led), note)
    if (more := len(snapshot.miners) - MINERS_MAX) > 0:
        table.add_row(f"and {more} more", style="dim")
    return table
