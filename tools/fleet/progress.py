"""A rollout in words: one line while it runs, and a table of boards by tranche. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flchain_edge.formatting import format_span
from tools.fleet.rollout import Candidate, Outcome, Rollout, Stage, find_tranche, judge
from tools.fleet.table import cut, format_age, get_reason

WORDS = {
    Outcome.UPDATED: "updated",
    Outcome.PENDING: "on its way",
    Outcome.LATER: "later",
    Outcome.LEFT_OUT: "left out",
    Outcome.UNWELL_BEFORE: "unwell before",
    Outcome.FAILED: "failed",
}


def format_begin(rollout: Rollout, candidates: Sequence[Candidate]) -> str:
    """Return the first lines: what goes where, and what stops it."""
    outcomes = Counter(judge(rollout, candidate) for candidate in candidates)
    counts = [sum(one.place_bp < share for one in candidates) for share in rollout.shares_bp]
    lines = [
        f"{rollout.plan.version} to {counts[-1]} boards, by tranches: {', '.join(map(str, counts))}",
        f"each must stay well for {format_span(rollout.plan.soak_s)}; it halts if fewer than "
        f"{rollout.plan.health_min}% come through",
    ]
    for outcome, text in (
        (Outcome.LEFT_OUT, "without a package for their system, or switched off, stay as they are"),
        (Outcome.UNWELL_BEFORE, "sick, silent or never heard now: they are not judged"),
    ):
        if outcomes[outcome]:
            lines.append(f"{outcomes[outcome]} {text}")
    lines.append("Ctrl-C leaves it at its tranche; flchain fleet halt stops it")
    return "\n".join(lines)


def format_progress(rollout: Rollout, candidates: Sequence[Candidate], now_s: float) -> str:
    """Return where it stands, in one line that changes only when something has."""
    counts = Counter(judge(rollout, candidate) for candidate in candidates if candidate.place_bp < rollout.share_bp)
    told = [f"{counts[which]} {WORDS[which]}" for which in (Outcome.UPDATED, Outcome.PENDING, Outcome.FAILED)]
    text = f"{format_tranche(rollout)}: {', '.join(told)}"
    if rollout.stage is Stage.ROLLING and rollout.sound_s is not None:
        left_s = max(0.0, rollout.plan.soak_s - (now_s - rollout.sound_s))
        what = "done" if rollout.is_last else "the next one"
        text += f"; well, {what} in {format_span(60 * (left_s // 60 + 1))} at most"
    return text


def format_tranche(rollout: Rollout) -> str:
    """Return which tranche it is."""
    return f"tranche {rollout.tranche + 1} of {len(rollout.shares_bp)}"


def format_end(rollout: Rollout) -> str:
    """Return what has become of it, and what to do."""
    if rollout.stage is Stage.DONE:
        return f"{rollout.plan.version}: done, all tranches are well"
    if rollout.stage is Stage.HALTED:
        return (
            f"{rollout.plan.version}: HALTED in {format_tranche(rollout)}: {rollout.reason}. No further board begins; "
            "those that have the version keep it. See: flchain fleet status"
        )
    return (
        f"{rollout.plan.version}: stays at {format_tranche(rollout)}; its boards go on, no other begins. Go on with "
        "the same command, stop it with: flchain fleet halt"
    )


def format_boards(rollout: Rollout, candidates: Sequence[Candidate], *, width: int) -> list[str]:
    """Return the boards by tranche, the failed ones first, with what each has come to."""
    lines = []
    for index in range(len(rollout.shares_bp)):
        members = [candidate for candidate in candidates if find_tranche(rollout, candidate.place_bp) == index]
        state = "now" if index == rollout.tranche else "begun" if index < rollout.tranche else "later"
        if rollout.stage is not Stage.ROLLING and index <= rollout.tranche:
            state = rollout.stage.value
        noun = "board" if len(members) == 1 else "boards"
        lines.append(f"tranche {index + 1}: {len(members)} {noun}, {state}")
        ordered = sorted(members, key=lambda one: (-judge(rollout, one), one.board.title.lower(), one.board.address))
        lines += [cut(_format_board(rollout, one), width) for one in ordered]
    return lines


def _format_board(rollout: Rollout, candidate: Candidate) -> str:
    board, status = candidate.board, candidate.board.status
    version = (status.version if status else "") or "?"
    outcome = judge(rollout, candidate)
    reason = get_reason(board)
    if outcome is Outcome.PENDING and status is not None and status.release < rollout.first_sequence:
        reason = "knows nothing of this release: flchain-agent update status"
    text = f"  {cut(board.title, 16):<16} {WORDS[outcome]:<13} {cut(version, 8):<8}"
    return f"{text} {format_age(board.age_s):>5}  {reason}".rstrip()


def build_json(rollout: Rollout, candidates: Sequence[Candidate], sequence: int) -> dict[str, object]:
    """Return the rollout for programs."""
    return {
        "version": rollout.plan.version,
        "stage": rollout.stage.value,
        "reason": rollout.reason or None,
        "sequence": sequence,
        "tranche": rollout.tranche + 1,
        "shares_bp": list(rollout.shares_bp),
        "boards": [
            {
                "address": one.board.address.hex(),
                "name": one.board.title,
                "tranche": None if (place := find_tranche(rollout, one.place_bp)) is None else place + 1,
                "outcome": judge(rollout, one).name.lower(),
                "version": (one.board.status.version if one.board.status else "") or None,
                "update": one.board.status.update.name.lower() if one.board.status else None,
                "reason": get_reason(one.board) or None,
            }
            for one in candidates
        ],
    }
