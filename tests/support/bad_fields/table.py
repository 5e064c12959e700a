"""One table of bad input: what each wrong field of each message gets. Here its parts; rows are in files beside it.

A `Bench` is one kind of message at one entry point of the real code, with a message that is right. A `Row` is that
message with one field wrong: the code under which it is refused and what follows. `docs/refusals.md` is this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from flchain.base.errors import ConfigError, InvalidMessage


class Effect(Enum):
    """What follows from a message. But for TAKEN and NIL the state is the very same afterwards."""

    DROPPED = "dropped"
    RECEIPT = "dropped; a receipt tells the code"
    IGNORED = "ignored, not counted"
    NIL = "voted nil"
    STOP = "stops, names it"
    TAKEN = "taken"


@dataclass(frozen=True)
class Outcome:
    """What came of one message; `detail` is the error's text."""

    code: str
    effect: Effect
    detail: str = ""


@dataclass(frozen=True)
class Bench:
    """A message of one kind that is right, at one entry point. `send` takes it, or a changed one."""

    what: str
    where: str
    get_right: Callable[[], Any]
    send: Callable[[Any], Outcome]


@dataclass(frozen=True)
class Row:
    """One field wrong in one way. `change` gives the whole wrong message from the right one."""

    bench: Bench
    field: str
    wrong: str
    change: Callable[[Any], Any]
    code: str
    effect: Effect
    detail: str = ""
    """A part of the error's text, where the code alone would not show that it was this field."""

    def __str__(self) -> str:
        return f"{self.bench.what} @ {self.bench.where}: {self.field}: {self.wrong}"


Fault = tuple[str, Any]
"""How a field is wrong, and the wrong value; a function of the right message gives it where it depends on that."""
Line = tuple[str, str, Any, str, Effect] | tuple[str, str, Any, str, Effect, str]
"""field, how it is wrong, the wrong value or a function of the right message, code, effect, detail."""

OTHER_32, OTHER_20 = b"o" * 32, b"o" * 20


def _sized(count: int) -> tuple[Fault, ...]:
    sizes = tuple((f"{size} bytes", b"x" * size) for size in (0, count - 1, count + 1))
    return (*sizes, ("text", "x" * count), ("null", None), ("number", 1), ("list", [1]))


NO_NUMBER: tuple[Fault, ...] = (("null", None), ("text", "1"), ("true", True), ("bytes", b"\x01"), ("list", [1]))


def _ranged(least: int, most: int) -> tuple[Fault, ...]:
    return (*NO_NUMBER, (str(least - 1), least - 1), (_name(most + 1), most + 1))


def _name(number: int) -> str:
    power = number.bit_length() - 1
    for base, rest in ((2**power, number - 2**power), (2 ** (power + 1), number - 2 ** (power + 1))):
        if power > 16 and abs(rest) <= 1:
            exponent = base.bit_length() - 1
            return f"2^{exponent}" + (f"{rest:+d}" if rest else "")
    return str(number)


def _shown(count: int) -> tuple[Fault, ...]:
    """What no text that a terminal shows may be; an empty one is right."""
    letters = (f"{count + 1} letters", "x" * (count + 1))
    marks = (("a line end", "a\n"), ("an escape", "a\x1b[2J"), ("a letter beyond ASCII", "\u00e9"))
    return (letters, *marks, ("bytes", b"x"), ("null", None), ("number", 1))


