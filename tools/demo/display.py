"""The live display: redrawn in place on a terminal, one line per round where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tools.demo.view import DeviceRow, Snapshot, format_bars, format_bytes, format_percent

ROWS_MAX = 12
"""Devices shown one by one; with more, the display would not fit a terminal of 35 lines."""
MINERS_MAX = 6
REDRAW_S = 0.5
BARS_WIDTH = 40
TOLD_MAX = 3
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
MINER_COLUMNS = (("miner", 11), ("height", 5), ("newest block", 16), ("proposed", 10), ("", 0))
PHASES = {
    "open": "the chain opens",
    "commit": "devices train",
    "reveal": "devices publish",
    "score": "miners test updates",
    "settle": "miners open scores",
}
"""What happens in each phase."""


class Display:
    """A context manager. `show` redraws the live part, `tell` prints lines that stay."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._told_round = -1
        self._told_stage = ""
        self._drawn_at = 0.0

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, text: str) -> None:
        """Print one or more lines above the live part."""
        self._console.print(Text(text), soft_wrap=True)

    def show(self, snapshot: Snapshot) -> None:
        """Show the current state."""
        if self._live is not None:
            # A redraw takes tens of milliseconds of the CPU that the nodes train on.
            now = time.monotonic()
            if snapshot.stage != self._told_stage or now - self._drawn_at >= REDRAW_S:
                self._told_stage, self._drawn_at = snapshot.stage, now
                self._live.update(render(snapshot), refresh=True)
            return
        if snapshot.stage != self._told_stage:
            self._told_stage = snapshot.stage
            self.tell(f"{snapshot.seconds:7.1f} s  {snapshot.stage}")
        # wait for the accuracy before the round is announced
        newest = len(snapshot.accuracy) - 1
        if newest > max(0, self._told_round) and snapshot.accuracy[newest] is not None:
            self._told_round = newest
            accuracy = format_percent(snapshot.accuracy[newest])
            self.tell(
                f"{snapshot.seconds:7.1f} s  round {newest}/{snapshot.rounds} final at height {snapshot.height}, "
                f"accuracy {accuracy}, proposed by {snapshot.proposer}"
            )


def render(snapshot: Snapshot) -> RenderableType:
    """Return the whole display; it fits 100 columns and 35 lines."""
    title = Text(snapshot.title, style="bold", no_wrap=True, overflow="ellipsis")
    folder = Text(snapshot.folder, style="dim", no_wrap=True, overflow="ellipsis")
    body = [title, folder, Text(), _render_progress(snapshot), _render_accuracy(snapshot), Text()]
    told = snapshot.told[-TOLD_MAX:]
    notes = [Text(f"! {line}", style="yellow", no_wrap=True, overflow="ellipsis") for line in told]
    content = Group(*body, _render_devices(snapshot), Text(), _render_miners(snapshot), *notes)
    return Panel(content, title="flchain demo", title_align="left", border_style="cyan", padding=(0, 1))


def _render_progress(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=snapshot.rounds, completed=snapshot.settled, width=24, complete_style="cyan")
    # fixed widths, so that the line does not jump while its words change
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


def _render_accuracy(snapshot: Snapshot) -> RenderableType:
    known = [value for value in snapshot.accuracy if value is not None]
    text = Text("accuracy on held-out data  ", style="dim")
    text.append(format_bars(snapshot.accuracy, BARS_WIDTH), style="green")
    text.append(f"  {format_percent(known[-1] if known else None)}", style="bold green")
    return text


def _render_devices(snapshot: Snapshot) -> RenderableType:
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


def _render_miners(snapshot: Snapshot) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, width in MINER_COLUMNS:
        justify: JustifyMethod = "right" if name in ("height", "proposed") else "left"
        table.add_column(name, justify=justify, no_wrap=True, min_width=width)
    for row in snapshot.miners[:MINERS_MAX]:
        mark = "← proposer" if row.name == snapshot.proposer else ""
        note = Text(row.note, style="yellow") if row.note else Text(mark, style="cyan")
        table.add_row(row.name, str(row.height), Text(row.head[:16] or "-", style="cyan"), str(row.proposed), note)
    if (more := len(snapshot.miners) - MINERS_MAX) > 0:
        table.add_row(f"and {more} more", style="dim")
    return table
