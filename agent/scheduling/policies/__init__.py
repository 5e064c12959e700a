"""How to split the CPU: POLICIES by name. A policy sees what the limits leave it, and proposes. It uses no chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from agent.scheduling.policies.learned import LearnedMemory, choose_learned
from agent.scheduling.policies.plain import choose_fixed, choose_mine_first, choose_train_first
from agent.scheduling.policies.profit import choose_profit
from agent.scheduling.values import Situation, Wish

Memory: TypeAlias = LearnedMemory | None
"""A policy's memory between decisions: a plain value of bounded size, or None."""
Policy: TypeAlias = Callable[[Situation, Memory], tuple[Wish, Memory]]


def _without_memory(choose: Callable[[Situation], Wish]) -> Policy:
    return lambda situation, memory: (choose(situation), memory)


POLICIES: dict[str, Policy] = {
    "profit": _without_memory(choose_profit),
    "fixed": _without_memory(choose_fixed),
    "train-first": _without_memory(choose_train_first),
    "mine-first": _without_memory(choose_mine_first),
    "learned": lambda situation, memory: choose_learned(situation, memory or LearnedMemory()),
}
PRICED = frozenset({"profit", "learned"})
"""The policies that weigh money."""