SHAPES: dict[str, tuple[Fault, ...]] = {
    "number": _ranged(0, 2**53),  # a message's first field, which is looked at before its signature
    "counter": _ranged(0, 2**53),
    "positive": _ranged(1, 2**53),
    "count": _ranged(1, 2**31 - 1),
    "count or 0": _ranged(0, 2**31 - 1),
    "share": _ranged(0, 10_000),
    "share above 0": _ranged(1, 10_000),
    "mining share": _ranged(0, 3_333),
    "samples": _ranged(1, 2**20 - 1),
    "seats": _ranged(1, 64),
    "one": _ranged(1, 1),
    "phase": _ranged(0, 4),
    "want": _ranged(0, 5),
    "step": _ranged(1, 2),
    "valid view": _ranged(-1, 2**53),
    "whole": (*NO_NUMBER, ("-1", -1)),
    "any whole": NO_NUMBER,
    "flag": (("0", 0), ("null", None), ("text", "true")),
    "hash": _sized(32),
    "address": _sized(20),
    "salt": _sized(16),
    "hash or null": tuple(fault for fault in _sized(32) if fault[0] != "null"),
    "release state": _ranged(0, 1),
    "window": _ranged(60, 86_400),
    "package size": _ranged(1, 256_000_000),
    "version of a release": (
        *(("empty", ""), ("two numbers", "1.0"), ("four numbers", "1.0.0.0"), ("a leading zero", "1.02.0")),
        *(("a word behind", "1.0.0rc1"), ("a line's end", "1.0.0\n"), ("seven digits", "1000000.0.0")),
        *(("digits of another script", "\u0661.0.0"), ("bytes", b"1.0.0"), ("null", None)),
    ),
    "word": (
        *(("empty", ""), ("33 letters", "x" * 33), ("capitals", "Trixie"), ("a slash", "x/y"), ("a line's end", "x\n")),
        *(("bytes", b"x"), ("null", None)),
    ),
    "packages": (
        *(("none", []), ("33 of them", [["a", "b", b"h" * 32, 1]] * 33), ("bytes", b"x"), ("null", None)),
        ("a package of three fields", [["a", "b", b"h" * 32]]),
    ),
    "bytes": (("text", "x"), ("null", None), ("number", 1), ("list", [1])),
    "text of 32": (("33 letters", "x" * 33), ("bytes", b"ok"), ("null", None), ("number", 1)),
    "name": (("empty", ""), ("33 letters", "x" * 33), ("capitals", "X"), ("bytes", b"x"), ("null", None)),
    "title": (("empty", ""), ("65 letters", "x" * 65), ("a space", "x y"), ("bytes", b"x"), ("null", None)),
    "name of 32": (*_shown(32), ("a blank", "a b"), ("a dot first", ".a")),
    "version of 32": (*_shown(32), ("a blank", "1 0"), ("a plus first", "+1")),
    "system": (*_shown(16), ("capitals", "Bookworm"), ("a dot first", ".a")),
    "title or none": (*_shown(64), ("a blank", "x y")),
    "reason": _shown(80),
    "labels": (
        ("bytes", b"x"),
        ("null", None),
        ("nine of them", ["a"] * 9),
        ("an empty one", [""]),
        ("25 letters", ["x" * 25]),
        ("capitals", ["Roof"]),
        ("a line end", ["a\n"]),
        ("a number inside", [1]),
    ),
    "health": _ranged(0, 11),
    "update": _ranged(0, 8),
    "percent or null": _ranged(0, 100)[1:],
    "degrees or null": _ranged(-60, 200)[1:],
    "list": (("bytes", b"x"), ("null", None), ("number", 1), ("text", "x"), ("a number inside", [1])),
    "list or null": (("bytes", b"x"), ("number", 1), ("text", "x"), ("a number inside", [1])),
    "ranges": (
        ("bytes", b"x"),
        ("null", None),
        ("none", []),
        ("nine of them", [[0, 1]] * 9),
        ("a pair of one", [[0]]),
        ("from -1 on", [[-1, 1]]),
        ("of no chunk", [[0, 0]]),
        ("beyond 2^53", [[2**53 + 1, 1]]),
        ("text", [["0", 1]]),
    ),
    "scores": (
        ("bytes", b"x"),
        ("null", None),
        ("a pair of one", [[b"a" * 20]]),
        ("a pair of three", [[b"a" * 20, 1, 1]]),
        ("an address of 19 bytes", [[b"a" * 19, 1]]),
        ("a score of -1", [[b"a" * 20, -1]]),
        ("a score of 10001", [[b"a" * 20, 10_001]]),
    ),
}
"""How a field of each shape can be of the wrong type, length or range: always malformed, and never converted."""


def replace(message: Any, field: str, value: Any) -> Any:
    """The message with one field changed; `value` may be a function of the message."""
    return msgspec.structs.replace(message, **{field: value(message) if callable(value) else value})


def always(value: Any) -> Callable[[Any], Any]:
    """A change that does not look at what is right."""
    return lambda _: value


def build_rows(bench: Bench, lines: Iterable[Line]) -> list[Row]:
    """The rows of a struct: one a line."""
    rows = []
    for field, wrong, value, code, effect, *rest in lines:
        change = _change(field, value)
        rows.append(Row(bench, field, wrong, change, code, effect, *rest))
    return rows


def _change(field: str, value: Any) -> Callable[[Any], Any]:
    return lambda message: replace(message, field, value)


def build_shape_rows(
    bench: Bench,
    struct: type[msgspec.Struct],
    shapes: dict[str, str],
    *,
    prefix: str = "$",
    code: str = "malformed",
    effect: Effect = Effect.DROPPED,
) -> list[Row]:
    """The rows of a struct's types: each field with every fault of its shape, told by the field's place."""
    rows = []
    for field, shape in shapes.items():
        place = f"{prefix}[{struct.__struct_fields__.index(field)}"
        for wrong, value in SHAPES[shape]:
            detail = place
            if shape == "number":
                detail = "no round, height or" if type(value) is int else "a payload is [kind"
            rows.append(Row(bench, field, wrong, _change(field, value), code, effect, detail))
    return rows


def attempt(rule: Callable[[], object]) -> Outcome:
    """What a rule that raises says of its input. Anything but InvalidMessage or ConfigError is a fault of ours."""
    try:
        rule()
    except InvalidMessage as error:
        return Outcome(error.code, Effect.DROPPED, str(error))
    except ConfigError as error:
        return Outcome("", Effect.STOP, str(error))
    return Outcome("", Effect.TAKEN)


def run(row: Row) -> Outcome:
    """Send the wrong message."""
    return row.bench.send(row.change(row.bench.get_right()))
