"""A whole state in bytes: it comes back as it was, and nothing but it has the header's root."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flchain.base.errors import InvalidMessage, MalformedMessage, OversizedMessage
from flchain.codecs import encode_carried
from flchain.ledger.limits import compute_state_bytes_max
from flchain.ledger.snapshot import decode_state, encode_state
from flchain.ledger.state import ChainState
from flchain.wire.envelope import decode, encode
from flchain.wire.messages import Phase
from tests.support.builders.chain import Driver, build_chain
from tests.support.builders.stake import delegate, undelegate

BYTES_MAX = 1_000_000


def build_driver() -> Driver:
    """A chain with a row in every table, in the last phase of its second round."""
    chain = build_chain(holders=2)
    made = Driver(chain)
    made.run_round()
    holder, candidate = chain.holders[0], chain.miners[0]
    made.extend(orders=[delegate(made.state, holder, candidate, 60)])
    made.extend(orders=[undelegate(made.state, holder, candidate, 20)])
    made.go_to(Phase.SETTLE)
    return made


DRIVER = build_driver()
HEADER = DRIVER.blocks[-1].header_bytes
DATA = encode_state(DRIVER.state)


def restore(data: bytes, header: bytes = HEADER, bytes_max: int = BYTES_MAX) -> ChainState:
    return decode_state(data, header, DRIVER.state.params, bytes_max)


def test_every_state_comes_back_as_it_was() -> None:
    """After each block, in every phase, all fields of the state are those that were encoded."""
    assert all((DRIVER.state.delegations, DRIVER.state.unbondings, DRIVER.state.round.reveals))
    for state, block in zip(DRIVER.states[1:], DRIVER.blocks, strict=True):
        found = restore(encode_state(state), block.header_bytes)
        for item in fields(ChainState):
            if item.name not in ("model", "carried", "payload"):
                assert getattr(found, item.name) == getattr(state, item.name), item.name
        assert found.model.tolist() == state.model.tolist()
        assert encode_carried(found.carried) == encode_carried(state.carried)


def test_a_restored_state_goes_on_as_the_original() -> None:
    """The next block is the same, byte for byte, whether it is built on the state or on its copy."""
    first, second = (Driver(DRIVER.chain, [state], list(DRIVER.blocks)) for state in (DRIVER.state, restore(DATA)))
    assert first.extend().header_bytes == second.extend().header_bytes


@pytest.mark.parametrize("table", ["accounts", "devices", "candidates", "delegations", "unbondings"])
def test_a_changed_row_is_not_the_headers_state(table: str) -> None:
    """Any one field of any one row changed, or a row left out, gives another root."""
    rows = getattr(DRIVER.state, table)
    assert rows
    fewer: dict[str, Any] = {table: rows[1:]}
    with pytest.raises(MalformedMessage):
        restore(encode_state(replace(DRIVER.state, **fewer)))
    for item in fields(rows[0]):
        value = getattr(rows[0], item.name)
        value = 0 if value is None else value  # an unbonding before the election
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else bytes(len(value))
        changed: dict[str, Any] = {table: (replace(rows[0], **{item.name: other}), *rows[1:])}
        with pytest.raises(MalformedMessage):
            restore(encode_state(replace(DRIVER.state, **changed)))


def test_what_the_leaves_only_hash_is_checked_too() -> None:
    """Another update of the open round, one less, another model, what is carried, or one of another size is refused."""
    leaves, updates, vector, carried = decode(DATA, BYTES_MAX)
    assert carried
    others = (
        [leaves, [updates[0] + b"x", *updates[1:]], vector, carried],
        [leaves, updates[1:], vector, carried],
        [leaves, updates, bytes((vector[0] ^ 1,)) + vector[1:], carried],
        [leaves, updates, vector[:-4], carried],
        [leaves[::-1], updates, vector, carried],
        [[], updates, vector, carried],
        [leaves, updates, vector, bytes((carried[0] ^ 1,)) + carried[1:]],
        [leaves, updates, vector, carried[:-4]],
        [leaves, updates, vector, b""],
    )
    for other in others:
        with pytest.raises(InvalidMessage):
            restore(encode(other))


def test_a_state_belongs_to_one_header() -> None:
    """Under any other header of the chain it is refused."""
    for block in DRIVER.blocks[:-1]:
        with pytest.raises(MalformedMessage):
            restore(DATA, block.header_bytes)


def test_a_state_has_a_limit() -> None:
    """One byte more than allowed is refused before it is decoded; what is honest is far below the chain's limit."""
    with pytest.raises(OversizedMessage):
        restore(DATA, bytes_max=len(DATA) - 1)
    assert restore(DATA, bytes_max=len(DATA)).head == DRIVER.state.head
    assert len(DATA) < compute_state_bytes_max(DRIVER.state.params, 3)


@given(st.data())
def test_garbage_is_an_invalid_message(data: st.DataObject) -> None:
    """Bytes cut off, changed or put in raise InvalidMessage and nothing else."""
    place = data.draw(st.integers(0, len(DATA)))
    junk = data.draw(st.binary(max_size=8))
    cut = data.draw(st.integers(0, 8))
    garbage = DATA[:place] + junk + DATA[place + cut :]
    if garbage != DATA:
        with pytest.raises(InvalidMessage):
            restore(garbage)
