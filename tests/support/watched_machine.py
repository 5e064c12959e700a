"""A node's machine under watch: each state that it reaches is asked for the rules that it breaks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest


def watch_steps(
    monkeypatch: pytest.MonkeyPatch, machine: Any, table: Any, state_rules: Any
) -> Counter[tuple[Any, Any]]:
    """Check every state that the machine of a simulated network is in; count by event and phase.

    `machine` is the module with `step`, `table` that with `get_kind` and `get_phase`, `state_rules` that with
    `find_illegal`.
    """
    true, seen = machine.step, Counter[tuple[Any, Any]]()

    def step(state: Any, event: Any, *clocks: Any) -> Any:
        kind = table.get_kind(event)
        seen[(kind, table.get_phase(state, kind))] += 1
        after, effects = true(state, event, *clocks)
        broken = state_rules.find_illegal(after)
        assert broken == (), (event, broken)
        return after, effects

    monkeypatch.setattr(machine, "step", step)
    return seen
