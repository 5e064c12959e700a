"""The one table of bad input: each wrong field gets its code and its effect, and no field is without a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import msgspec
import pytest

from flchain.base import errors
from flchain.base.errors import InvalidMessage
from flchain.ledger.snapshot import _Parts
from flchain.ledger.state import Account, Candidate, Delegation, Device, Unbonding
from flchain.ledger.state_tree import get_leaves
from flchain.wire.envelope import Envelope, OpenedUpdate, Verified, decode
from flchain.wire.messages import MESSAGE_TYPES
from flchain.wire.packets import FIELD_TYPES, PacketType
from tests.support.bad_fields.messages import SHAPES
from tests.support.bad_fields.packets import FIELDS
from tests.support.bad_fields.refusals_page import PATH, build_all_rows, build_page
from tests.support.bad_fields.state import LEAVES, NESTED, get_state_driver
from tests.support.bad_fields.table import Bench, Effect, Outcome, run

ROWS = build_all_rows()
BENCHES: dict[tuple[str, str], None] = dict.fromkeys((row.bench.what, row.bench.where) for row in ROWS)
REFUSED = [row for row in ROWS if row.effect not in (Effect.TAKEN, Effect.IGNORED)]


@pytest.mark.parametrize(("what", "where"), BENCHES)
def test_each_wrong_field_gets_its_code(what: str, where: str) -> None:
    """A message that is right in all but one field: the code, what follows, and the state as it was."""
    faults: list[str] = []
    for row in ROWS:
        if (row.bench.what, row.bench.where) != (what, where):
            continue
        outcome = run(row)
        if (outcome.code, outcome.effect) != (row.code, row.effect) or row.detail not in outcome.detail:
            faults.append(f"{row}: {outcome}, not {row.code or 'no code'}, {row.effect.name} {row.detail!r}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("what", "where"), BENCHES)
def test_the_right_twin_is_taken(what: str, where: str) -> None:
    """With nothing wrong the same message is accepted at the same place, so that no row holds for another reason."""
    benches: dict[int, Bench] = {id(r.bench): r.bench for r in ROWS if (r.bench.what, r.bench.where) == (what, where)}
    for bench in benches.values():
        assert bench.send(bench.get_right()) == Outcome("", Effect.TAKEN)


KEPT: set[type[msgspec.Struct]] = {Envelope, OpenedUpdate, Verified}
"""What a node makes of a message, and keeps: these never travel."""


def iterate_structs(kind: type[msgspec.Struct] = msgspec.Struct) -> Iterator[type[msgspec.Struct]]:
    """Every struct of the protocol that has fields."""
    for sub in kind.__subclasses__():
        if sub.__module__.startswith("flchain.") and sub.__struct_fields__:
            yield sub
        yield from iterate_structs(sub)


def test_no_field_is_without_a_row() -> None:
    """A new kind, struct or field fails here until the table says what a wrong one gets."""
    refused = {(row.bench.what, row.field) for row in REFUSED}
    names: dict[type[msgspec.Struct], str] = {_Parts: "State"}
    structs = set(iterate_structs()) - KEPT
    assert all(struct.__struct_config__.array_like for struct in structs), "what travels is an array"
    assert set(MESSAGE_TYPES.values()) <= structs and _Parts in structs
    missing = [
        f"{struct.__name__}.{field}"
        for struct in structs
        for field in struct.__struct_fields__
        if (names.get(struct, struct.__name__), field) not in refused
    ]
    assert not missing
    assert {kind: tuple(shapes) for kind, shapes in SHAPES.items()} == {
        kind: kind.__struct_fields__ for kind in MESSAGE_TYPES.values()
    }


def test_no_packet_and_no_leaf_is_without_a_row() -> None:
    """Every field of every packet type, of every table of the state, and of every leaf."""
    refused = {(row.bench.what, row.field) for row in REFUSED}
    assert {kind: len(names) for kind, names in FIELDS.items()} == {k: len(types) for k, types in FIELD_TYPES.items()}
    # Which validators a header names is judged with the header; where they did not change they may be anything.
    untold = {(f"Packet {kind.name}", field) for kind in PacketType for field in FIELDS[kind]} - refused
    assert not untold
    written = {(leaf[0], len(leaf)) for raw in get_leaves(get_state_driver().state) for leaf in [decode(raw, 10_000)]}
    assert written == {(name, 1 + len(names)) for name, names in LEAVES.items()}
    tables = {"account": Account, "device": Device, "candidate": Candidate, "delegation": Delegation}
    for name, table in {**tables, "unbonding": Unbonding}.items():
        nested = {inner for (leaf, _), names in NESTED.items() if leaf == name for inner in names}
        assert {item.name for item in fields(table)} <= {*LEAVES[name], *nested}
        assert {("State", f"{name}.{item.name}") for item in fields(table)} <= refused


def test_every_code_is_in_the_table() -> None:
    """No error class without a row that shows it, and no row with a code that no class has."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, InvalidMessage)]
    assert {row.code for row in ROWS if row.code} == {c.code for c in classes} - {InvalidMessage.code}


def test_the_page_is_the_table() -> None:
    """docs/refusals.md is what the table gives; after a change: python -m tests.support.bad_fields.refusals_page."""
    assert PATH.read_text() == build_page()
