"""Names for the quantities of the protocol, so that a height is never passed where a round is meant."""

from __future__ import annotations

from typing import NewType, TypeAlias

import numpy as np
import numpy.typing as npt

Round = NewType("Round", int)
"""Count of federated-learning rounds, from 1. Round 0 is the genesis model."""
Height = NewType("Height", int)
"""Position of a block in the chain, from 1. Height 0 is the genesis."""
View = NewType("View", int)
"""One attempt of consensus at a height, from 0 (the paper's "round")."""
Power = NewType("Power", int)
"""Voting power of a validator, a positive integer."""
Stake = NewType("Stake", int)
"""An amount of the chain's money, in its smallest unit: balances, bonds and delegations."""
Millis = NewType("Millis", int)
"""A duration or an instant of a monotonic clock, in milliseconds."""
UnixMillis = NewType("UnixMillis", int)
"""An instant by the wall clock: milliseconds since 1970-01-01 UTC. Blocks carry it."""
EARLIEST = UnixMillis(0)
BasisPoints = NewType("BasisPoints", int)
"""A share of one in ten-thousandths: 0 to SHARE_ALL."""
SHARE_ALL = 10_000
"""The whole, in basis points."""
MS_PER_S = 1_000

Address = NewType("Address", bytes)
"""20 bytes that name a node: the first of its public key's tagged hash."""
Hash = NewType("Hash", bytes)
"""32 bytes of SHA-256."""

ModelVector: TypeAlias = npt.NDArray[np.int32]
"""All parameters of a model, or a difference of two, at the fixed scale of `fixedpoint`: shape (P,), int32."""

ADDRESS_BYTES = 20
HASH_BYTES = 32
NO_HASH = Hash(b"\x00" * HASH_BYTES)
