"""What makes a simulation quick: what every node would compute of the same bytes is computed once.

Only pure functions, and only by their whole input, so that a run is the same event for event without it. A refusal (an
exception) is never remembered. The functions are those in force when the run begins: a test's mutants included.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property, lru_cache
from typing import Any
from unittest.mock import patch

from flchain.base import crypto
from flchain.wire import envelope as wire
from flchain.wire import packets
from flchain.wire.envelope import Envelope

KEPT_MAX = 50_000
ROOMS = ("flchain", "miner", "agent", "tools")


@contextmanager
def remember_pure() -> Iterator[None]:
    """While it lasts each packet is decoded, each envelope opened and each signature checked once in all nodes."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(wire, "verify", lru_cache(KEPT_MAX)(crypto.verify)))
        for true, remembering in (
            (packets.decode_packet, lru_cache(KEPT_MAX)(packets.decode_packet)),
            (wire.open_envelope, lru_cache(KEPT_MAX)(wire.open_envelope)),
            (wire.verify_envelope, _remember_verified(wire.verify_envelope)),
        ):
            for module in _find_users(true):
                stack.enter_context(patch.object(module, true.__name__, remembering))
        for module in _find_users(dataclasses.replace):
            stack.enter_context(patch.object(module, "replace", replace_quickly))
        yield


def _remember_verified(true: Callable[[Envelope, bytes, bytes], Any]) -> Callable[[Envelope, bytes, bytes], Any]:
    """An envelope is a function of its raw bytes; it cannot be a key itself, since its fields are a list."""
    known: dict[tuple[bytes, bytes, bytes], Any] = {}

    def verify_envelope(envelope: Envelope, chain: bytes, public_key: bytes) -> Any:
        key = envelope.raw, chain, public_key
        if key not in known:
            if len(known) >= KEPT_MAX:
                known.clear()
            known[key] = true(envelope, chain, public_key)
        return known[key]

    return verify_envelope


def replace_quickly(value: Any, /, **changes: Any) -> Any:
    """`dataclasses.replace` without setting all fields one by one, which is a sixth of a run's time."""
    names = _get_plain_fields(value.__class__)
    if names is None or not changes.keys() <= names:
        return dataclasses.replace(value, **changes)
    changed = object.__new__(type(value))
    changed.__dict__.update(value.__dict__, **changes)
    return changed


@cache
def _get_plain_fields(kind: type) -> frozenset[str] | None:
    """The fields that a value of this class consists of; None if making one does more than to set them."""
    fields = dataclasses.fields(kind)
    is_lazy = any(isinstance(item, cached_property) for base in kind.__mro__ for item in vars(base).values())
    is_special = is_lazy or hasattr(kind, "__post_init__") or hasattr(kind, "__slots__")
    return None if is_special or not all(f.init for f in fields) else frozenset(f.name for f in fields)


def _find_users(function: Callable[..., Any]) -> list[Any]:
    """The modules of the program that know a function by its name."""
    loaded = [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] in ROOMS]
    return [module for module in loaded if getattr(module, function.__name__, None) is function]
