"""What the tests of the chain's rules share: blocks by hand, and a chain whose first round is open."""

from __future__ import annotations

from flchain.ledger.block import compute_body_root
from flchain.ledger.state import ChainState
from flchain.rules.blocks import apply_block, build_block
from flchain.wire.envelope import encode_struct
from flchain.wire.messages import Body, Phase, Settlement
from tests.support.builders.chain import Driver, build_chain, replace_header


def open_chain() -> Driver:
    """A chain that waits for the commitments of its first round."""
    made = Driver(build_chain())
    made.open()
    return made


def forge_block(state: ChainState, transactions: tuple[bytes, ...], settlement: Settlement | None = None):
    """Return a block of any transactions in any order, with a header that fits them."""
    block, _ = build_block(state, state.validators[0].address, ())
    body = Body(transactions, (), settlement)
    return replace_header(block, body_root=compute_body_root(body)), encode_struct(body)


def apply(state: ChainState, *transactions: bytes) -> None:
    apply_block(state, *forge_block(state, transactions))


def phase_of(driver: Driver) -> Phase:
    return driver.state.round.phase
