"""What a miner needs of whatever scores models for it, and a fake that answers at once."""

from __future__ import annotations

from typing import Protocol

from flchain.base.types import ModelVector


class Scorer(Protocol):
    """Scores models on data of its own."""

    async def score(self, vector: ModelVector) -> int:
        """Return the accuracy of the model vector, shape (P,), in basis points. Raise ValueError or RuntimeError."""
        ...

    def stop(self) -> None:
        """Drop what is not done yet."""
        ...


class ConstantScorer:
    """Gives every model the same score: for benchmarks and tests in which the worth of a model does not matter."""

    def __init__(self, score: int) -> None:
        self._score = score

    async def score(self, vector: ModelVector) -> int:
        """Return the score, in basis points."""
        return self._score

    def stop(self) -> None:
        """Do nothing: nothing is under way."""
