"""Show a StatusView as lines for a person at the board. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.scheduling.readings import BoardReading
from agent.status.values import AgentStatus, HistoryView, NodeView, OutboxItem, SensorStatus, StatusView, UpdateReport
from flchain.wire.fleet import UpdateState
from flchain_edge.formatting import format_bytes, format_moment, format_share, format_span, format_table

STALE_S = 30.0
"""A status that is written every few seconds is older than this only if the agent hangs, or writes to a card."""
LABEL_WIDTH = 11


def format_view(view: StatusView) -> str:
    """Return all of it."""
    node, now, history = view.node, view.now, view.history
    lines = [_format_node(node, now)]
    if now is not None:
        lines += [f"  !! {text}" for text in _list_troubles(node, now)]
        lines += [_label(*fact) for fact in _list_facts(now, is_running=view.running is not None) if fact[1]]
    else:
        lines += [_label(name, text) for name, text in _list_stored(history) if text]
    per_day = view.disk_bytes_per_day
    if now is not None:
        lines.append(
            _label(
                "card",
                f"{format_bytes(per_day)} written a day" if per_day else "known after the first ten minutes",
            )
        )
    lines.append(_label("profile", view.profile))
    lines.append(_label("versions", ", ".join(f"{name} {version}" for name, version in view.versions.items())))
    lines += ["", *_format_rounds(history)]
    return "\n".join(lines)


def _label(name: str, text: str) -> str:
    return f"  {name:<{LABEL_WIDTH}}{text}"


def _format_node(node: NodeView, now: AgentStatus | None) -> str:
    state = node.state
    if state == "running":
        assert now is not None
        age_s = node.age_s or 0.0
        age = f", as of {format_span(age_s)} ago" if age_s >= 1 else ""
        return f"The agent RUNS, for {format_span(now.up_s)} (process {node.pid}){age}"
    if state == "never started":
        return "The agent DOES NOT RUN: it was never started with this configuration"
    if node.since_ms is None:
        return "Whether the agent runs cannot be read: ask as the user that it runs as, or root"
    since = format_moment(node.since_ms)
    if state == "stopped":
        return f"The agent DOES NOT RUN: it was stopped at {since}; below is its last status"
    if state == "killed":
        return f"The agent DOES NOT RUN: it was killed, or lost power, soon after {since}; below is its last status"
    return f"The agent DOES NOT RUN, or reports nothing; it last wrote to its database at {since}"


def _list_troubles(node: NodeView, now: AgentStatus) -> list[str]:
    troubles = []
    age_s = node.age_s or 0.0
    if node.state == "running" and age_s > STALE_S + now.scheduler.period_s:
        troubles.append(
            f"its last status is {format_span(age_s)} old: it hangs, or has neither $RUNTIME_DIRECTORY nor /dev/shm"
        )
    if now.is_mismatch:
        troubles.append(
            "THIS DEVICE COMPUTED ANOTHER MODEL THAN THE CHAIN and no longer takes part; "
            "see: flchain-agent logs --level error"
        )
    if now.is_expired:
        troubles.append("it was away for too long, or its clock is ahead: set the clock, or `checkpoint`")
    return troubles


def _list_facts(now: AgentStatus, *, is_running: bool) -> list[tuple[str, str]]:
    scheduler = now.scheduler
    return [
        ("device", f"{now.address}, chain {now.chain[:16]}"),
        ("round", _format_round(now)),
        ("model", _format_model(now)),
        ("broker", _format_broker(now, is_running=is_running)),
        ("outbox", _format_outbox(now.outbox)),
        ("scheduler", f"{scheduler.explanation}"),
        ("CPU", _format_cpu(now)),
        ("board", _format_board(now.board)),
        *((("sensor", _format_sensor(sensor))) for sensor in now.sensors),
        ("earned", _format_earned(now)),
        ("update", _format_update(now.update)),
        ("refused", ", ".join(f"{count} {code}" for code, count in now.refused.items())),
    ]


def _list_stored(history: HistoryView) -> list[tuple[str, str]]:
    """Return what is known from the database alone."""
    position = history.position
    if not position:
        return []
    return [
        ("round", f"{position.round}, height {position.height}"),
        ("model", f"of round {position.round - 1}, hash {position.model_hash[:16]}"),
        ("outbox", f"{history.outbox} waiting for a miner's receipt" if history.outbox else "empty"),
    ]


def _format_round(now: AgentStatus) -> str:
    phase_s = now.phase_s
    text = f"{now.round}, {now.phase} for {format_span(phase_s)}"
    training = now.training
    if training.is_running and training.steps:
        text += f"; training {training.steps_done / training.steps:.0%} done"
    elif training.is_running:
        text += "; training starts"
    elif now.has_update:
        text += "; this device has made its update"
    if now.is_held:
        text += ", held"
    if now.scores_due:
        text += f"; {now.scores_due} models to score"
    if not now.is_time_known:
        text += "; waiting for the first header from a miner, to know the time"
    return text


def _format_model(now: AgentStatus) -> str:
    where = "" if now.is_synced else ", behind the chain: asking for the newest"
    return f"of round {now.model_round}, hash {now.model_hash[:16]}, height {now.height}{where}"


def _format_broker(now: AgentStatus, *, is_running: bool) -> str:
    link, receipt_s = now.link, now.receipt_age_s
    if not is_running:
        return str(link.broker)
    if not link.is_connected:
        why = link.trouble or "no answer yet"
        return f"NOT CONNECTED for {format_span(link.for_s)}; trying {link.broker}: {why}"
    text = f"{link.broker}, connected for {format_span(link.for_s)}"
    if len(link.brokers) > 1:
        text += f" ({link.brokers.index(link.broker) + 1} of {len(link.brokers)})"
    if receipt_s is not None:
        text += f"; a miner's last receipt {format_span(receipt_s)} ago"
    return f"{text}; miner {now.followed[:8]}"


def _format_outbox(outbox: Sequence[OutboxItem]) -> str:
    if not outbox:
        return "empty"
    total = sum(item.bytes for item in outbox)
    return f"{len(outbox)} waiting for a miner's receipt, {format_bytes(total)}"


def _format_cpu(now: AgentStatus) -> str:
    given, cpu = now.scheduler.given, now.cpu
    taken = "not measured yet"
    if given is not None:
        train, mine, others = map(format_share, (given.train, given.mine, cpu.others))
        taken = f"training {train}, mining {mine}, others {others}"
    return f"taken: {taken}; {cpu.cores} cores, shares by {cpu.mechanism}"


def _format_board(board: BoardReading | None) -> str:
    if board is None:
        return "not measured yet"
    parts = []
    if board.temperature_c is not None:
        parts.append(f"{board.temperature_c:.0f} C")
    if board.is_throttled:
        parts.append("THROTTLED by the firmware")
    if board.is_undervolted:
        parts.append("UNDER-VOLTAGE: look at the supply")
    if board.power_w is not None:
        parts.append(f"{board.power_w:.1f} W {'estimated' if board.is_power_estimated else 'measured'}")
    if board.battery_fraction is not None or board.battery_wh is not None:
        wh = "" if board.battery_wh is None else f" {board.battery_wh:.0f} Wh"
        parts.append(f"battery {format_share(board.battery_fraction)}{wh}")
    if board.is_on_battery is not None:
        parts.append("on battery" if board.is_on_battery else "on mains")
    parts.append(f"{format_bytes(board.free_memory_bytes)} memory free")
    unmeasured = [
        name for name, value in (("temperature", board.temperature_c), ("power", board.power_w)) if value is None
    ]
    return ", ".join(parts) + (f"; unmeasured: {', '.join(unmeasured)}" if unmeasured else "")


def _format_sensor(sensor: SensorStatus) -> str:
    age = "" if sensor.age_s is None else f", newest {format_span(sensor.age_s)} ago"
    detail = f"; {sensor.detail}" if sensor.detail else ""
    return f"{sensor.name} ({sensor.kind}) {sensor.state}, {sensor.samples:,} samples{age}{detail}"


def _format_update(update: UpdateReport) -> str:
    """Return how far this board is with the operator's newest release; nothing while it knows of none."""
    if not update.release:
        return ""
    word = "left out" if update.state is UpdateState.NONE else update.state.name.lower().replace("_", " ")
    return f"release {update.release}: {word}" + (f"; {update.detail}" if update.detail else "")


