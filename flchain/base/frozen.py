"""Frozen values made cheap: a quick `replace`, results kept with the value they are about, a mapping that grows.

Every state here is a value that never changes; a node makes thousands of them a second, and most differ from the one
before in a field or an entry. None of this changes what a value means, only what the next one costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, wraps
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flchain.base.types import Address

__all__ = ["ByAddress", "Growing", "kept_with", "replace"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_set_attribute = object.__setattr__
"""A frozen value's own one refuses."""

if TYPE_CHECKING:
    from dataclasses import replace
else:

    def replace(value: T, /, **changes: Any) -> T:
        """Return a frozen dataclass's value with some fields changed, as `dataclasses.replace` does.

        That one sets every field of a frozen value by `object.__setattr__`, which took a sixth of a miner's time. What
        `kept_with` and `cached_property` have put beside the fields is left behind: it was about the old value.
        """
        kind = value.__class__
        names = _get_plain_fields(kind)
        if names is None:
            return dataclasses.replace(value, **changes)
        fields = {**value.__dict__, **changes}
        if len(fields) != len(names):  # something is kept with the value, or a name is no field
            if not changes.keys() <= names:
                return dataclasses.replace(value, **changes)
            fields = {name: fields[name] for name in names}
        changed = object.__new__(kind)
        _set_attribute(changed, "__dict__", fields)
        return changed


@cache
def _get_plain_fields(kind: type) -> frozenset[str] | None:
    """Return the fields that a value of this class consists of; None if making one does more than set them."""
    fields = dataclasses.fields(kind)
    is_special = hasattr(kind, "__post_init__") or hasattr(kind, "__slots__") or not all(f.init for f in fields)
    return None if is_special else frozenset(f.name for f in fields)


def kept_with(compute: Callable[[T], V]) -> Callable[[T], V]:
    """Compute a pure function of a frozen value only once: the result is kept with the value, and goes when it goes.

    It does for functions, which the rules are, what `cached_property` does for methods.
    """
    name = f"_kept_{compute.__module__}.{compute.__qualname__}"

    @wraps(compute)
    def get(value: T) -> V:
        kept = value.__dict__
        if name not in kept:
            kept[name] = compute(value)
        answer: V = kept[name]
        return answer

    return get


class Growing(Mapping[K, V], Generic[K, V]):
    """A mapping that never changes; `with_item` gives a larger one without copying this one.

    All that grew from one another share one dict. Each entry says how many were there before it, and a mapping knows
    how many are its own: it does not see what a later one has added.

    >>> one = Growing({"a": 1})
    >>> two = one.with_item("b", 2)
    >>> dict(one), dict(two)
    ({'a': 1}, {'a': 1, 'b': 2})
    """

    __slots__ = ("_count", "_shared")

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        self._shared: dict[K, tuple[int, V]] = {
            key: (place, value) for place, (key, value) in enumerate(dict(items).items())
        }
        self._count = len(self._shared)

    def with_item(self, key: K, value: V) -> Growing[K, V]:
        """Return this with one entry more, or with another value for a key that is there (which copies)."""
        if key in self:
            return Growing({**dict(self.items()), key: value})
        shared, count = self._shared, self._count
        if len(shared) != count:  # another mapping has grown from this one already
            shared = dict(islice(shared.items(), count))
        shared[key] = (count, value)
        grown: Growing[K, V] = Growing.__new__(Growing)
        grown._shared, grown._count = shared, count + 1
        return grown

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        entry = self._shared.get(key)
        return entry[1] if entry is not None and entry[0] < self._count else default

    def __contains__(self, key: object) -> bool:
        entry = self._shared.get(key)  # type: ignore[arg-type]  # any object may be asked for
        return entry is not None and entry[0] < self._count

    def __getitem__(self, key: K) -> V:
        entry = self._shared[key]
        if entry[0] >= self._count:
            raise KeyError(key)
        return entry[1]

    def __iter__(self) -> Iterator[K]:
        return islice(self._shared, self._count)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Growing({dict(self.items())!r})"


PARTS = 64
"""Of a mapping by address: with a thousand devices each has sixteen entries."""


class ByAddress(Mapping[Address, V], Generic[V]):
    """A mapping by address that never changes; `with_item` copies one of PARTS parts of it, not all.

    Addresses are hashes, so the parts are alike. Entries are in the order of the parts, which is everywhere the same.

    >>> one = ByAddress({Address(bytes(20)): 1})
    >>> list(one.with_item(Address(bytes(20)), 2).values()), list(one.values())
    ([2], [1])
    """

    __slots__ = ("_parts",)

    def __init__(self, items: Mapping[Address, V] | None = None) -> None:
        parts: list[dict[Address, V]] = [{} for _ in range(PARTS)]
        for address, value in (items or {}).items():
            parts[address[-1] % PARTS][address] = value
        self._parts = tuple(parts)

    def with_item(self, address: Address, value: V) -> ByAddress[V]:
        """Return this with one entry more, or with another value for an address that is there."""
        number = address[-1] % PARTS
        changed: ByAddress[V] = ByAddress.__new__(ByAddress)
        part = {**self._parts[number], address: value}
        changed._parts = (*self._parts[:number], part, *self._parts[number + 1 :])
        return changed

    def __getitem__(self, address: Address) -> V:
        return self._parts[address[-1] % PARTS][address]

    def __iter__(self) -> Iterator[Address]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __repr__(self) -> str:
        return f"ByAddress({dict(self.items())!r})"