def _format_earned(now: AgentStatus) -> str:
    earned = now.earned
    text = f"{earned.update_coins:,} coins by updates"
    if now.is_mining or earned.scored_rounds:
        text += f"; {earned.scored_rounds:,} rounds scored, worth about {earned.score_coins:,} coins"
    return text


def _format_rounds(history: HistoryView) -> list[str]:
    if history.fault:
        return [f"No rounds to show: {history.fault}"]
    if not history.rounds:
        return ["No round has been settled yet."]
    rows: list[tuple[str, ...]] = [("round", "accepted", "up", "down", "training", "energy", "of it training")]
    for row in history.rounds:
        how = row.energy_source
        energy = how if row.energy_j is None else f"{row.energy_j:.1f} J {how}"
        training = "-" if row.training_j is None else f"{row.training_j:.1f} J"
        accepted = "yes" if row.is_accepted else "no" if row.training_ms else "took no part"
        trained = f"{row.training_ms / 1000:.2f} s" if row.training_ms else "-"
        rows.append(
            (
                f"{row.round}",
                accepted,
                format_bytes(row.bytes_up),
                format_bytes(row.bytes_down),
                trained,
                energy,
                training,
            )
        )
    return [f"  {line}" for line in format_table(rows, right=frozenset({0, 2, 3, 4, 5, 6}))]
